//! Where every component of a chain stands, all that was found out about it taken together, and what `status` says of
//! each. It must not know conditions.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service as KubernetesService;
use servicechain_crds::ValidatedChain;
use servicechain_crds::service_chain::status::{GatewayStatus, IssuerStatus, ServiceStatus, SummaryStatus};
use servicechain_crds::validated::{Issuer, Service};

use super::conditions::{Part, lines};
use super::keys::{self, Keys};
use super::reason::{Reason, Trouble};
use super::workloads::Workload;
use super::{Pass, address, foreign_issuers, stores, writes};
use crate::controller::observed::Observed;
use crate::object_names::{Component, components, object, store_secret};

/// Where every part of the chain stands.
pub(crate) struct Parts<'a> {
    workloads: BTreeMap<Component<'a>, Workload>,
    by_component: BTreeMap<Component<'a>, Part>,
    /// What is wrong with no part alone.
    pub elsewhere: Vec<Trouble>,
}

impl<'a> Parts<'a> {
    pub(crate) fn look(chain: &'a ValidatedChain, pass: &Pass<'_>, keys: &Keys, now: Timestamp) -> Self {
        let all = components(chain);
        let workloads: BTreeMap<_, _> = all
            .iter()
            .map(|component| (*component, workload(chain, *component, pass)))
            .collect();
        let mut parts: BTreeMap<_, _> = workloads
            .iter()
            .map(|(component, workload)| {
                let mut part = part(chain, *component, workload, pass.observed, keys);
                part.troubles
                    .extend(of_store(chain, *component, workload, pass.observed, now));
                (*component, part)
            })
            .collect();
        let mut elsewhere = Vec::new();
        for unwritten in writes::unwritten(&chain.name, &all, pass.observed) {
            match unwritten
                .component
                .and_then(|component| parts.get_mut(&component))
            {
                Some(part) => {
                    part.troubles.push(unwritten.trouble);
                    part.serves &= !unwritten.is_absent;
                }
                None => elsewhere.push(unwritten.trouble),
            }
        }
        for issuer in chain.issuers.iter().filter(|issuer| issuer.managed().is_none()) {
            let part = foreign_issuers::part(issuer, keys, pass.keys);
            parts.insert(Component::Issuer(&issuer.name), part);
        }
        for part in parts.values_mut() {
            part.troubles.sort_unstable();
        }
        Self {
            workloads,
            by_component: parts,
            elsewhere,
        }
    }

    pub(crate) fn of(
        &self,
        is_one: impl Fn(Component<'a>) -> bool + Clone,
    ) -> impl Iterator<Item = &Part> + Clone {
        let parts = self
            .by_component
            .iter()
            .filter(move |(component, _)| is_one(**component));
        parts.map(|(_, part)| part)
    }

    pub(crate) fn gateway(&self, chain: &ValidatedChain, pass: &Pass<'_>) -> GatewayStatus {
        let service = gateway_service(chain, pass);
        let workload = self
            .workloads
            .get(&Component::Gateway)
            .cloned()
            .unwrap_or_default();
        GatewayStatus {
            url: address::url(chain, service, pass.settings),
            ready: workload.ready,
            updated: workload.updated,
            desired: workload.desired,
            message: self
                .by_component
                .get(&Component::Gateway)
                .map(Part::message)
                .unwrap_or_default(),
        }
    }

    pub(crate) fn issuers(&self, chain: &'a ValidatedChain, pass: &Pass<'_>) -> Vec<IssuerStatus> {
        let issuer = |issuer: &'a Issuer| {
            let component = Component::Issuer(&issuer.name);
            if issuer.managed().is_none() {
                return self.foreign_issuer(issuer, pass);
            }
            let workload = self.workloads.get(&component).cloned().unwrap_or_default();
            let part = self.by_component.get(&component);
            let in_the_way = part.and_then(|part| {
                let troubles = part.troubles.first().map(|trouble| trouble.reason);
                troubles.or(part.awaited.as_ref().map(|(reason, _)| *reason))
            });
            IssuerStatus {
                name: issuer.name.clone(),
                url: issuer.url.clone(),
                ready: Some(workload.ready),
                desired: Some(workload.desired),
                state: match in_the_way {
                    Some(reason) if part.is_none_or(|part| !part.serves) => reason.as_str().to_owned(),
                    _ => "Signing".to_owned(),
                },
                message: part.map(Part::message).unwrap_or_default(),
            }
        };
        chain.issuers.iter().map(issuer).collect()
    }

    /// It has no pods.
    fn foreign_issuer(&self, issuer: &'a Issuer, pass: &Pass<'_>) -> IssuerStatus {
        let part = self.by_component.get(&Component::Issuer(&issuer.name));
        let standing = pass.keys.and_then(|keys| keys.issuers.get(&issuer.name));
        let messages = foreign_issuers::messages(part, standing);
        IssuerStatus {
            name: issuer.name.clone(),
            url: issuer.url.clone(),
            ready: None,
            desired: None,
            state: foreign_issuers::state(issuer, part).to_owned(),
            message: lines(messages.iter().map(String::as_str)),
        }
    }

    pub(crate) fn services(&self, chain: &'a ValidatedChain, pass: &Pass<'_>) -> Vec<ServiceStatus> {
        let services = chain.services.iter();
        services
            .map(|service| self.service(chain, service, pass))
            .collect()
    }

    /// A service's message is also about its stores.
    fn service(&self, chain: &'a ValidatedChain, service: &'a Service, pass: &Pass<'_>) -> ServiceStatus {
        let name = service.name.as_str();
        let (database, cache) = (
            Component::Database { service: name },
            Component::Cache { service: name },
        );
        let workload = self
            .workloads
            .get(&Component::Service(name))
            .cloned()
            .unwrap_or_default();
        let own = [database, cache, Component::Service(name)];
        let messages: Vec<String> = own
            .iter()
            .filter_map(|part| self.by_component.get(part))
            .map(Part::message)
            .collect();
        ServiceStatus {
            name: service.name.clone(),
            ready: workload.ready,
            updated: workload.updated,
            desired: workload.desired,
            database: self.workloads.get(&database).and_then(|workload| {
                stores::database(
                    service,
                    &object(&chain.name, database),
                    workload,
                    pass.observed,
                    pass.settings,
                )
            }),
            cache: self.workloads.get(&cache).map(stores::cache),
            message: lines(messages.iter().map(String::as_str)),
        }
    }

    pub(crate) fn summary(&self, chain: &'a ValidatedChain, keys: &Keys) -> SummaryStatus {
        let full = self
            .of(|component| matches!(component, Component::Service(_)))
            .filter(|part| part.serves && part.is_full);
        SummaryStatus {
            services: format!("{}/{}", full.count(), chain.services.len()),
            keys: keys.status.as_ref().map_or_else(
                || "-".to_owned(),
                |keys| format!("{}/{}@{}", keys.acknowledged, keys.verifiers, keys.generation),
            ),
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Part> + Clone {
        self.by_component.values()
    }

    pub(crate) fn troubles(&self) -> Vec<Trouble> {
        let of_parts = self.by_component.values().flat_map(|part| &part.troubles);
        of_parts.chain(&self.elsewhere).cloned().collect()
    }
}

fn workload(chain: &ValidatedChain, component: Component<'_>, pass: &Pass<'_>) -> Workload {
    let (name, path) = (object(&chain.name, component), path(component));
    match component {
        Component::Gateway | Component::Issuer(_) | Component::Service(_) => {
            Workload::of_deployment(&name, deployment(&name, pass), &path, pass.observed)
        }
        Component::Database { .. } | Component::Cache { .. } => {
            let applied = pass
                .applied
                .into_iter()
                .flat_map(|applied| &applied.stateful_sets);
            let mut sets = applied.chain(&pass.observed.stateful_sets);
            let set = sets.find(|set| set.metadata.name.as_deref() == Some(name.as_str()));
            Workload::of_stateful_set(&name, set, &path, pass.observed)
        }
    }
}

/// As it came back from this pass, else as it was read.
fn deployment<'a>(name: &str, pass: &Pass<'a>) -> Option<&'a Deployment> {
    let applied = pass.applied.into_iter().flat_map(|applied| &applied.deployments);
    let mut deployments = applied.chain(&pass.observed.deployments);
    deployments.find(|deployment| deployment.metadata.name.as_deref() == Some(name))
}

fn gateway_service<'a>(chain: &ValidatedChain, pass: &Pass<'a>) -> Option<&'a KubernetesService> {
    let name = object(&chain.name, Component::Gateway);
    let applied = pass.applied.into_iter().flat_map(|applied| &applied.services);
    let mut services = applied.chain(&pass.observed.gateway_service);
    services.find(|service| service.metadata.name.as_deref() == Some(name.as_str()))
}

/// Where the spec describes a component's pods.
fn path(component: Component<'_>) -> String {
    match component {
        Component::Gateway => "spec.gateway".to_owned(),
        Component::Issuer(name) => format!("spec.issuers[{name}].managed"),
        Component::Service(name) => format!("spec.services[{name}]"),
        Component::Database { service } => format!("spec.services[{service}].database.managed"),
        Component::Cache { service } => format!("spec.services[{service}].cache.managed"),
    }
}

/// What keeps no store from serving.
fn of_store(
    chain: &ValidatedChain,
    component: Component<'_>,
    workload: &Workload,
    observed: &Observed,
    now: Timestamp,
) -> Vec<Trouble> {
    let name = object(&chain.name, component);
    let overdue = || stores::overdue(&name, workload, observed, chain.rollout.progress_deadline, now);
    match component {
        Component::Cache { .. } => overdue().into_iter().collect(),
        Component::Database { service } => {
            let service = chain.services.iter().find(|one| one.name == service);
            let kept = service.and_then(|service| stores::version_kept(service, &name, observed));
            overdue().into_iter().chain(kept).collect()
        }
        Component::Gateway | Component::Issuer(_) | Component::Service(_) => Vec::new(),
    }
}

fn part(
    chain: &ValidatedChain,
    component: Component<'_>,
    workload: &Workload,
    observed: &Observed,
    keys: &Keys,
) -> Part {
    let starting = workload.starting.clone();
    let mut part = Part {
        serves: workload.serves(),
        is_full: workload.is_full(),
        is_rolling: workload.is_rolling,
        troubles: workload.troubles.clone(),
        awaited: starting.map(|sentence| (Reason::PodsStarting, sentence)),
    };
    match component {
        Component::Issuer(name) => look_at_issuer(&mut part, name, chain, observed, keys),
        Component::Database { .. } => look_at_volume(&mut part, component, chain, observed),
        Component::Gateway | Component::Service(_) | Component::Cache { .. } => {}
    }
    if keys.status.is_none() && !part.serves {
        part.awaited = Some((
            Reason::NoBundleYet,
            "the chain's first key bundle is not written yet".to_owned(),
        ));
    }
    part
}

fn look_at_issuer(part: &mut Part, name: &str, chain: &ValidatedChain, observed: &Observed, keys: &Keys) {
    let issuer = chain.issuer(name);
    let of_clients = issuer.map(|issuer| writes::of_clients(issuer, observed));
    let of_clients = of_clients.unwrap_or_default();
    let signs = keys::signs(keys.status.as_ref(), name);
    if !signs {
        let sentence = format!("issuer {name} has no Active key yet, every verifier must hold its key first");
        part.awaited = Some((Reason::NoActiveKey, sentence));
    }
    part.serves &= signs && of_clients.is_empty();
    part.troubles.extend(of_clients);
}

fn look_at_volume(part: &mut Part, component: Component<'_>, chain: &ValidatedChain, observed: &Observed) {
    let mut troubles = part.troubles.iter();
    let waits = troubles.position(|trouble| trouble.reason == Reason::VolumeNotBound);
    // The claim says why, where it can; its pod only that it waits.
    let waits = waits.map(|index| part.troubles.remove(index));
    let secret = store_secret(&chain.name, component);
    let of_volume = stores::troubles(&object(&chain.name, component), &secret, waits, observed);
    part.serves &= of_volume.is_empty();
    part.troubles.extend(of_volume);
}
