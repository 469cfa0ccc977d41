//! The setting type for host names.

use std::fmt;
use std::str::FromStr;

use axum::http::uri::Authority;
use serde::{Deserialize, Deserializer, de};

/// Host names or addresses without ports, in lower case.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hosts(pub Vec<String>);

impl FromStr for Hosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(host).collect::<Result<_, _>>().map(Self)
    }
}

fn host(name: &str) -> Result<String, String> {
    let wrong = || format!("{name:?} is not a host name or address without a port, such as tally.example");
    let authority: Authority = name.parse().map_err(|_| wrong())?;
    if authority.host() != name || authority.port().is_some() {
        return Err(wrong());
    }
    Ok(name.to_ascii_lowercase())
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.join(","), f)
    }
}

impl<'de> Deserialize<'de> for Hosts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_without_ports() {
        let check = |text: &str, expected: Option<&str>| {
            let read = text.parse::<Hosts>().ok().map(|hosts| hosts.0.join(","));
            assert_eq!(read.as_deref(), expected, "{text}");
        };
        check("", Some(""));
        check(" Tally.example , 192.0.2.1,[::1]", Some("tally.example,192.0.2.1,[::1]"));
        check("tally.example:8080", None);
        check("https://tally.example", None);
        check("me@tally.example", None);
    }
}
