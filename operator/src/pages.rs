//! Long lists, read page by page so that a page is a bounded part of the memory, whatever somebody put into his objects:
//! one that is too large is asked for again with fewer objects. It must not know what is listed.

use std::fmt::Debug;

use kube::api::ListParams;
use kube::core::ObjectList;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::api_client::{ApiError, READ_TIMEOUT, within};

/// Small objects that are listed at a time.
const MOST: u32 = 100;

/// All objects that are to be kept, without what anybody may add to them. `what` completes "cannot …".
///
/// # Errors
/// The API server's, of the first page that failed.
pub async fn read<K>(api: &Api<K>, what: &str, is_kept: impl Fn(&K) -> bool) -> Result<Vec<K>, ApiError>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let mut pages = Pages::of(ListParams::default(), MOST);
    let mut all = Vec::new();
    while let Some(params) = pages.wanted() {
        let page = within(READ_TIMEOUT, what, api.list(&params)).await;
        for mut object in pages.take(page)?.into_iter().filter(&is_kept) {
            object.meta_mut().annotations = None;
            object.meta_mut().managed_fields = None;
            all.push(object);
        }
    }
    Ok(all)
}

/// What is still to be read of one list.
#[derive(Debug)]
pub struct Pages {
    params: ListParams,
    /// The most objects of a page.
    most: u32,
    size: u32,
    is_read: bool,
    version: Option<String>,
}

impl Pages {
    /// `most` objects a page, where these are as small as is usual.
    #[must_use]
    pub const fn of(params: ListParams, most: u32) -> Self {
        Self {
            params,
            most,
            size: most,
            is_read: false,
            version: None,
        }
    }

    /// How to ask for the next page; `None` after the last one.
    #[must_use]
    pub fn wanted(&self) -> Option<ListParams> {
        (!self.is_read).then(|| self.params.clone().limit(self.size))
    }

    /// The objects of the page that was wanted; none of one that was too large, parts of which are wanted next.
    pub fn take<K: Clone>(&mut self, page: Result<ObjectList<K>, ApiError>) -> Result<Vec<K>, ApiError> {
        let page = match page {
            Err(error) if error.is_too_large() && self.size > 1 => {
                self.size = (self.size / 4).max(1);
                return Ok(Vec::new());
            }
            page => page?,
        };
        self.size = (self.size * 2).min(self.most);
        self.params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        self.is_read = self.params.continue_token.is_none();
        self.version = page.metadata.resource_version;
        Ok(page.items)
    }

    /// The list's resource version, of the page taken last.
    #[must_use]
    pub fn version(self) -> Option<String> {
        self.version
    }
}
