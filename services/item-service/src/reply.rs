//! The reply that a chain folds together: what each hop found, own hop first. Written by every hop and read by the
//! hop before it, within bounds.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use servicechain_keys::Generation;

use crate::item::{ItemId, MAX_ITEM_BYTES, Version};
use crate::lookup::Found;
use crate::precondition::EntityTag;

/// The longest chain there is.
const MAX_HOPS: usize = 16;
/// What a hop's entry takes besides its item.
const ENTRY_OVERHEAD: usize = 1024;
/// The largest reply that a hop can have made, problems' texts included.
pub(crate) const MAX_REPLY_BYTES: usize = MAX_HOPS * (MAX_ITEM_BYTES + ENTRY_OVERHEAD);
/// A hop's name is a DNS label of at most 15 characters.
const MAX_NAME_BYTES: usize = 63;

/// `{"id", "hops"}`.
#[derive(Debug, Serialize)]
pub(crate) struct Reply {
    id: String,
    hops: Vec<HopReply>,
}

/// What one hop found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HopReply {
    service: String,
    source: String,
    duration_ms: f64,
    key_generation: u64,
    version: u64,
    /// `null` if there is none.
    item: Option<Box<RawValue>>,
}

/// Why what a next hop sent is no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidReply {
    #[error("it is no reply in JSON")]
    Json(#[from] serde_json::Error),
    #[error("it is about another item")]
    OtherItem,
    #[error("it has no hop, or more than a chain can have")]
    Hops,
    #[error("an entry holds what no hop writes")]
    Entry,
}

impl HopReply {
    /// This hop's own entry.
    pub(crate) fn own(service: &str, found: &Found, generation: Generation) -> Self {
        Self {
            service: service.to_owned(),
            source: found.source.as_str().to_owned(),
            duration_ms: hundredths(found.took),
            key_generation: generation.number(),
            version: found.stored.version.number(),
            // An item is a raw value already; this only copies its text.
            item: found
                .stored
                .item
                .as_ref()
                .and_then(|item| RawValue::from_string(item.as_json().to_owned()).ok()),
        }
    }

    fn is_valid(&self) -> bool {
        let name = 1..=MAX_NAME_BYTES;
        name.contains(&self.service.len())
            && matches!(self.source.as_str(), "cache" | "database")
            && self.duration_ms >= 0.0
            && Version::new(self.version).is_some()
            && self
                .item
                .as_ref()
                .is_none_or(|item| item.get().starts_with('{') && item.get().len() <= MAX_ITEM_BYTES)
    }
}

impl Reply {
    /// Own entry first, then what the next hop answered.
    pub(crate) fn fold(id: &ItemId, own: HopReply, next: Vec<HopReply>) -> Self {
        let hops = std::iter::once(own).chain(next).collect();
        Self {
            id: id.as_str().to_owned(),
            hops,
        }
    }

    /// The versions of all hops.
    pub(crate) fn tag(&self) -> EntityTag {
        EntityTag::of(self.hops.iter().filter_map(|hop| Version::new(hop.version)))
    }

    /// Reads the entries of the next hop's answer. Members that are not known here are left out, so that hops may be
    /// upgraded one by one.
    pub(crate) fn read(body: &[u8], asked: &ItemId) -> Result<Vec<HopReply>, InvalidReply> {
        #[derive(Deserialize)]
        struct Received {
            id: String,
            hops: Vec<HopReply>,
        }
        let received: Received = serde_json::from_slice(body)?;
        if received.id != asked.as_str() {
            return Err(InvalidReply::OtherItem);
        }
        if !(1..MAX_HOPS).contains(&received.hops.len()) {
            return Err(InvalidReply::Hops);
        }
        if !received.hops.iter().all(HopReply::is_valid) {
            return Err(InvalidReply::Entry);
        }
        Ok(received.hops)
    }
}

/// Milliseconds, to hundredths.
fn hundredths(took: Duration) -> f64 {
    (took.as_secs_f64() * 100_000.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Item, Stored};
    use crate::lookup::Source;

    fn id() -> ItemId {
        ItemId::new("1").unwrap()
    }

    fn entry(service: &str, json: Option<&str>) -> HopReply {
        let stored = Stored {
            version: Version::new(3).unwrap(),
            item: json.map(|json| Item::from_json(json.as_bytes()).unwrap()),
        };
        let found = Found {
            stored,
            source: Source::Cache,
            took: Duration::from_micros(1934),
        };
        HopReply::own(service, &found, Generation::new(7))
    }

    #[test]
    fn a_reply_has_the_own_hop_first_and_items_as_they_were_sent() {
        let next = Reply::fold(&id(), entry("b", None), vec![]);
        let read = Reply::read(&serde_json::to_vec(&next).unwrap(), &id()).unwrap();
        let reply = Reply::fold(&id(), entry("a", Some("{\"b\": 1.0,\"a\":1}")), read);
        assert_eq!(
            serde_json::to_string(&reply).unwrap(),
            concat!(
                r#"{"id":"1","hops":[{"service":"a","source":"cache","durationMs":1.93,"keyGeneration":7,"version":3,"#,
                r#""item":{"b": 1.0,"a":1}},{"service":"b","source":"cache","durationMs":1.93,"keyGeneration":7,"#,
                r#""version":3,"item":null}]}"#
            )
        );
        assert_eq!(reply.tag().to_string(), "\"3.3\"");
    }

    #[test]
    fn what_no_hop_writes_is_refused() {
        let good = serde_json::json!({"id": "1", "hops": [
            {"service": "b", "source": "cache", "durationMs": 1, "keyGeneration": 7, "version": 3, "item": {}, "new": 1}
        ], "another": true});
        assert!(Reply::read(good.to_string().as_bytes(), &id()).is_ok());
        for (pointer, value) in [
            ("/id", "2".into()),
            ("/hops", serde_json::json!([])),
            ("/hops/0/service", "".into()),
            ("/hops/0/source", "memory".into()),
            ("/hops/0/durationMs", (-1).into()),
            ("/hops/0/version", (-1).into()),
            ("/hops/0/version", u64::MAX.into()),
            ("/hops/0/item", serde_json::json!([])),
            ("/hops/0/item", "{}".into()),
            ("/hops/0", serde_json::Value::Null),
        ] {
            let mut odd = good.clone();
            *odd.pointer_mut(pointer).unwrap() = value;
            assert!(Reply::read(odd.to_string().as_bytes(), &id()).is_err(), "{odd}");
        }
        let mut long = good;
        let one = long["hops"][0].clone();
        long["hops"] = vec![one; MAX_HOPS].into();
        assert!(matches!(
            Reply::read(long.to_string().as_bytes(), &id()),
            Err(InvalidReply::Hops)
        ));
    }
}
