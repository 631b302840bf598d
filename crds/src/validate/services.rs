//! The rules of `spec.services`.

use super::{Judge, parsed};
use crate::{
    rules,
    service_chain::{
        services::{ServiceSpec, Verification},
        stores::DatabaseSpec,
    },
    validated::Service,
};

impl Judge<'_> {
    pub(super) fn services(&mut self) -> Vec<Service> {
        let specs = &self.chain.spec.services;
        let services: Vec<Service> = specs
            .iter()
            .enumerate()
            .map(|(index, spec)| {
                let path = format!("spec.services[{index}]");
                let following = specs.get(index + 1).map(|service| service.name.clone());
                self.service(spec, following, &path)
            })
            .collect();
        self.refuse_cycles(&services);
        services
    }

    fn service(&mut self, spec: &ServiceSpec, following: Option<String>, path: &str) -> Service {
        if rules::is_reserved(&spec.name) {
            self.mistakes.add(
                format!("{path}.name"),
                format!("{:?} is taken: {}", spec.name, rules::SERVICE_NAME_SAYS),
            );
        }
        self.refuse_own_images(spec, path);
        self.known(
            &format!("{path}.issuers"),
            &spec.issuers,
            &self.issuer_names(),
            "issuer",
        );
        if !spec.audiences.is_empty() {
            self.narrowed(
                &format!("{path}.audiences"),
                &spec.audiences,
                &self.chain.spec.audiences,
                rules::AUDIENCES_NARROW_SAYS,
            );
        }
        self.environment(spec, path);
        if [9090, 9091].contains(&spec.port) {
            self.mistakes
                .add(format!("{path}.port"), rules::SERVICE_PORT_SAYS);
        }
        if spec.image.is_empty()
            && spec
                .database
                .as_ref()
                .is_none_or(|database| *database == DatabaseSpec::default())
        {
            self.mistakes.add_unsupported(
                format!("{path}.database"),
                "the item service without a database",
                "add `database: {managed: {}}`",
            );
        }
        Service {
            name: spec.name.clone(),
            next: self.next(spec, following, path),
            replicas: self.replicas(path, spec.replicas, spec.autoscaling.as_ref()),
            port: u16::try_from(spec.port).unwrap_or_default(),
            audiences: spec.audiences.clone(),
            issuers: spec.issuers.clone(),
            authorization: spec.authorization.clone(),
            database: spec
                .database
                .as_ref()
                .and_then(|database| self.database(database, &format!("{path}.database"))),
            cache: spec
                .cache
                .as_ref()
                .and_then(|cache| self.cache(cache, &format!("{path}.cache"))),
            cache_ttl: parsed(&spec.cache_ttl),
            env: spec.env.clone(),
            env_from: spec.env_from.clone(),
            probes: spec.probes.clone(),
            pod: self.pod(&spec.pod, &format!("{path}.pod")),
        }
    }

    fn refuse_own_images(&mut self, spec: &ServiceSpec, path: &str) {
        let instead = "leave it out to run the operator's own item service";
        if !spec.image.is_empty() {
            self.mistakes
                .add_unsupported(format!("{path}.image"), "an image of your own", instead);
        }
        if spec.verification == Some(Verification::Sidecar) {
            self.mistakes
                .add_unsupported(format!("{path}.verification"), "a verifying sidecar", instead);
        }
        for (field, words) in [("command", &spec.command), ("args", &spec.args)] {
            if !words.is_empty() {
                let feature = format!("a {field} of your own");
                self.mistakes
                    .add_unsupported(format!("{path}.{field}"), &feature, instead);
            }
        }
    }

    fn environment(&mut self, spec: &ServiceSpec, path: &str) {
        for (index, variable) in spec.env.iter().enumerate() {
            let name = variable.name.as_str();
            let says = if rules::VARIABLES.contains(&name) {
                rules::VARIABLES_SAYS
            } else if rules::is_steering(name) {
                rules::STEERING_VARIABLES_SAYS
            } else {
                continue;
            };
            self.mistakes.add(
                format!("{path}.env[{index}].name"),
                format!("{name:?} is taken: {says}"),
            );
        }
    }

    fn next(&mut self, spec: &ServiceSpec, following: Option<String>, path: &str) -> Option<String> {
        let Some(next) = &spec.next else { return following };
        let name = next.first()?;
        let others: Vec<&str> = self
            .service_names()
            .into_iter()
            .filter(|other| *other != spec.name)
            .collect();
        if !others.contains(&name.as_str()) {
            let there_are = if others.is_empty() {
                "there is no other".to_owned()
            } else {
                format!("there are {}", others.join(", "))
            };
            self.mistakes.add(
                format!("{path}.next[0]"),
                format!(
                    "{}; {name:?} is not one: {there_are}, or [] for none",
                    rules::NEXT_EXISTS_SAYS
                ),
            );
            return None;
        }
        Some(name.clone())
    }

    /// Follows `next` from every service; each cycle is named once, at its first service.
    fn refuse_cycles(&mut self, services: &[Service]) {
        let position = |name: &str| services.iter().position(|service| service.name == name);
        for (start, service) in services.iter().enumerate() {
            let mut names = vec![service.name.as_str()];
            let mut at = service.next.as_deref().and_then(position);
            while let Some(index) = at {
                names.push(services[index].name.as_str());
                if index <= start || names.len() > services.len() {
                    break;
                }
                at = services[index].next.as_deref().and_then(position);
            }
            if at == Some(start) {
                self.mistakes.add(
                    format!("spec.services[{start}].next"),
                    format!(
                        "{}, but {}; end it with `next: []`",
                        rules::NEXT_CYCLE_SAYS,
                        names.join(" calls ")
                    ),
                );
            }
        }
    }
}
