//! `tallyhouse completions` and `tallyhouse man`: what is made from the commands
//! themselves, for packages.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

/// For which shell.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

/// Where to write.
#[derive(Clone, Debug, clap::Args)]
pub struct ManArgs {
    /// A directory for the pages of all commands. Without: the page of `tallyhouse` goes to standard output.
    #[arg(value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

impl CompletionsArgs {
    /// Prints the script.
    ///
    /// # Errors
    /// When standard output does not take it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "tallyhouse", &mut script);
        super::print(&String::from_utf8_lossy(&script))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl ManArgs {
    /// Writes the pages.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let command = super::command();
        match self.directory {
            Some(directory) => {
                std::fs::create_dir_all(&directory)
                    .and_then(|()| clap_mangen::generate_to(command, &directory))
                    .with_context(|| format!("cannot write pages into {}", directory.display()))?;
            }
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page).context("cannot write the page")?;
                super::print(&String::from_utf8_lossy(&page))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;
    use clap_complete::Shell;

    #[test]
    fn every_shell_completes_every_command_that_is_shown() {
        let names: Vec<String> = super::super::command()
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(|command| command.get_name().to_owned())
            .collect();
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut super::super::command(), "tallyhouse", &mut script);
            let script = String::from_utf8(script).unwrap();
            for name in &names {
                assert!(script.contains(name.as_str()), "{shell}: {name}");
            }
        }
    }

    #[test]
    fn there_is_a_page_for_every_command() {
        let dir = tempfile::tempdir().unwrap();
        super::ManArgs { directory: Some(dir.path().to_owned()) }.run().unwrap();
        for command in super::super::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let page = dir.path().join(format!("tallyhouse-{}.1", command.get_name()));
            let text = std::fs::read_to_string(&page).unwrap();
            assert!(text.contains(".SH NAME") && text.contains(".SH OPTIONS"), "{}", page.display());
        }
    }
}
