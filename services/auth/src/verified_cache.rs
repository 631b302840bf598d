//! Tokens that were verified, found again by every one of their bytes. It bounds how many there are and how much
//! memory they take; whether one still holds is asked by whoever looks it up (key protocol, "Cached verdicts").

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::bearer::BearerToken;
use crate::caller::Verdict;

/// What an entry takes besides its token and its claims: the registered claims as fields of their own, map slots,
/// reference counts.
const MEMORY_PER_ENTRY: u64 = 1024;

/// How much the cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// At most so many tokens; 0 keeps none.
    pub tokens: u32,
    /// At most so many bytes of memory, estimated from the tokens and their claims.
    pub bytes: u64,
}

impl Default for CacheLimits {
    /// A third of the memory a pod gets by default (128 MiB).
    fn default() -> Self {
        Self {
            tokens: 10_000,
            bytes: 40 * 1024 * 1024,
        }
    }
}

/// `quick_cache` with keyed foldhash: 50 ns for a token of 700 bytes, where a locked `HashMap` took 150. A map of our own
/// was measured at 34, which is not worth an eviction policy of our own; see `benches/one_verification.rs`.
pub(crate) struct VerifiedCache {
    verdicts: Cache<BearerToken, Arc<Verdict>, Memory>,
}

impl VerifiedCache {
    pub(crate) fn new(limits: CacheLimits) -> Self {
        let share = if limits.tokens == 0 {
            u64::MAX
        } else {
            limits.bytes.div_ceil(u64::from(limits.tokens))
        };
        let expected = usize::try_from(limits.tokens).unwrap_or(usize::MAX);
        Self {
            verdicts: Cache::with_weighter(expected, limits.bytes, Memory { share }),
        }
    }

    pub(crate) fn get(&self, token: &[u8]) -> Option<Arc<Verdict>> {
        self.verdicts.get(token)
    }

    pub(crate) fn insert(&self, verdict: Arc<Verdict>) {
        self.verdicts.insert(verdict.token.clone(), verdict);
    }

    pub(crate) fn remove(&self, token: &[u8]) {
        self.verdicts.remove(token);
    }

    pub(crate) fn len(&self) -> usize {
        self.verdicts.len()
    }
}

impl std::fmt::Debug for VerifiedCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "VerifiedCache({} tokens)", self.len())
    }
}

/// Weighs entries in bytes. Each weighs at least its share, so that the one bound on weight bounds the count too.
#[derive(Clone)]
struct Memory {
    share: u64,
}

impl Weighter<BearerToken, Arc<Verdict>> for Memory {
    fn weight(&self, _token: &BearerToken, verdict: &Arc<Verdict>) -> u64 {
        verdict.memory.saturating_add(MEMORY_PER_ENTRY).max(self.share)
    }
}
