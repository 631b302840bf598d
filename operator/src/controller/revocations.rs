//! `Revocation`s that no chain's keys are looked after for: they say so. All others hear from the rounds of their chain's
//! keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use servicechain_crds::{Revocation, ServiceChain};
use tokio::sync::Notify;

use super::status::reason::{Reason, Trouble};
use super::{Context, RESYNC, now};
use crate::api_client::{ApiError, READ_TIMEOUT, within};
use crate::clock::Clock;
use crate::key_controller::KeyChains;
use crate::key_controller::revocation_status::{held_by_nobody, write};
use crate::pages::{self, Pages};

/// Changes that come together are looked at together.
const GATHER: Duration = Duration::from_millis(500);

/// Looks whenever it is told that a chain or a `Revocation` changed, for ever.
pub(super) async fn run(context: &Context, changed: Arc<Notify>) {
    loop {
        let namespace = context.watches.namespace.as_deref();
        let looked = look(&context.client, namespace, &context.keys, &context.clock).await;
        if let Err(error) = looked {
            tracing::warn!(reason = error.message(), "{error}; it is tried again");
        }
        tokio::select! {
            () = changed.notified() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(RESYNC) => {}
        }
    }
}

/// Chains listed at a time.
const PAGE: u32 = 100;

/// Tells each `Revocation` whose chain is not there, or has no keys yet, in one namespace or in all.
///
/// # Errors
/// The API server's, of the first request that failed.
pub async fn look(
    client: &Client,
    namespace: Option<&str>,
    keys: &KeyChains,
    clock: &Clock,
) -> Result<(), ApiError> {
    let revocations: Api<Revocation> = everywhere_or(namespace, client);
    let revocations = pages::read(&revocations, "cannot list Revocations", |_| true).await?;
    if revocations.is_empty() {
        return Ok(());
    }
    let chains: Api<ServiceChain> = everywhere_or(namespace, client);
    let mut pages = Pages::of(ListParams::default(), PAGE);
    let mut known = BTreeMap::new();
    while let Some(params) = pages.wanted() {
        let page = within(READ_TIMEOUT, "cannot list chains", chains.list_metadata(&params)).await;
        known.extend(pages.take(page)?.into_iter().map(|chain| {
            let uid = chain.uid().unwrap_or_default();
            ((chain.namespace(), chain.name_any()), uid)
        }));
    }
    for object in revocations {
        let chain = &object.spec.chain_ref.name;
        let uid = known.get(&(object.namespace(), chain.clone()));
        let trouble = match uid {
            None => Trouble::new(
                Reason::NoSuchChain,
                format_args!("there is no chain {chain} in its namespace"),
                "it is enforced once there is",
            ),
            // What was said by the rounds of its keys stays until they say something else.
            Some(uid) if !keys.bundle_exists(uid) && stands_alone(&object) => Trouble::new(
                Reason::NoBundleYet,
                format_args!("chain {chain} has no key bundle yet"),
                "see its condition Accepted",
            ),
            Some(_) => continue,
        };
        let status = held_by_nobody(&object, &trouble, now(clock));
        if object.status.as_ref() != Some(&status) {
            write(client, &object, &status).await?;
        }
    }
    Ok(())
}

/// Whether nobody has said anything of it, or only this.
fn stands_alone(object: &Revocation) -> bool {
    let conditions = object
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    let alone = [Reason::NoSuchChain, Reason::NoBundleYet].map(Reason::as_str);
    conditions
        .iter()
        .all(|condition| alone.contains(&condition.reason.as_str()))
}

fn everywhere_or<K>(namespace: Option<&str>, client: &Client) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}
