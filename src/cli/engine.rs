//! `tallyhouse engine`: the child process that holds the embedded ClickHouse.
//! Not for people: `dev` starts it, and passes it the arguments it wants.

use std::ffi::OsString;
use std::process::ExitCode;

/// The engine's own arguments.
#[derive(clap::Args)]
pub struct EngineArgs {
    /// Handed to the engine as they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

impl EngineArgs {
    /// Becomes the engine.
    pub fn run(self) -> ExitCode {
        crate::clickhouse::engine::child::main(self.args)
    }
}
