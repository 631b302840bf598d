//! How a command ends: its exit code and, when it did not do what was asked, the sentence that says why.

use std::process::ExitCode;

/// What the codes mean, as `--help` says it.
pub(crate) const EXIT_CODES: &str = "Exit codes:
  0  done; `explain`: the token passes every hop; `wait`: the condition holds
  1  it did not work; `explain`: the token is refused somewhere
  2  bad input: flags, a chain.yaml with mistakes, no token where one is needed, no kubeconfig
  3  `wait`, `rotate`, `revoke`: what was waited for did not come in time
  4  there is no such chain in the cluster";

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// 1: it was tried and did not work.
    Failed(anyhow::Error),
    /// 1: the answer is no and has been printed.
    Refused,
    /// 2: what was given cannot be worked with; the whole message, several lines perhaps.
    BadInput(String),
    /// 3: what was waited for did not come; the whole message.
    TimedOut(String),
    /// 4: the cluster has no chain of this name.
    NoSuchChain(String),
}

impl Failure {
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) | Self::Refused => 1,
            Self::BadInput(_) => 2,
            Self::TimedOut(_) => 3,
            Self::NoSuchChain(_) => 4,
        })
    }

    /// What to say, the causes behind it in one sentence.
    pub(crate) fn message(&self) -> Option<String> {
        match self {
            Self::Failed(error) => Some(format!("{error:#}")),
            Self::BadInput(message) | Self::TimedOut(message) | Self::NoSuchChain(message) => {
                Some(message.clone())
            }
            Self::Refused => None,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
