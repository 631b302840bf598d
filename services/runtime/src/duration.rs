//! Durations as people write them: the Gateway API's duration string (GEP-2257), `5s`, `1h30m`, `100ms`.

use std::time::Duration;

const MAX_PARTS: usize = 4;
const MAX_DIGITS: usize = 5;

/// What is wrong with a duration string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no duration: write one to four numbers of at most five digits with h, m, s or ms, as in \"1h30m\""
)]
pub struct NoDuration(String);

/// Reads a GEP-2257 duration: `([0-9]{1,5}(h|m|s|ms)){1,4}`.
///
/// # Errors
/// [`NoDuration`] for anything else.
pub fn parse(text: &str) -> Result<Duration, NoDuration> {
    total(text).ok_or_else(|| NoDuration(text.chars().take(32).collect()))
}

fn total(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..MAX_PARTS {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > MAX_DIGITS {
            return None;
        }
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, after) = after.split_at(letters);
        let number: u64 = number.parse().ok()?;
        total += match unit {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        if after.is_empty() {
            return Some(total);
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_the_gateway_api_are_read() {
        assert_eq!(parse("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(parse("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse("0s"), Ok(Duration::ZERO));
        assert_eq!(parse("1h2m3s4ms"), Ok(Duration::from_millis(3_723_004)));
    }

    #[test]
    fn anything_else_is_refused() {
        for odd in [
            "",
            "5",
            "s",
            "1.5s",
            "-1s",
            "100000s",
            "1d",
            "1s1s1s1s1s",
            "1 s",
            "1S",
            "1us",
            "٣s",
        ] {
            assert!(parse(odd).is_err(), "{odd:?}");
        }
    }
}
