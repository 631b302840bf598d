//! How a command ends: its exit code and, when it did not do what was asked, the sentence that says why.

use std::process::ExitCode;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// 1: it was tried and did not work.
    Failed(anyhow::Error),
    /// 2: what was given cannot be worked with; the whole message, several lines perhaps.
    BadInput(String),
    /// 1: the answer is no and has been printed.
    Refused,
}

impl Failure {
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Self::Failed(_) | Self::Refused => ExitCode::from(1),
            Self::BadInput(_) => ExitCode::from(2),
        }
    }

    /// What to say, the causes behind it in one sentence.
    pub(crate) fn message(&self) -> Option<String> {
        match self {
            Self::Failed(error) => Some(format!("{error:#}")),
            Self::BadInput(message) => Some(message.clone()),
            Self::Refused => None,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
