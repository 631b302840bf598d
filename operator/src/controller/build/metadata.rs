//! Who an object is and whose.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::Blueprint;
use crate::object_names::{self, Component};

/// Of an object that ends with the chain.
pub(super) fn owned(blueprint: &Blueprint<'_>, component: Component<'_>, name: String) -> ObjectMeta {
    ObjectMeta {
        owner_references: Some(vec![blueprint.owner.clone()]),
        ..kept(blueprint, component, name)
    }
}

/// Of an object that stays when the chain is deleted.
pub(super) fn kept(blueprint: &Blueprint<'_>, component: Component<'_>, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(blueprint.chain.namespace.clone()),
        labels: Some(object_names::labels(&blueprint.chain.name, component)),
        ..ObjectMeta::default()
    }
}

pub(super) fn selector(blueprint: &Blueprint<'_>, component: Component<'_>) -> LabelSelector {
    LabelSelector {
        match_labels: Some(object_names::selector(&blueprint.chain.name, component)),
        ..LabelSelector::default()
    }
}

/// None rather than empty, as the API server stores it.
pub(super) fn some_map<K: Ord, V>(map: BTreeMap<K, V>) -> Option<BTreeMap<K, V>> {
    Some(map).filter(|map| !map.is_empty())
}

/// None rather than empty, as the API server stores it.
pub(super) fn some_list<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

/// None rather than empty, as the API server stores it.
pub(super) fn some_text(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}
