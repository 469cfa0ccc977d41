//! Scopes: what a caller may do.

/// A scope of a token. No scope includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Scope {
    /// Send events.
    Ingest,
    /// Read counts, events and the live tail.
    Read,
    /// Audits, segments, organizations and event types.
    Admin,
}

impl Scope {
    const ALL: [Self; 3] = [Self::Ingest, Self::Read, Self::Admin];

    /// Its name in a token.
    pub(in crate::transport) const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Ingest => 1,
            Self::Read => 2,
            Self::Admin => 4,
        }
    }
}

/// Everything that one token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scopes(u8);

impl Scopes {
    /// All scopes, for callers without authentication.
    pub(super) const ALL: Self = Self(7);

    /// Nothing.
    pub(super) const NONE: Self = Self(0);

    /// Reads a list of names. Unknown names allow nothing.
    pub(super) fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let named = |name: &str| Scope::ALL.into_iter().find(|scope| scope.as_str() == name);
        Self(names.into_iter().filter_map(named).fold(0, |bits, scope| bits | scope.bit()))
    }

    pub(super) const fn include(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }
}

/// The access that a route or a method requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum RequiredAccess {
    /// Nothing.
    Nothing,
    /// A valid token with this scope.
    Scope(Scope),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_scope_includes_another() {
        let check = |names: &str, expected: [bool; 3]| {
            let scopes = Scopes::parse(names.split(' '));
            assert_eq!(Scope::ALL.map(|scope| scopes.include(scope)), expected, "{names}");
        };
        check("", [false, false, false]);
        check("ingest", [true, false, false]);
        check("read", [false, true, false]);
        check("admin", [false, false, true]);
        check("read  ingest other", [true, true, false]);
        check("READ ingest,read", [false, false, false]);
        assert_eq!(Scopes::parse(["ingest", "read", "admin"]), Scopes::ALL);
    }
}
