//! Quantities of bytes as users write them: Kubernetes quantities such as `10Mi` and `1Gi`.
//! Deserializing never fails, since one odd object must not stop a watch of all; `bytes` judges.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A whole number of bytes with an optional unit: k, M, G, T (powers of 1000) or Ki, Mi, Gi, Ti (of 1024).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Quantity(String);

/// Why a string is no quantity of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a quantity of bytes like 64Mi or 1Gi")]
pub struct NotAQuantity;

impl Quantity {
    /// What is allowed, as a regular expression.
    pub const PATTERN: &str = "^[0-9]{1,12}(k|M|G|T|Ki|Mi|Gi|Ti)?$";

    /// What the user wrote.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bytes it means.
    pub fn bytes(&self) -> Result<u64, NotAQuantity> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = self.0.split_at(digits);
        if !(1..=12).contains(&digits) {
            return Err(NotAQuantity);
        }
        let number: u64 = number.parse().map_err(|_| NotAQuantity)?;
        let factor: u64 = match unit {
            "" => 1,
            "k" => 1000,
            "M" => 1000_u64.pow(2),
            "G" => 1000_u64.pow(3),
            "T" => 1000_u64.pow(4),
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "Ti" => 1 << 40,
            _ => return Err(NotAQuantity),
        };
        number.checked_mul(factor).ok_or(NotAQuantity)
    }
}

impl From<&str> for Quantity {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 16, "pattern": Self::PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_of_bytes_are_understood() {
        for (text, bytes) in [
            ("0", 0),
            ("10Mi", 10 << 20),
            ("2k", 2000),
            ("1Ti", 1 << 40),
            ("64", 64),
        ] {
            assert_eq!(Quantity::from(text).bytes(), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_of_bytes_is_refused() {
        for text in [
            "",
            "Mi",
            "-1",
            "1.5Gi",
            "1e3",
            "10mi",
            "10 Mi",
            "1234567890123",
            "999999999999Ti",
            "1é",
        ] {
            assert_eq!(Quantity::from(text).bytes(), Err(NotAQuantity), "{text}");
        }
    }
}
