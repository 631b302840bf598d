//! JSON where it decides about trust: a member that is written twice is refused at every depth, and depth is bounded.
//! Other readers of the same bytes may take the first or the last of two members; refusing both readings keeps all agreed.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Arrays and objects inside one another; tokens and key sets in the wild need fewer than eight.
pub const MAX_DEPTH: usize = 32;

/// Not JSON, a member written twice, too deep, or not of the expected form.
#[derive(Debug, thiserror::Error)]
#[error("not acceptable JSON")]
pub struct NotStrictJson(#[from] serde_json::Error);

/// # Errors
/// Not JSON (RFC 8259), a number beyond 64 bits of floating point, a duplicate member, or nested deeper than [`MAX_DEPTH`].
pub fn value(bytes: &[u8]) -> Result<Value, NotStrictJson> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict {
        depth_left: MAX_DEPTH,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// # Errors
/// As [`value`], and anything that is not an object.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, NotStrictJson> {
    match value(bytes)? {
        Value::Object(members) => Ok(members),
        _ => Err(NotStrictJson(de::Error::custom("expected an object"))),
    }
}

/// The members of these names, in their order. The rest of the object is checked as strictly and not kept, which is
/// what makes reading a token cheap.
///
/// # Errors
/// As [`object`].
pub fn select<const N: usize>(bytes: &[u8], names: &[&str; N]) -> Result<[Option<Value>; N], NotStrictJson> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let selected = deserializer.deserialize_map(Select { names })?;
    deserializer.end()?;
    Ok(selected)
}

/// # Errors
/// As [`value`], and whatever `T` refuses.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, NotStrictJson> {
    Ok(serde_json::from_value(value(bytes)?)?)
}

#[derive(Clone, Copy)]
struct Strict {
    depth_left: usize,
}

impl Strict {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        let depth_left = self
            .depth_left
            .checked_sub(1)
            .ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { depth_left })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON without duplicate members")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut members = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(de::Error::custom("a member is written twice"));
            }
            let value = entries.next_value_seed(inner)?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

struct Select<'n, const N: usize> {
    names: &'n [&'n str; N],
}

impl<'de, const N: usize> Visitor<'de> for Select<'_, N> {
    type Value = [Option<Value>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object without duplicate members")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let inner = Strict {
            depth_left: MAX_DEPTH,
        }
        .deeper()?;
        let mut selected = [const { None }; N];
        let mut others = BTreeSet::new();
        while let Some(name) = entries.next_key_seed(Name)? {
            let is_new = if let Some(at) = self.names.iter().position(|wanted| *wanted == name) {
                selected[at].replace(entries.next_value_seed(inner)?).is_none()
            } else {
                entries.next_value_seed(Checked(inner))?;
                others.insert(name)
            };
            if !is_new {
                return Err(de::Error::custom("a member is written twice"));
            }
        }
        Ok(selected)
    }
}

/// As strict as [`Strict`], and keeps nothing.
#[derive(Clone, Copy)]
struct Checked(Strict);

impl<'de> DeserializeSeed<'de> for Checked {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.0.visit_f64(value).map(drop)
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let inner = Self(self.0.deeper()?);
        while sequence.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let inner = Self(self.0.deeper()?);
        let mut names = BTreeSet::new();
        while let Some(name) = entries.next_key_seed(Name)? {
            entries.next_value_seed(inner)?;
            if !names.insert(name) {
                return Err(de::Error::custom("a member is written twice"));
            }
        }
        Ok(())
    }
}

/// A member's name, borrowed where it is written without escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a member's name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selecting_is_as_strict_as_reading_everything() {
        let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"x":1,"x":1}"#,
            r#"{"x":1,"\u0078":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"x":{"b":1,"b":2}}"#,
            r#"{"x":[{"b":1,"b":2}]}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"x":1e999999}"#,
            r#"{"x":"\ud800"}"#,
            r#"{"x":1}{}"#,
            r#"{"x":1,}"#,
            r#"{"x":NaN}"#,
            "[]",
            "",
            &deep,
        ] {
            assert!(object(text.as_bytes()).is_err(), "{text}");
            assert!(select(text.as_bytes(), &["a"]).is_err(), "{text}");
        }
        assert!(select(b"{\"x\":\"\xff\"}", &["a"]).is_err());
        let text = br#"{"b":[1,{"c":null}],"x":{"y":[1.5,true,"z"]},"\u0061":-1}"#;
        let whole = object(text).unwrap();
        assert_eq!(
            select(text, &["a", "b", "c"]).unwrap(),
            [whole.get("a").cloned(), whole.get("b").cloned(), None]
        );
    }

    #[test]
    fn plain_json_reads_as_serde_json_reads_it() {
        let text = br#"{"a":[1,-2,3.5,true,null,"\u00e9"],"b":{"a":{}}}"#;
        assert_eq!(
            value(text).unwrap(),
            serde_json::from_slice::<Value>(text).unwrap()
        );
    }

    #[test]
    fn duplicate_member_is_refused_at_every_depth() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"[{"x":[{"b":1,"b":2}]}]"#,
            // The same name, once escaped.
            r#"{"exp":1,"\u0065xp":2}"#,
        ] {
            assert!(value(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(value(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(value(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        assert!(value(nested(500_000).as_bytes()).is_err());
        assert!(value("{\"a\":".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn numbers_beyond_range_and_trailing_bytes_are_refused() {
        for text in ["1e999999", "{} {}", "{}x", "NaN", "", "\u{feff}{}", "'a'"] {
            assert!(value(text.as_bytes()).is_err(), "{text}");
        }
        assert!(value(b"\"\xff\"").is_err());
        assert!(object(b"[]").is_err());
    }
}
