//! What the service keeps: an item, its key and its version. Everything here is checked where it enters and trusted
//! from there on. Knows nothing of HTTP, stores or caches.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::value::RawValue;
use servicechain_keys::Digest;

/// Longest id, in bytes. Ids are names in a path, not content.
pub const MAX_ID_BYTES: usize = 128;
/// Largest item, in bytes of JSON as sent.
pub const MAX_ITEM_BYTES: usize = 64 * 1024;

/// Names an item among those of its owner: 1 to 128 characters that a path holds as they are (RFC 3986 section 2.3).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ItemId(Arc<str>);

/// Why a text is no item id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidItemId {
    /// Empty or above [`MAX_ID_BYTES`].
    #[error("an item id has 1 to {MAX_ID_BYTES} characters")]
    Length,
    /// `.` and `..` mean folders to whoever normalises a path.
    #[error("an item id is not made of dots alone")]
    Dots,
    /// A character outside `A-Z a-z 0-9 - . _ ~`.
    #[error("an item id has only letters, digits and - . _ ~")]
    Character,
}

impl ItemId {
    /// Checks the text. It is taken exactly: ids that differ in case are different items.
    pub fn new(text: &str) -> Result<Self, InvalidItemId> {
        if text.is_empty() || text.len() > MAX_ID_BYTES {
            return Err(InvalidItemId::Length);
        }
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        {
            return Err(InvalidItemId::Character);
        }
        if text.bytes().all(|byte| byte == b'.') {
            return Err(InvalidItemId::Dots);
        }
        Ok(Self(text.into()))
    }

    /// The id, which a path holds as it is.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ItemId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

/// Whose item: the pair (iss, sub), never the subject alone. Claims are not for logs.
#[derive(Clone)]
pub struct Owner {
    digest: Digest,
    issuer: Arc<str>,
    subject: Arc<str>,
}

impl Owner {
    /// The owner with this `iss` and this `sub`.
    #[must_use]
    pub fn new(issuer: &str, subject: &str) -> Self {
        // Each part behind its length, so that no two pairs are one text.
        let mut text = Vec::with_capacity(issuer.len() + subject.len() + 2 * size_of::<u64>());
        for part in [issuer, subject] {
            text.extend((part.len() as u64).to_be_bytes());
            text.extend(part.bytes());
        }
        Self {
            digest: Digest::of(&text),
            issuer: issuer.into(),
            subject: subject.into(),
        }
    }

    /// SHA-256 of the pair: what identifies the owner.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        self.digest.as_bytes()
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }
}

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}

impl Eq for Owner {}

impl std::hash::Hash for Owner {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.digest().hash(state);
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Owner(…)")
    }
}

/// The key of an item: (iss, sub, id).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ItemKey {
    pub owner: Owner,
    pub id: ItemId,
}

/// Grows with every write of a row. Zero: the item was never there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Version(u64);

impl Version {
    /// Of an item that was never there.
    pub const MISSING: Self = Self(0);

    /// Versions are kept by databases as signed numbers and by Lua as doubles, which hold them exactly up to 2^53.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        (number <= 1 << 53).then_some(Self(number))
    }

    /// The number itself.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// The version of a write at this time: `greatest(version + 1, unix ms)`. The time keeps versions growing over a
    /// row that was removed and made again; the increment keeps them growing over clocks that differ.
    #[must_use]
    pub fn next(self, now: SystemTime) -> Self {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .as_millis();
        Self((self.0 + 1).max(u64::try_from(now).unwrap_or_default()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A JSON object of at most [`MAX_ITEM_BYTES`], kept as it was sent.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Item(Arc<RawValue>);

/// Why bytes are no item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidItem {
    /// Above [`MAX_ITEM_BYTES`].
    #[error("an item has at most {MAX_ITEM_BYTES} bytes")]
    TooLarge,
    /// No JSON object, or one nested deeper or with larger numbers than JSON readers commonly take.
    #[error("an item is one JSON object: {0}")]
    NoObject(String),
}

impl Item {
    /// Reads one JSON object.
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidItem> {
        if bytes.len() > MAX_ITEM_BYTES {
            return Err(InvalidItem::TooLarge);
        }
        let no_object = |error: serde_json::Error| InvalidItem::NoObject(error.to_string());
        // A raw value would take any depth and any number; a parsed one has the limits that readers have.
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(bytes).map_err(no_object)?;
        let raw: Box<RawValue> = serde_json::from_slice(bytes).map_err(no_object)?;
        Ok(Self(raw.into()))
    }

    /// Its JSON, as it was sent without the white space around it.
    #[must_use]
    pub fn as_json(&self) -> &str {
        self.0.get()
    }

    /// Of JSON that [`Item::from_json`] once accepted; `None` if something else was put in its place.
    pub(crate) fn from_stored(json: String) -> Option<Self> {
        let raw = RawValue::from_string(json).ok()?;
        raw.get().starts_with('{').then(|| Self(raw.into()))
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl Eq for Item {}

impl fmt::Debug for Item {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Item({} bytes)", self.as_json().len())
    }
}

/// What is known of a key at some moment: its version, and the item unless there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub version: Version,
    pub item: Option<Item>,
}

impl Stored {
    /// Never written.
    pub const MISSING: Self = Self {
        version: Version::MISSING,
        item: None,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_holds_only_what_a_path_holds_as_it_is() {
        for good in ["1", "lamp", "a.b-c_d~e", "..a", &"x".repeat(MAX_ID_BYTES)] {
            assert!(ItemId::new(good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            ".",
            "..",
            "...",
            "a/b",
            "a b",
            "a%20",
            "ä",
            "a\0",
            "a?b",
            "a#b",
            ";x",
            &"x".repeat(129),
        ] {
            assert!(ItemId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn no_two_pairs_of_issuer_and_subject_are_one_owner() {
        let pairs = [
            ("ab", "c"),
            ("a", "bc"),
            ("", "abc"),
            ("abc", ""),
            ("a", "b\0c"),
            ("a\0b", "c"),
        ];
        for (index, (issuer, subject)) in pairs.iter().enumerate() {
            for (other_issuer, other_subject) in &pairs[index + 1..] {
                assert_ne!(
                    Owner::new(issuer, subject),
                    Owner::new(other_issuer, other_subject)
                );
            }
        }
    }

    #[test]
    fn an_owner_does_not_show_its_claims() {
        let shown = format!("{:?}", Owner::new("https://issuer.example", "alice"));
        assert!(!shown.contains("alice") && !shown.contains("issuer"), "{shown}");
    }

    #[test]
    fn a_version_grows_over_equal_and_backward_clocks() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let first = Version::MISSING.next(noon);
        assert_eq!(first.number(), 1_800_000_000_000);
        assert_eq!(first.next(noon).number(), 1_800_000_000_001);
        assert_eq!(
            first
                .next(SystemTime::UNIX_EPOCH - Duration::from_secs(1))
                .number(),
            1_800_000_000_001
        );
    }

    #[test]
    fn an_item_is_one_json_object_within_bounds() {
        let item = Item::from_json(b" {\"name\": \"lamp\"}\n").unwrap();
        assert_eq!(item.as_json(), "{\"name\": \"lamp\"}");
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        for bad in [
            "",
            "[]",
            "1",
            "\"a\"",
            "null",
            "{",
            "{} {}",
            "{\"a\":1e999}",
            "{\"a\":\u{1}}",
            &deep,
        ] {
            assert!(
                matches!(Item::from_json(bad.as_bytes()), Err(InvalidItem::NoObject(_))),
                "{bad:?}"
            );
        }
        assert!(Item::from_json(b"{\"a\":\"\xff\"}").is_err());
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_ITEM_BYTES - 8));
        assert_eq!(large.len(), MAX_ITEM_BYTES);
        assert!(Item::from_json(large.as_bytes()).is_ok());
        assert_eq!(
            Item::from_json(format!("{large} ").as_bytes()),
            Err(InvalidItem::TooLarge)
        );
    }
}
