//! What is wrong with what a user wrote: all of it at once, each with its path in the user's words.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where, as the user would say it: `spec.services[1].name`. Empty when it is about the whole document.
    pub path: String,
    pub reason: Reason,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Why something is refused, as the condition Accepted says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It can never be right.
    Invalid,
    /// It is right, but this version cannot do it.
    NotSupportedYet,
}

/// Everything that is wrong; never empty when it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One mistake about a whole document.
    #[must_use]
    pub fn of_document(message: impl Into<String>) -> Self {
        let mut mistakes = Self::new();
        mistakes.add("", message);
        mistakes
    }

    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Mistake {
            path: path.into(),
            reason: Reason::Invalid,
            message: message.into(),
        });
    }

    /// Refuses what this version cannot do. `feature` names it, `instead` says what works today.
    pub fn add_unsupported(&mut self, path: impl Into<String>, feature: &str, instead: &str) {
        self.0.push(Mistake {
            path: path.into(),
            reason: Reason::NotSupportedYet,
            message: format!("NotSupportedYet: {feature} cannot be done by this version; {instead}"),
        });
    }

    pub fn extend(&mut self, others: impl IntoIterator<Item = Mistake>) {
        self.0.extend(others);
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Mistake> {
        self.0.iter()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value, unless something is wrong.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }

    /// The message for people: what has how many mistakes, then one a line.
    #[must_use]
    pub fn about(&self, what: &str) -> String {
        let count = if self.0.len() == 1 {
            "a mistake".to_owned()
        } else {
            format!("{} mistakes", self.0.len())
        };
        format!("{what} has {count}\n{self}")
    }
}

impl IntoIterator for Mistakes {
    type Item = Mistake;
    type IntoIter = std::vec::IntoIter<Mistake>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Mistakes {
    type Item = &'a Mistake;
    type IntoIter = std::slice::Iter<'a, Mistake>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "  {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
