//! Placeholder until the database room is merged.

/// Placeholder.
pub mod engine {
    /// Placeholder.
    pub mod child {
        /// The entry point of the child process that holds the engine.
        pub fn main(_args: Vec<std::ffi::OsString>) -> std::process::ExitCode {
            eprintln!("not built in here");
            std::process::ExitCode::FAILURE
        }
    }
}
