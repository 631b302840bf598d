//! Times and texts as people read them: lengths of time, words of the API, lines that end in time. Pure.

use std::time::Duration;

use jiff::Timestamp;

/// The longest line that is printed.
pub(crate) const COLUMNS: usize = 100;

/// Seconds in the two largest units: `4 m 12 s`.
pub(crate) fn in_words(seconds: u64) -> String {
    let parts = units(seconds).into_iter().take(2);
    parts.collect::<Vec<_>>().join(" ")
}

/// A time that was just measured: `0.4 s`, from a minute on `4 m 12 s`.
pub(crate) fn elapsed(time: Duration) -> String {
    if time < Duration::from_mins(1) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        in_words(time.as_secs())
    }
}

/// Seconds in the largest unit alone: `4 m`.
pub(crate) fn roughly(seconds: u64) -> String {
    units(seconds).swap_remove(0)
}

/// Never empty, the largest first, none of them zero but a lone `0 s`.
fn units(seconds: u64) -> Vec<String> {
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, unit) in [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")] {
        if rest >= size {
            parts.push(format!("{} {unit}", rest / size));
            rest %= size;
        }
    }
    if parts.is_empty() {
        parts.push("0 s".to_owned());
    }
    parts
}

/// Whole seconds from one moment to another; zero where clocks disagree about their order.
pub(crate) fn seconds_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_second().saturating_sub(from.as_second())).unwrap_or_default()
}

/// `NoKeys` as `no keys`.
pub(crate) fn spoken(word: &str) -> String {
    let mut text = String::with_capacity(word.len() + 2);
    for (index, letter) in word.char_indices() {
        if letter.is_uppercase() && index > 0 {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// Lines of at most `width` columns: those of the text, broken between words, or inside one that is longer than a line.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    text.lines().flat_map(|line| wrapped_line(line, width)).collect()
}

fn wrapped_line(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        let fits = |line: &String| line.chars().count() + 1 + word.len() <= width;
        if let Some(line) = lines.last_mut().filter(|line| fits(line)) {
            line.push(' ');
            line.extend(word);
            continue;
        }
        while word.len() > width.max(1) {
            lines.push(word.drain(..width.max(1)).collect());
        }
        lines.push(word.into_iter().collect());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_one_or_two_units() {
        for (seconds, two, one) in [
            (0, "0 s", "0 s"),
            (59, "59 s", "59 s"),
            (252, "4 m 12 s", "4 m"),
            (7200, "2 h", "2 h"),
            (90_061, "1 d 1 h", "1 d"),
        ] {
            assert_eq!(
                (in_words(seconds).as_str(), roughly(seconds).as_str()),
                (two, one)
            );
        }
    }

    #[test]
    fn no_line_is_longer_than_it_may_be() {
        assert_eq!(wrapped("a bc def g", 4), ["a bc", "def", "g"]);
        assert_eq!(wrapped("x registry/image y", 8), ["x", "registry", "/image y"]);
        assert_eq!(wrapped("a\nb c", 4), ["a", "b c"]);
        assert!(wrapped("  ", 4).is_empty());
    }

    #[test]
    fn words_of_the_api_are_spoken() {
        assert_eq!(spoken("NoKeys"), "no keys");
        assert_eq!(spoken("Signing"), "signing");
    }
}
