//! Colour and other niceties of a terminal. Where the output is no terminal, text stays as it is.

use std::io::IsTerminal;

/// Whether output goes to eyes that see colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    Colours,
    Plain,
}

impl Paint {
    /// Colours for a terminal, unless `NO_COLOR` is set (no-color.org).
    pub(crate) fn of(stream: &impl IsTerminal, no_color: bool) -> Self {
        if stream.is_terminal() && !no_color {
            Self::Colours
        } else {
            Self::Plain
        }
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.wrap("31", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        match self {
            Self::Colours => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }
}

/// Text that somebody else wrote, safe to print: control characters are shown, not obeyed, and it has an end.
pub(crate) fn tame(text: &str, longest: usize) -> String {
    let mut tamed: String = text.chars().take(longest).flat_map(shown).collect();
    if text.chars().nth(longest).is_some() {
        tamed.push('…');
    }
    tamed
}

/// The same of a text in several lines.
pub(crate) fn tame_lines(text: &str, longest: usize) -> String {
    let lines: Vec<String> = text.lines().map(|line| tame(line, longest)).collect();
    lines.join("\n")
}

fn shown(character: char) -> Vec<char> {
    if character.is_control() {
        character.escape_default().collect()
    } else {
        vec![character]
    }
}

/// The beginning of a key's id, enough to tell keys apart by eye.
pub(crate) fn short_key(kid: &str) -> String {
    tame(kid, 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_strangers_cannot_move_the_cursor() {
        assert_eq!(tame("a\u{1b}[2Jb", 100), "a\\u{1b}[2Jb");
        assert_eq!(tame("abcdef", 4), "abcd…");
        assert_eq!(tame("abcd", 4), "abcd");
        assert_eq!(tame_lines("a\nb\tc", 100), "a\nb\\tc");
    }

    #[test]
    fn plain_text_has_no_colours() {
        assert_eq!(Paint::Plain.red("no"), "no");
        assert_eq!(Paint::Colours.red("no"), "\u{1b}[31mno\u{1b}[0m");
    }
}
