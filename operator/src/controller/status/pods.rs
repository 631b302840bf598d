//! What keeps one pod from being ready, from what kubelet and scheduler say about it. Nothing that moves by itself
//! (restart counts, times, back-off) goes into a sentence. It must not know whose pod it is, but for where its spec is.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Event, Pod, PodCondition,
};

use super::reason::{Reason, Trouble};
use super::words::{last_line, quote, why_not_pulled};
use crate::controller::observed::waits_for_volumes;
use crate::key_controller;

/// What is to be said about a pod that should be ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PodStanding {
    Ready,
    /// It is on its way out, or has ended and is replaced: nothing is to be said.
    Ending,
    /// It gets there by itself.
    Starting,
    /// It runs, and says that it is not ready.
    Unready,
    Trouble(Trouble),
}

/// `path` is where the spec describes the pod: `spec.services[b]`. `events` may be about anything.
pub(crate) fn judge(pod: &Pod, path: &str, events: &[Event]) -> PodStanding {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    if pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed")) {
        return PodStanding::Ending;
    }
    if is_ready(pod) {
        return PodStanding::Ready;
    }
    let name = name(pod);
    if let Some(trouble) = unschedulable(pod, name) {
        return PodStanding::Trouble(trouble);
    }
    let containers = || {
        let inits = status.and_then(|status| status.init_container_statuses.as_deref());
        let containers = status.and_then(|status| status.container_statuses.as_deref());
        inits.into_iter().chain(containers).flatten()
    };
    let troubles = containers().filter_map(|status| of_container(name, status, image(pod, status), path));
    if let Some(trouble) = troubles.min() {
        return PodStanding::Trouble(trouble);
    }
    if waits_for_volumes(pod) {
        let trouble = of_events(pod, name, path, events);
        return trouble.map_or(PodStanding::Starting, PodStanding::Trouble);
    }
    let all_started = containers().all(|status| status.started == Some(true) || status.ready);
    if all_started && containers().next().is_some() {
        PodStanding::Unready
    } else {
        PodStanding::Starting
    }
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(key_controller::is_ready)
}

pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// As the spec names it: what kubelet reports may be a digest.
fn image<'a>(pod: &'a Pod, status: &'a ContainerStatus) -> &'a str {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut named = containers.filter(|container| container.name == status.name);
    let image = named.find_map(|container| container.image.as_deref());
    image.unwrap_or(&status.image)
}

fn unschedulable(pod: &Pod, name: &str) -> Option<Trouble> {
    let scheduled = condition(pod, "PodScheduled")?;
    if scheduled.status != "False" || scheduled.reason.as_deref() != Some("Unschedulable") {
        return None;
    }
    let message = scheduled.message.as_deref().unwrap_or_default();
    // What preemption could do follows, and differs with every node that comes and goes.
    let why = quote(message.split(" preemption:").next().unwrap_or_default());
    let is_volume = [
        "PersistentVolumeClaim",
        "persistentvolumeclaim",
        "persistent volume",
        "volume node affinity",
    ]
    .iter()
    .any(|word| why.contains(word));
    Some(if is_volume {
        Trouble::new(
            Reason::VolumeNotBound,
            format_args!("{name}: its volume does not bind ({why})"),
            "see its claim: kubectl describe pvc",
        )
    } else {
        Trouble::new(
            Reason::PodUnschedulable,
            format_args!("{name}: no node takes it ({why})"),
            "add nodes, or ask for less in resources.requests",
        )
    })
}

fn of_container(pod: &str, status: &ContainerStatus, image: &str, path: &str) -> Option<Trouble> {
    if status.ready {
        return None;
    }
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    let (reason, message) = waiting.map_or((None, ""), |waiting| {
        (
            waiting.reason.as_deref(),
            waiting.message.as_deref().unwrap_or_default(),
        )
    });
    match reason {
        Some(
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed",
        ) => {
            let why = why_not_pulled(message, image);
            Some(Trouble::new(
                Reason::ImageNotPulled,
                format_args!("{pod}: image {image} does not pull ({why})"),
                format_args!("check that the image exists and {path}.pod.imagePullSecrets"),
            ))
        }
        Some("CreateContainerConfigError") => Some(missing(pod, message, path).unwrap_or_else(|| {
            Trouble::new(
                Reason::ContainerNotCreated,
                format_args!(
                    "{pod}: container {} is not made ({})",
                    status.name,
                    quote(message)
                ),
                format_args!("check {path}"),
            )
        })),
        Some("CreateContainerError" | "RunContainerError" | "PreCreateHookError" | "PreStartHookError") => {
            Some(Trouble::new(
                Reason::ContainerNotCreated,
                format_args!(
                    "{pod}: container {} does not start ({})",
                    status.name,
                    quote(message)
                ),
                format_args!("check {path} and the image {image}"),
            ))
        }
        _ => crash(status).map(|ended| crashed(pod, status, ended, path)),
    }
}

/// How the container ended last, whichever of running, ended and waiting it is just now: they take turns.
fn crash<'a>(status: &'a ContainerStatus) -> Option<&'a ContainerStateTerminated> {
    let ended = |state: &'a Option<ContainerState>| state.as_ref()?.terminated.as_ref();
    ended(&status.state).or_else(|| ended(&status.last_state))
}

fn crashed(pod: &str, status: &ContainerStatus, ended: &ContainerStateTerminated, path: &str) -> Trouble {
    let container = &status.name;
    if ended.reason.as_deref() == Some("OOMKilled") {
        return Trouble::new(
            Reason::OutOfMemory,
            format_args!("{pod}: container {container} was ended because it took more memory than it may"),
            format_args!("raise {path}.pod.resources.limits.memory"),
        );
    }
    let said = ended.message.as_deref().and_then(last_line);
    let said = said.map_or_else(String::new, |line| format!(", saying \"{line}\""));
    Trouble::new(
        Reason::ContainerCrashes,
        format_args!(
            "{pod}: container {container} ends with exit code {}{said}",
            ended.exit_code
        ),
        format_args!("see kubectl logs {pod} -c {container} --previous"),
    )
}

/// kubelet's words about a Secret or `ConfigMap` that a container or volume needs.
fn missing(pod: &str, message: &str, path: &str) -> Option<Trouble> {
    for (kind, word, reason) in [
        ("Secret", "secret \"", Reason::MissingSecret),
        ("ConfigMap", "configmap \"", Reason::MissingConfigMap),
    ] {
        if let Some((_, rest)) = message.split_once(word)
            && let Some((name, after)) = rest.split_once('"')
            && after.contains("not found")
        {
            return Some(Trouble::new(
                reason,
                format_args!("{pod}: the {kind} {name} does not exist"),
                format_args!("create it, or mend {path}"),
            ));
        }
        // couldn't find key password in Secret shop/credentials
        if let Some((_, rest)) = message.split_once("find key ")
            && let Some((key, object)) = rest.split_once(&format!(" in {kind} "))
        {
            let object = object.split_whitespace().next().unwrap_or_default();
            let name = object.split_once('/').map_or(object, |(_, name)| name);
            return Some(Trouble::new(
                reason,
                format_args!("{pod}: the {kind} {name} has no key {key}"),
                format_args!("add the key, or mend {path}"),
            ));
        }
        // references non-existent secret key: ca.crt
        if let Some((_, key)) =
            message.split_once(&format!("references non-existent {} key: ", kind.to_lowercase()))
        {
            return Some(Trouble::new(
                reason,
                format_args!("{pod}: a {kind} that it mounts has no key {}", quote(key)),
                format_args!("add the key, or mend {path}"),
            ));
        }
    }
    None
}

/// Why a pod's containers are not even begun is in events alone. The newest counts.
fn of_events(pod: &Pod, name: &str, path: &str, events: &[Event]) -> Option<Trouble> {
    let uid = pod.metadata.uid.as_deref()?;
    let newest = newest(
        events,
        uid,
        &[
            "FailedMount",
            "FailedAttachVolume",
            "FailedMapVolume",
            "FailedCreatePodSandBox",
        ],
    )?;
    let message = newest.message.as_deref().unwrap_or_default();
    // kubelet has not seen a new object yet, and tries again within a second.
    if message.contains("failed to sync") {
        return None;
    }
    if let Some(trouble) = missing(name, message, path) {
        return Some(trouble);
    }
    let (reason, what) = match newest.reason.as_deref() {
        Some("FailedCreatePodSandBox") => (Reason::ContainerNotCreated, "its network is not made"),
        _ => (Reason::VolumeNotMounted, "a volume is not mounted"),
    };
    Some(Trouble::new(
        reason,
        format_args!("{name}: {what} ({})", quote(message)),
        format_args!("see kubectl describe pod {name}"),
    ))
}

/// The newest event about an object that has one of these reasons.
pub(crate) fn newest<'a>(events: &'a [Event], uid: &str, reasons: &[&str]) -> Option<&'a Event> {
    let about = events
        .iter()
        .filter(|event| event.involved_object.uid.as_deref() == Some(uid));
    about
        .filter(|event| {
            event
                .reason
                .as_deref()
                .is_some_and(|reason| reasons.contains(&reason))
        })
        .max_by_key(|event| {
            let series = event
                .series
                .as_ref()
                .and_then(|series| series.last_observed_time.as_ref());
            let time = series
                .map(|time| time.0)
                .or_else(|| event.last_timestamp.as_ref().map(|time| time.0));
            (
                time.or_else(|| event.event_time.as_ref().map(|time| time.0)),
                &event.metadata.name,
            )
        })
}
