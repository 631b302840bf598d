//! An account for each component that is not given one. Nothing is granted to it, and its token is not mounted: it only
//! tells the pods of one component from another's where policies ask.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::Blueprint;
use super::metadata::{owned, some_text};
use crate::object_names;

pub(super) fn service_accounts(blueprint: &Blueprint<'_>) -> Vec<ServiceAccount> {
    let components = object_names::components(blueprint.chain).into_iter();
    let without_own = components.filter(|component| {
        some_text(blueprint.pod_settings(*component).service_account_name.clone()).is_none()
    });
    without_own
        .map(|component| ServiceAccount {
            metadata: owned(
                blueprint,
                component,
                object_names::object(&blueprint.chain.name, component),
            ),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        })
        .collect()
}
