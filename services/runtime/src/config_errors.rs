//! What is wrong with a configuration: all of it at once, each mistake with where it stands and what would be right.
//!
//! It must not know what any service is told; each checks its own values and collects here.

use std::fmt;

/// Every mistake of one configuration.
#[derive(Debug)]
pub struct ConfigErrors {
    whose: &'static str,
    mistakes: Vec<Mistake>,
}

#[derive(Debug)]
struct Mistake {
    /// As its author would say it: `routes[1].timeout`, or a variable's name.
    path: String,
    sentence: String,
}

impl ConfigErrors {
    /// No mistake yet. `whose` is who is configured, as in "the gateway".
    #[must_use]
    pub const fn new(whose: &'static str) -> Self {
        Self {
            whose,
            mistakes: Vec::new(),
        }
    }

    pub fn add(&mut self, path: impl Into<String>, sentence: impl Into<String>) {
        self.mistakes.push(Mistake {
            path: path.into(),
            sentence: sentence.into(),
        });
    }

    /// The value, or `None` once the mistake is noted.
    pub fn check<T, E: fmt::Display>(&mut self, path: impl Into<String>, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.add(path, error.to_string())).ok()
    }

    /// The value, unless there was a mistake.
    ///
    /// # Errors
    /// Itself, where it holds a mistake.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.mistakes.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }

    /// Where each mistake stands, in the order in which they were found.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.mistakes.iter().map(|mistake| mistake.path.as_str())
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whose, count) = (self.whose, self.mistakes.len());
        let plural = if count == 1 { "" } else { "s" };
        write!(formatter, "{whose}'s configuration has {count} mistake{plural}")?;
        self.mistakes
            .iter()
            .try_for_each(|mistake| write!(formatter, "\n  {}: {}", mistake.path, mistake.sentence))
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_a_line_with_its_path() {
        let mut errors = ConfigErrors::new("the service");
        assert_eq!(errors.check("timeout", Ok::<_, fmt::Error>(5)), Some(5));
        errors.add("hop.name", "must be a name");
        assert_eq!(
            errors.to_string(),
            "the service's configuration has 1 mistake\n  hop.name: must be a name"
        );
        assert_eq!(errors.check::<u8, _>("workers", Err("too many")), None);
        assert_eq!(
            errors.to_string(),
            "the service's configuration has 2 mistakes\n  hop.name: must be a name\n  workers: too many"
        );
        assert_eq!(errors.paths().collect::<Vec<_>>(), ["hop.name", "workers"]);
    }

    #[test]
    fn a_value_is_given_only_where_nothing_is_wrong() {
        let mut errors = ConfigErrors::new("the gateway");
        assert_eq!(ConfigErrors::new("the gateway").or(7).ok(), Some(7));
        errors.add("file", "is empty");
        assert!(errors.or(7).is_err());
    }
}
