//! The setting type for origins of web pages.

use std::fmt;
use std::str::FromStr;

use axum::http::{HeaderValue, Uri};
use serde::{Deserialize, Deserializer, de};

/// The allowed origins of web pages.
#[derive(Clone, PartialEq, Eq)]
pub enum Origins {
    /// Any origin.
    Any,
    /// These origins.
    These(Vec<HeaderValue>),
}

impl Default for Origins {
    /// Nowhere but the service itself.
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        if parts == ["*"] {
            return Ok(Self::Any);
        }
        parts.into_iter().map(origin).collect::<Result<_, _>>().map(Self::These)
    }
}

/// An origin as browsers send it: RFC 6454, section 6.2.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let wrong =
        || format!("{text:?} is not an origin such as https://app.example or http://localhost:3000, or * alone");
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let has_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let is_whole = text == format!("{}://{authority}", uri.scheme_str().unwrap_or_default());
    let is_lower = !text.bytes().any(|b| b.is_ascii_uppercase());
    if !has_scheme || authority.is_empty() || authority.contains('@') || !is_whole || !is_lower {
        return Err(wrong());
    }
    HeaderValue::from_str(text).map_err(|_| wrong())
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::These(origins) if origins.is_empty() => f.write_str("\"\""),
            Self::These(origins) => {
                let origins: Vec<&str> = origins.iter().filter_map(|origin| origin.to_str().ok()).collect();
                f.write_str(&origins.join(","))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Origins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            List(Vec<String>),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Text(text) => text,
            Written::List(list) => list.join(","),
        };
        text.parse().map_err(|error| de::Error::custom(format!("cors_origins: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_browsers_send_them() {
        let check = |text: &str, expected: Option<&str>| {
            let read = text.parse::<Origins>().ok().map(|origins| format!("{origins:?}"));
            assert_eq!(read.as_deref(), expected, "{text}");
        };
        check("*", Some("*"));
        check("", Some("\"\""));
        check("https://a.example", Some("https://a.example"));
        check(" https://a.example, http://localhost:3000 ,", Some("https://a.example,http://localhost:3000"));
        check("https://a.example/", None);
        check("https://A.example", None);
        check("https://me@a.example", None);
        check("a.example", None);
        check("ftp://a.example", None);
        check("*,https://a.example", None);
        check("null", None);
    }
}
