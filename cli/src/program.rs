//! The name this program is called by. Installed as `kubectl-chain` it is `kubectl chain` to its user, and says so.

use std::ffi::OsStr;
use std::path::Path;

/// How the program was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Servicechain,
    /// kubectl runs what is called `kubectl-NAME` when it is asked to `kubectl NAME`.
    KubectlPlugin,
}

impl Program {
    /// By the first word of the command line.
    pub(crate) fn of(called: Option<&OsStr>) -> Self {
        match called.and_then(|called| Path::new(called).file_stem()) {
            Some(name) if name == "kubectl-chain" => Self::KubectlPlugin,
            _ => Self::Servicechain,
        }
    }

    /// The command, its examples in the name it was called by.
    pub(crate) fn speaking(self, mut command: clap::Command) -> clap::Command {
        if self == Self::Servicechain {
            return command;
        }
        command = command.name("kubectl chain").bin_name("kubectl chain");
        renamed(command)
    }

    /// A message, the commands in it in the name it was called by.
    pub(crate) fn in_its_name(self, message: &str) -> String {
        match self {
            Self::Servicechain => message.to_owned(),
            // Commands stand in backticks; other words, such as the charts', keep their name.
            Self::KubectlPlugin => message
                .replace("`servicechain ", "`kubectl chain ")
                .replace("| servicechain ", "| kubectl chain "),
        }
    }
}

fn renamed(command: clap::Command) -> clap::Command {
    let say = |text: &clap::builder::StyledStr| text.to_string().replace("servicechain ", "kubectl chain ");
    let after = command.get_after_help().map(say);
    let long = command.get_long_about().map(say);
    let command = command.mut_subcommands(renamed);
    let command = match after {
        Some(text) => command.after_help(text),
        None => command,
    };
    match long {
        Some(text) => command.long_about(text),
        None => command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_file_says_how_it_was_called() {
        for (called, program) in [
            ("servicechain", Program::Servicechain),
            ("/usr/local/bin/kubectl-chain", Program::KubectlPlugin),
            ("target/debug/servicechain", Program::Servicechain),
        ] {
            assert_eq!(Program::of(Some(OsStr::new(called))), program, "{called}");
        }
        assert_eq!(Program::of(None), Program::Servicechain);
    }

    #[test]
    fn messages_name_commands_as_they_are_called() {
        let message = "no servicechain here; `servicechain token | servicechain explain`";
        assert_eq!(
            Program::KubectlPlugin.in_its_name(message),
            "no servicechain here; `kubectl chain token | kubectl chain explain`"
        );
        assert_eq!(Program::Servicechain.in_its_name(message), message);
    }
}
