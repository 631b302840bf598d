//! What an item is called in the cache.

use servicechain_keys::Digest;

use crate::item::ItemKey;
use crate::store::StoreIdentity;

/// SHA-256 of the database's identity, the owner and the id: of one length, without a claim in it, and the same only
/// for the same item of the same owner in the same database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// The key of this item as kept by this database.
    #[must_use]
    pub fn new(store: &StoreIdentity, item: &ItemKey) -> Self {
        // The first two parts have fixed lengths, so the whole is unambiguous.
        let text = [
            store.as_bytes().as_slice(),
            item.owner.digest(),
            item.id.as_str().as_bytes(),
        ]
        .concat();
        Self(*Digest::of(&text).as_bytes())
    }

    /// `servicechain:item:` and 64 hexadecimal digits.
    pub(super) fn name(&self) -> String {
        use std::fmt::Write as _;
        self.0
            .iter()
            .fold("servicechain:item:".to_owned(), |mut name, byte| {
                // Writing to a String cannot fail.
                let _ = write!(name, "{byte:02x}");
                name
            })
    }
}
