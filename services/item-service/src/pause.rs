//! Named moments at which a test can hold or end a reader or a writer. In production nobody is asked.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// A moment between two steps whose order the cache's proof is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// A reader has its row and has not put it into the cache.
    AfterRead,
    /// A writer holds the row's lock and the cache's time, and has not committed.
    BeforeCommit,
    /// A writer has committed and has not put its row into the cache.
    AfterCommit,
}

/// What happens at each [`Moment`]: nothing, unless a test says otherwise.
#[derive(Clone, Default)]
pub struct PausePoints(Option<Arc<Hook>>);

type Hook = dyn Fn(Moment) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

impl PausePoints {
    /// Whoever reaches a moment waits for the future that `hook` returns; one that never ends is a process that was
    /// killed there.
    pub fn new<F: Future<Output = ()> + Send + 'static>(
        hook: impl Fn(Moment) -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(move |moment| Box::pin(hook(moment)))))
    }

    pub(crate) async fn at(&self, moment: Moment) {
        if let Some(hook) = &self.0 {
            hook(moment).await;
        }
    }
}

impl fmt::Debug for PausePoints {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() {
            "PausePoints(a test's)"
        } else {
            "PausePoints(none)"
        })
    }
}
