//! Durations as users write them: Gateway API duration strings (GEP-2257), such as `1h30m` and `500ms`.
//! Deserializing never fails, since one odd object must not stop a watch of all; `parse` judges.

use std::{borrow::Cow, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A duration string of the Gateway API (GEP-2257): one to four numbers of one to five digits, each with one of
/// the units `h`, `m`, `s` and `ms`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct GatewayDuration(String);

/// Why a string is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration like 30s, 15m, 1h30m or 500ms")]
pub struct NotADuration;

impl GatewayDuration {
    /// What GEP-2257 allows, as a regular expression.
    pub const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

    /// What the user wrote.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The duration it means (GEP-2257).
    pub fn parse(&self) -> Result<Duration, NotADuration> {
        let mut rest = self.0.as_str();
        let mut total = Duration::ZERO;
        let mut parts = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, unit_and_rest) = rest.split_at(digits);
            let unit_length = unit_and_rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, next) = unit_and_rest.split_at(unit_length);
            if !(1..=5).contains(&digits) || parts == 4 {
                return Err(NotADuration);
            }
            let number: u64 = number.parse().map_err(|_| NotADuration)?;
            total += match unit {
                "h" => Duration::from_secs(number * 3600),
                "m" => Duration::from_secs(number * 60),
                "s" => Duration::from_secs(number),
                "ms" => Duration::from_millis(number),
                _ => return Err(NotADuration),
            };
            parts += 1;
            rest = next;
        }
        if parts == 0 { Err(NotADuration) } else { Ok(total) }
    }
}

impl From<&str> for GatewayDuration {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl JsonSchema for GatewayDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 32, "pattern": Self::PATTERN})
    }
}

/// Writes a duration as GEP-2257 does, in the largest units that fit: `90s` becomes `1m30s`. Parts below a
/// millisecond are left out.
#[must_use]
pub fn format(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(duration.subsec_millis()), "ms"),
    ];
    let mut text = String::new();
    for (number, unit) in parts {
        if number > 0 {
            text.extend([number.to_string().as_str(), unit]);
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Duration, NotADuration> {
        GatewayDuration::from(text).parse()
    }

    #[test]
    fn durations_of_gep_2257_are_understood() {
        assert_eq!(parsed("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(parsed("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parsed("0s"), Ok(Duration::ZERO));
        assert_eq!(
            parsed("99999h1m1s1ms"),
            Ok(Duration::from_millis(359_996_461_001))
        );
    }

    #[test]
    fn what_gep_2257_does_not_allow_is_refused() {
        for text in [
            "",
            "5",
            "s",
            "1.5h",
            "-1s",
            "1d",
            "1 s",
            "123456s",
            "1h1m1s1ms1s",
            "1us",
            "1٣s",
            "1sé",
        ] {
            assert_eq!(parsed(text), Err(NotADuration), "{text}");
        }
    }

    #[test]
    fn a_duration_is_written_so_that_it_reads_back() {
        for text in ["1h30m", "500ms", "0s", "1m30s", "24h", "2h1ms"] {
            assert_eq!(format(parsed(text).unwrap()), text);
        }
    }
}
