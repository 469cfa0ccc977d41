//! Scopes: what a caller may do.

/// One thing that a token may allow. None includes another: a token that is to
/// read and to administrate names both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Scope {
    /// Events in.
    Ingest,
    /// Answers out, and the live tail.
    Read,
    /// Audits, and the log's segments.
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
    /// For who need not show a token.
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

/// What a route or a method asks of its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum RequiredAccess {
    /// Nothing.
    Nothing,
    /// A good token that includes this scope.
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
