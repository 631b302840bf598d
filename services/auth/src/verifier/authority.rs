//! Whether this verifier may say that nobody signs with an unknown key (key protocol, line 14; ADR 3, rule 8). One that
//! was asked nothing for a minute may have been left out when keys were counted: it keeps its verdicts and its readiness,
//! and is no authority for others until a knock is answered again.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use servicechain_keys::Generation;
use tokio::time::Instant;

use super::Verifier;
use super::start::{BETWEEN_KNOCKS, Word};

/// The operator asks every half minute, and leaves out who is silent and not Ready for a minute.
const UNASKED: Duration = Duration::from_mins(1);

/// What the operator said, and when it asked.
#[derive(Debug)]
pub(super) struct Authority {
    /// The newest generation by the last answer to a knock, and when that came.
    word: Option<(Generation, Instant)>,
    asked: Instant,
    /// Nobody asked for too long since that answer.
    lapsed: bool,
}

impl Authority {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            word: None,
            asked: now,
            lapsed: false,
        }
    }

    fn has_lapsed(&self) -> bool {
        self.lapsed || Instant::now() > self.asked + UNASKED
    }
}

impl Verifier {
    /// Whether others may take what is held here for what is signed with.
    #[must_use]
    pub fn is_authority(&self) -> bool {
        if self.config.operator_url.is_none() {
            return self.is_confirmed();
        }
        let authority = self.authority();
        let newest = authority.word.map(|(newest, _)| newest);
        let held = self.generation();
        held > Generation::default() && newest.is_some_and(|newest| held >= newest) && !authority.has_lapsed()
    }

    /// Somebody asked this pod by its uid, with nothing that was refused. That is all the protocol lets it know of who
    /// asks (line 4), and a stranger who does so for long changes no verdict but one of those who lack a key as well.
    pub(crate) fn note_asked(&self) {
        let mut authority = self.authority();
        authority.lapsed = authority.has_lapsed();
        authority.asked = Instant::now();
    }

    /// The operator answered a knock. A pod that serves does not stop for what it hears now: it is told the rest.
    pub(super) fn heed(&self, newest: Generation) {
        let now = Instant::now();
        *self.authority() = Authority {
            word: Some((newest, now)),
            asked: now,
            lapsed: false,
        };
        if !self.is_confirmed() {
            self.word.send_replace(Word::Newest(newest));
        }
    }

    /// When the operator must be heard of again.
    pub(super) fn knock_due(&self) -> Instant {
        let authority = self.authority();
        let Some((_, heard)) = authority.word.filter(|_| !authority.has_lapsed()) else {
            return Instant::now();
        };
        // A little later, so that it has lapsed then.
        let lapses = authority.asked + UNASKED + Duration::from_millis(1);
        let longest = self.config.max_staleness;
        if longest.is_zero() {
            return lapses;
        }
        lapses.min(heard + (longest / 3).max(BETWEEN_KNOCKS))
    }

    fn authority(&self) -> MutexGuard<'_, Authority> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
