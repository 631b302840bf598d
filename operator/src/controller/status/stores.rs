//! What keeps a managed store from being there beside its pod: its volume, the Secret that opens it, and time. A volume
//! whose Secret is lost is never given a new password: nothing could open it. It must not know conditions.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use servicechain_crds::service_chain::status::StoreStatus;
use servicechain_crds::validated::{Database, Service};

use super::pods;
use super::reason::{Reason, Trouble};
use super::words::{bounded, quote};
use super::workloads::Workload;
use crate::config::Settings;
use crate::controller::observed::{Observed, is_bound};
use crate::object_names::POSTGRES_MAJOR_ANNOTATION;

/// The schema's bound of a version.
const MAX_VERSION: usize = 32;

/// What is wrong with the volume of a database, named as its claim, and with the Secret that opens it. `waits` is what
/// its pod says of the volume.
pub(crate) fn troubles(
    name: &str,
    secret: &str,
    waits: Option<Trouble>,
    observed: &Observed,
) -> Vec<Trouble> {
    let Some(claim) = claim(name, observed) else {
        return waits.into_iter().collect();
    };
    let lost = (!observed.secrets.contains_key(secret)).then(|| {
        Trouble::new(
            Reason::PasswordLost,
            format_args!("the volume of {name} is there, and the Secret {secret} that opens it is gone"),
            format_args!("restore the Secret from a backup, or delete the claim {name} and all its data"),
        )
    });
    let unbound = unbound(name, claim, waits.as_ref(), observed);
    lost.into_iter().chain(unbound.or(waits)).collect()
}

/// A store that is not ready for longer than a rollout may take: a `StatefulSet` has no deadline that would tell.
pub(crate) fn overdue(
    name: &str,
    workload: &Workload,
    observed: &Observed,
    deadline: Duration,
    now: Timestamp,
) -> Option<Trouble> {
    if workload.is_full() || !workload.troubles.is_empty() {
        return None;
    }
    let is_its = |pod: &&Pod| pods::name(pod).strip_prefix(name) == Some("-0") && !pods::is_ready(pod);
    let pod = observed.pods.iter().find(is_its)?;
    let ready = pods::condition(pod, "Ready");
    let since = ready.and_then(|ready| ready.last_transition_time.as_ref());
    let since = since.or(pod.metadata.creation_timestamp.as_ref())?.0;
    let has_time = now.duration_since(since) <= SignedDuration::try_from(deadline).ok()?;
    let (pod, deadline) = (pods::name(pod), servicechain_crds::duration::format(deadline));
    (!has_time).then(|| {
        Trouble::new(
            Reason::NotEnoughReady,
            format_args!("{name}: {pod} is not ready for more than {deadline}"),
            format_args!("see kubectl describe pod {pod}, and kubectl logs {pod}"),
        )
    })
}

/// A volume that stays what it is, whatever spec says.
pub(crate) fn version_kept(service: &Service, name: &str, observed: &Observed) -> Option<Trouble> {
    let Database::Managed(managed) = service.database.as_ref()?;
    let wanted = managed.version.as_ref()?;
    let kept = recorded(name, observed).filter(|kept| *kept != wanted)?;
    let service = &service.name;
    Some(Trouble::new(
        Reason::VersionKept,
        format_args!(
            "{name} stays at PostgreSQL {} as its volume is, and spec.services[{service}].database.managed.version is {wanted}",
            bounded(kept, MAX_VERSION)
        ),
        format_args!("dump its data, delete the claim {name} and its pod, and load the data again"),
    ))
}

fn recorded<'a>(name: &str, observed: &'a Observed) -> Option<&'a String> {
    let annotations = claim(name, observed)?.metadata.annotations.as_ref()?;
    annotations.get(POSTGRES_MAJOR_ANNOTATION)
}

fn unbound(
    name: &str,
    claim: &PersistentVolumeClaim,
    waits: Option<&Trouble>,
    observed: &Observed,
) -> Option<Trouble> {
    if is_bound(claim) {
        return None;
    }
    let is_lost = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost");
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    // Others tell of a claim that waits for its pod, as it should.
    let event = pods::newest(&observed.events, uid, &["ProvisioningFailed", "FailedBinding"]);
    let why = match (event, waits) {
        _ if is_lost => "the volume it was bound to is gone".to_owned(),
        (Some(event), _) => quote(event.message.as_deref().unwrap_or_default()),
        (None, Some(waits)) => quote(waits.what()),
        (None, None) => return None,
    };
    let class = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.storage_class_name.as_deref());
    let of_class = class.map_or_else(String::new, |class| format!(" of class {class}"));
    Some(Trouble::new(
        Reason::VolumeNotBound,
        format_args!("the claim {name} has no volume{of_class} ({why})"),
        format_args!("see kubectl describe pvc {name}, and kubectl get storageclass"),
    ))
}

/// A database's major version as its volume has it, else as it will be.
pub(crate) fn database(
    service: &Service,
    name: &str,
    workload: &Workload,
    observed: &Observed,
    settings: &Settings,
) -> Option<StoreStatus> {
    let Database::Managed(managed) = service.database.as_ref()?;
    let version = recorded(name, observed)
        .or(managed.version.as_ref())
        .unwrap_or(&settings.default_postgres_major);
    Some(StoreStatus {
        kind: "Managed".to_owned(),
        version: Some(bounded(version, MAX_VERSION)),
        ready: workload.is_full(),
    })
}

pub(crate) fn cache(workload: &Workload) -> StoreStatus {
    StoreStatus {
        kind: "Managed".to_owned(),
        version: None,
        ready: workload.is_full(),
    }
}

fn claim<'a>(name: &str, observed: &'a Observed) -> Option<&'a PersistentVolumeClaim> {
    observed
        .claims
        .iter()
        .find(|claim| claim.metadata.name.as_deref() == Some(name))
}
