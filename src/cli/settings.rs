//! `tallyhouse settings`: prints the page `docs/configuration.md`.

use std::process::ExitCode;

use crate::config::Config;

/// No arguments.
#[derive(clap::Args)]
pub struct SettingsArgs {}

impl SettingsArgs {
    /// Prints the page.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        super::print(&Config::reference_markdown())?;
        Ok(ExitCode::SUCCESS)
    }
}
