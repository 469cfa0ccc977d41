//! The setting type for a list of organizations.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::domain::OrgId;

/// Organizations, separated by commas.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OrgList(pub Vec<OrgId>);

impl FromStr for OrgList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let org = |name: &str| OrgId::parse(name).ok_or_else(|| format!("{name:?}: {}", OrgId::EXPECTED));
        names.map(org).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Debug for OrgList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(OrgId::as_str).collect();
        fmt::Debug::fmt(&names.join(","), f)
    }
}

impl<'de> Deserialize<'de> for OrgList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn organizations_are_separated_by_commas() {
        let check = |text: &str, expected: Result<&str, ()>| {
            let read = text.parse::<OrgList>().map(|list| format!("{list:?}")).map_err(drop);
            assert_eq!(read.as_deref(), expected.map(|names| format!("{names:?}")).as_deref(), "{text}");
        };
        check("", Ok(""));
        check("acme", Ok("acme"));
        check(" acme , b-2,", Ok("acme,b-2"));
        check("acme,a b", Err(()));
    }
}
