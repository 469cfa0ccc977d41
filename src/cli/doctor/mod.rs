//! `tallyhouse doctor`: checks a set-up and says what is wrong and what to do.
//!
//! It looks at what a start would look at, and at what only shows under load: settings, data directory, disk,
//! clock, keys and certificates, ports, limits of the system, ClickHouse, and where they are used Redis and PostgreSQL. It
//! changes nothing but a small file in the data directory, which it deletes again.

mod clickhouse;
mod companions;
mod host;

use std::process::ExitCode;

use serde_json::json;

use super::service::ServiceArgs;
use super::style::Style;
use super::{EXIT_NEGATIVE, print, print_json};
use crate::clock::ArrivalClock;
use crate::config::Config;
use crate::server::{check_has_administrators, check_is_safe};
use crate::transport::{Callers, Tls};

/// What is to be checked.
#[derive(clap::Args)]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    service: ServiceArgs,
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// As it should be.
    Ok,
    /// The service runs, and something will go worse than it could.
    Warning,
    /// The service does not start, or refuses events.
    Error,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    /// What was checked.
    check: &'static str,
    level: Level,
    /// What was found.
    found: String,
    /// What to do; empty when all is well.
    advice: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), advice: String::new() }
    }

    fn warning(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, found: found.into(), advice: advice.into() }
    }

    fn error(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, level: Level::Error, found: found.into(), advice: advice.into() }
    }
}

impl DoctorArgs {
    /// Checks, and shows what was found. Exit codes: 0 nothing is wrong, warnings included; 1 something is; 2 failure.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let findings = match self.service.config() {
            Ok(config) => examine(&config).await,
            Err(error) => {
                let advice = "correct the setting; `tallyhouse settings` lists all with their bounds";
                vec![Finding::error("settings", error.to_string(), advice)]
            }
        };
        if self.json {
            print_json(&to_json(&findings))?;
        } else {
            print(&render(&findings, Style::stdout()))?;
        }
        let is_wrong = findings.iter().any(|finding| finding.level == Level::Error);
        Ok(if is_wrong { ExitCode::from(EXIT_NEGATIVE) } else { ExitCode::SUCCESS })
    }
}

/// Runs all checks. Each is for itself: one that fails prevents no other.
async fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![settings(config)];
    findings.extend(host::data_dir(config));
    findings.push(host::disk(config));
    findings.push(host::clock());
    findings.push(host::memory(config));
    findings.push(host::descriptors(config));
    findings.extend(host::ports(config));
    findings.push(tokens(config).await);
    findings.push(certificate(config).await);
    findings.extend(clickhouse::examine(config).await);
    findings.extend(companions::examine(config).await);
    findings
}

fn settings(config: &Config) -> Finding {
    match check_is_safe(config).and_then(|()| check_has_administrators(config)) {
        Ok(()) => Finding::ok("settings", "complete and within their bounds"),
        Err(error) => Finding::error("settings", error.to_string(), "the service does not start with these settings"),
    }
}

async fn tokens(config: &Config) -> Finding {
    const CHECK: &str = "tokens";
    if !config.has_authentication() {
        let advice = "set auth_hs256_secret, auth_jwks_file or auth_jwks_url before others can reach the service";
        return Finding::warning(
            CHECK,
            "there is no authentication: every caller is the organization 'default'",
            advice,
        );
    }
    let clock = std::sync::Arc::new(ArrivalClock::new(config.clock_bounds()));
    match Callers::open(config, &clock).await {
        Ok(callers) if callers.lack_keys()() => Finding::error(
            CHECK,
            format!("no keys can be had from {} (auth_jwks_url)", config.auth_jwks_url),
            "check the address, its certificate, and that this machine may connect to it",
        ),
        Ok(_) => Finding::ok(CHECK, "the keys that tokens are signed with can be read"),
        Err(error) => Finding::error(CHECK, error.to_string(), "without keys, the service does not start"),
    }
}

async fn certificate(config: &Config) -> Finding {
    const CHECK: &str = "tls";
    match Tls::open(config).await {
        Ok(Some(_)) => Finding::ok(CHECK, "the certificate and its key fit together"),
        Ok(None) if config.listen.ip().is_loopback() => Finding::ok(CHECK, "off; the port is on loopback"),
        Ok(None) => {
            let advice = "put a proxy that ends TLS in front, or set tls_certificate_file and tls_key_file";
            Finding::warning(CHECK, format!("off, and {} can be reached by others", config.listen), advice)
        }
        Err(error) => Finding::error(CHECK, error.to_string(), "the service does not start with these files"),
    }
}

fn render(findings: &[Finding], style: Style) -> String {
    let mut text = String::new();
    for finding in findings {
        let level = match finding.level {
            Level::Ok => style.green(&format!("{:<8}", finding.level.name())),
            Level::Warning => style.yellow(&format!("{:<8}", finding.level.name())),
            Level::Error => style.red(&format!("{:<8}", finding.level.name())),
        };
        text.push_str(&format!("{level} {:<20} {}\n", finding.check, finding.found));
        if !finding.advice.is_empty() {
            text.push_str(&format!("{:29} -> {}\n", "", finding.advice));
        }
    }
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    match worst {
        Level::Ok => text.push_str("nothing is wrong\n"),
        Level::Warning | Level::Error => {
            text.push_str(&format!("{} errors, {} warnings\n", count(Level::Error), count(Level::Warning)));
        }
    }
    text
}

fn to_json(findings: &[Finding]) -> serde_json::Value {
    let findings: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "check": finding.check,
                "level": finding.level.name(),
                "found": finding.found,
                "advice": finding.advice,
            })
        })
        .collect();
    json!({ "findings": findings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_say_what_to_do() {
        let findings = [
            Finding::ok("clock", "is right"),
            Finding::error("disk", "has 1 byte free", "enlarge it"),
            Finding::warning("tls", "off", "put a proxy in front"),
        ];
        let text = render(&findings, Style::plain());
        assert!(text.contains("error    disk                 has 1 byte free\n"), "{text}");
        assert!(text.contains("-> enlarge it\n") && text.ends_with("1 errors, 1 warnings\n"), "{text}");
        assert!(render(&findings[..1], Style::plain()).ends_with("nothing is wrong\n"));
    }
}
