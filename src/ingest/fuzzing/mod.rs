//! Targets of fuzzing: rows as they are read back.

pub(crate) mod rows;
