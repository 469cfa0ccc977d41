//! Where a service listens, read from what it prints.

use crate::command::Mode;

/// What `dev` prints before the address of gRPC and REST.
const DEV_MAIN: &str = "gRPC, grpc-web, REST";
/// What `dev` prints before the address of analysts' SQL.
const DEV_SQL: &str = "ClickHouse, for SQL";
/// What `dev` prints before the catalogue's own address.
const DEV_TICKETING: &str = "ticketing port";
/// What `dev` prints before the token of the catalogue's administrators, if it made one.
const DEV_TICKETING_TOKEN: &str = "its admin token";
/// The last line that `dev` prints at its start.
const DEV_END: &str = "Ctrl-C stops it.";
/// What `serve` logs with its addresses; that of gRPC and REST is logged last.
const SERVE_MAIN: &str = "serving gRPC, grpc-web and REST";
const SERVE_SQL: &str = "serving SQL for analysts";
const SERVE_TICKETING: &str = "serving the ticketing catalogue";

/// Where a service listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The URL of gRPC, grpc-web and REST, without a slash at its end.
    pub main: String,
    /// The URL where analysts reach ClickHouse; none when the service has no such port.
    pub sql: Option<String>,
    /// The URL of the catalogue's own port; none when the service has no such port.
    pub ticketing: Option<String>,
    /// The token of the catalogue's administrators; none unless `dev` made one.
    pub ticketing_token: Option<String>,
}

impl Addresses {
    /// Reads what a service printed since its start: `dev` on standard output, `serve` in its log, as text or as JSON. None
    /// until it has said that it is ready.
    pub fn read(mode: Mode, stdout: &str, stderr: &str) -> Option<Self> {
        match mode {
            Mode::Dev => Self::of_dev(stdout),
            Mode::Serve => Self::of_serve(stderr),
        }
    }

    fn of_dev(stdout: &str) -> Option<Self> {
        let mut addresses = Self::default();
        for line in whole_lines(stdout) {
            let line = line.trim_start();
            let value = |label: &str| line.strip_prefix(label)?.split_whitespace().next().map(str::to_owned);
            if let Some(url) = value(DEV_MAIN) {
                addresses.main = url;
            } else if line == DEV_END {
                return Some(addresses);
            }
            addresses.sql = addresses.sql.or_else(|| value(DEV_SQL));
            addresses.ticketing = addresses.ticketing.or_else(|| value(DEV_TICKETING));
            addresses.ticketing_token = addresses.ticketing_token.or_else(|| value(DEV_TICKETING_TOKEN));
        }
        None
    }

    fn of_serve(stderr: &str) -> Option<Self> {
        let url = |message: &str| {
            let line = whole_lines(stderr).find(|line| line.contains(message))?;
            // `address=127.0.0.1:8080` in text, `"address":"127.0.0.1:8080"` in JSON.
            let value = line.split_once("address")?.1.trim_start_matches(['=', '"', ':']);
            let end = value.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(value.len());
            Some(format!("http://{}", &value[..end]))
        };
        let (sql, ticketing) = (url(SERVE_SQL), url(SERVE_TICKETING));
        Some(Self { main: url(SERVE_MAIN)?, sql, ticketing, ticketing_token: None })
    }
}

/// The lines of a text that may be cut off: the last one counts only when it has its end.
fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text.rfind('\n').map_or("", |end| &text[..end]).lines()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELCOME: &str = "Tallyhouse is ready.\n\n  \
         gRPC, grpc-web, REST   https://127.0.0.1:1001\n  \
         routes                 https://127.0.0.1:1001/docs\n  \
         ticketing catalogue    https://127.0.0.1:1001/ticketing/docs\n  \
         its admin token        secret-1\n  \
         ticketing port         https://127.0.0.1:1002\n  \
         ClickHouse, for SQL    http://127.0.0.1:1003  (user analyst, read-only)\n\n\
         In another terminal:\n\n  \
         Ctrl-C stops it.\n";

    #[test]
    fn dev_is_ready_when_all_is_printed() {
        let expected = Addresses {
            main: "https://127.0.0.1:1001".to_owned(),
            sql: Some("http://127.0.0.1:1003".to_owned()),
            ticketing: Some("https://127.0.0.1:1002".to_owned()),
            ticketing_token: Some("secret-1".to_owned()),
        };
        assert_eq!(Addresses::read(Mode::Dev, WELCOME, ""), Some(expected));
        for end in 0..WELCOME.len() {
            assert_eq!(Addresses::read(Mode::Dev, &WELCOME[..end], ""), None, "cut off at {end}");
        }
    }

    #[test]
    fn dev_without_a_catalogue_has_fewer_addresses() {
        let text: String = WELCOME
            .lines()
            .filter(|line| !line.contains("ticketing") && !line.contains("token"))
            .fold(String::new(), |text, line| text + line + "\n");
        let addresses = Addresses::read(Mode::Dev, &text, "").unwrap();
        assert_eq!((addresses.ticketing, addresses.ticketing_token), (None, None));
        assert_eq!(addresses.main, "https://127.0.0.1:1001");
    }

    #[test]
    fn serve_says_its_addresses_in_either_format() {
        let text = "2026-11-27T08:00:00.1Z  INFO serving SQL for analysts address=127.0.0.1:1003\n\
                    2026-11-27T08:00:00.2Z  INFO serving the ticketing catalogue address=127.0.0.1:1002\n\
                    2026-11-27T08:00:00.3Z  INFO serving gRPC, grpc-web and REST address=127.0.0.1:1001\n";
        let json = "{\"level\":\"INFO\",\"fields\":{\"message\":\"serving SQL for analysts\",\"address\":\"127.0.0.1:1003\"}}\n\
                    {\"fields\":{\"message\":\"serving the ticketing catalogue\",\"address\":\"127.0.0.1:1002\"}}\n\
                    {\"fields\":{\"message\":\"serving gRPC, grpc-web and REST\",\"address\":\"127.0.0.1:1001\"},\"target\":\"t\"}\n";
        let expected = Addresses {
            main: "http://127.0.0.1:1001".to_owned(),
            sql: Some("http://127.0.0.1:1003".to_owned()),
            ticketing: Some("http://127.0.0.1:1002".to_owned()),
            ticketing_token: None,
        };
        for log in [text, json] {
            assert_eq!(Addresses::read(Mode::Serve, "", log), Some(expected.clone()));
            assert_eq!(Addresses::read(Mode::Serve, "", &log[..log.len() - 1]), None, "the last line is not whole");
        }
    }
}
