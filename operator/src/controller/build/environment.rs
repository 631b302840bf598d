//! The environment of a verifier's container. Which names belong to the operator stands in
//! `servicechain_crds::rules::VARIABLES`, so that users get other ones.

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, SecretKeySelector,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use servicechain_crds::duration;
use servicechain_crds::service_chain::UnconfirmedStart;
use servicechain_crds::service_chain::operations::LogLevel;
use servicechain_crds::service_chain::pod::PodSettings;
use servicechain_crds::validated::Service;

use super::configuration::Places as _;
use super::deployments::{ACK_FOLDER, BUNDLE_FOLDER, KEYS_FOLDER, STATE_FOLDER};
use super::metadata::some_text;
use super::secrets::ACK_KEY;
use super::{Blueprint, MAIN_PORT, postgres, quantity, redis};
use crate::object_names::{self, BUNDLE_KEY, Component};

/// What a process has left to flush its telemetry once the last request has ended, before it is killed.
const FLUSH: Duration = Duration::from_secs(5);

pub(super) fn variables(blueprint: &Blueprint<'_>, component: Component<'_>) -> Vec<EnvVar> {
    let mut variables = of_verifier(blueprint, component);
    match component {
        Component::Issuer(_) => variables.push(value("KEYS_DIR", KEYS_FOLDER)),
        Component::Service(name) => {
            if let Some(service) = blueprint.chain.service(name) {
                variables.extend(of_service(blueprint, service));
                variables.extend(service.env.iter().cloned().map(canonical));
            }
        }
        Component::Gateway | Component::Database { .. } | Component::Cache { .. } => {}
    }
    variables
}

/// What a service takes from its user's `ConfigMaps` and Secrets.
pub(super) fn sources(service: &Service) -> Vec<EnvFromSource> {
    let canonical = |source: EnvFromSource| EnvFromSource {
        prefix: some_text(source.prefix),
        ..source
    };
    service.env_from.iter().cloned().map(canonical).collect()
}

fn of_verifier(blueprint: &Blueprint<'_>, component: Component<'_>) -> Vec<EnvVar> {
    let chain = blueprint.chain;
    let port = match component {
        Component::Service(name) => chain.service(name).map_or(MAIN_PORT, |service| service.port),
        _ => MAIN_PORT,
    };
    let anchors: Vec<_> = blueprint.anchors.iter().map(ToString::to_string).collect();
    let places = blueprint.places();
    let issuers = chain.managed_issuers();
    let issuers: Vec<_> = issuers
        .map(|(issuer, _)| format!("{}={}", issuer.name, places.issuer_keys(&issuer.name)))
        .collect();
    let distribution = &chain.key_distribution;
    let unconfirmed = match distribution.unconfirmed_start {
        UnconfirmedStart::Serve => "serve",
        UnconfirmedStart::Wait => "wait",
    };
    let (drain_delay, drain_grace) = ending(blueprint.pod_settings(component));
    let mut variables = vec![
        value("CHAIN_UID", blueprint.chain_id.as_str()),
        field("POD_UID", "metadata.uid"),
        value("WORKLOAD", component.workload().unwrap_or_default()),
        value("TRUST_ANCHORS", &anchors.join(",")),
        value("OPERATOR_URL", &blueprint.settings.knock_url),
        value("ACK_KEY_FILE", &format!("{ACK_FOLDER}/{ACK_KEY}")),
        value("BUNDLE_FILE", &format!("{BUNDLE_FOLDER}/{BUNDLE_KEY}")),
        value("STATE_DIR", STATE_FOLDER),
        value("STARTUP_WAIT", &duration::format(distribution.startup_wait)),
        value("UNCONFIRMED_START", unconfirmed),
        value(
            "MAX_STALENESS",
            &duration::format(distribution.max_staleness.unwrap_or_default()),
        ),
        value("PORT", &port.to_string()),
        value("DRAIN_DELAY", &duration::format(drain_delay)),
        value("DRAIN_GRACE", &duration::format(drain_grace)),
    ];
    // Issuers of others have no keys port.
    if !issuers.is_empty() {
        variables.push(value("ISSUER_KEYS_URLS", &issuers.join(",")));
    }
    variables.extend(of_telemetry(blueprint));
    variables
}

fn of_telemetry(blueprint: &Blueprint<'_>) -> Vec<EnvVar> {
    let observability = &blueprint.chain.observability;
    let level = match observability.log_level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let mut variables = vec![
        value("LOG_LEVEL", level),
        value("ACCESS_LOG", &observability.access_log.to_string()),
        value(
            "TRACE_SAMPLING_PERCENT",
            &observability.trace_sampling_percent.to_string(),
        ),
    ];
    if !observability.otlp_endpoint.is_empty() {
        // Hops of two chains may have the same name.
        let whose = format!(
            "service.namespace={},k8s.namespace.name={}",
            blueprint.chain.name, blueprint.chain.namespace
        );
        variables.push(value("OTEL_EXPORTER_OTLP_ENDPOINT", &observability.otlp_endpoint));
        variables.push(value("OTEL_RESOURCE_ATTRIBUTES", &whose));
    }
    variables
}

/// Where a service finds its stores and the hop after it.
fn of_service(blueprint: &Blueprint<'_>, service: &Service) -> Vec<EnvVar> {
    let (chain, places) = (&blueprint.chain.name, blueprint.places());
    let mut variables = Vec::new();
    if service.database.is_some() {
        let component = Component::Database {
            service: &service.name,
        };
        let name = object_names::store_secret(chain, component);
        variables.push(secret("DATABASE_PASSWORD", name, postgres::PASSWORD_KEY));
        // The kubelet puts the password in.
        variables.push(value(
            "DATABASE_URL",
            &places.database(&service.name, "$(DATABASE_PASSWORD)"),
        ));
    }
    if service.cache.is_some() {
        let component = Component::Cache {
            service: &service.name,
        };
        variables.push(secret(
            "REDIS_URL",
            object_names::store_secret(chain, component),
            redis::URL_KEY,
        ));
    }
    if let Some(next) = &service.next {
        variables.push(value("NEXT_HOP_URL", &places.service(next)));
    }
    variables
}

/// How long a pod keeps accepting once it ends, and how long requests may take after that: all before it is killed.
fn ending(pod: &PodSettings) -> (Duration, Duration) {
    let delay = pod
        .drain_delay
        .as_ref()
        .and_then(|delay| delay.parse().ok())
        .unwrap_or_default();
    let seconds = pod.termination_grace_period_seconds.unwrap_or_default();
    let rest = Duration::from_secs(seconds.unsigned_abs()).saturating_sub(delay);
    (delay, rest.saturating_sub(FLUSH.min(rest / 4)))
}

pub(super) fn value(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    from(
        name,
        EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        },
    )
}

fn secret(name: &str, secret: String, key: &str) -> EnvVar {
    from(
        name,
        EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                key: key.to_owned(),
                name: secret,
                optional: None,
            }),
            ..EnvVarSource::default()
        },
    )
}

fn from(name: &str, source: EnvVarSource) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(source),
        ..EnvVar::default()
    }
}

/// As the API server stores what a user wrote.
fn canonical(mut variable: EnvVar) -> EnvVar {
    variable.value = some_text(variable.value);
    if let Some(source) = &mut variable.value_from {
        if let Some(field) = &mut source.field_ref {
            field.api_version = some_text(field.api_version.take()).or_else(|| Some("v1".to_owned()));
        }
        if let Some(resource) = &mut source.resource_field_ref {
            resource.container_name = some_text(resource.container_name.take());
            let divisor = resource.divisor.take().filter(|divisor| !divisor.0.is_empty());
            resource.divisor = Some(quantity::canonical(
                &divisor.unwrap_or_else(|| Quantity("0".to_owned())),
            ));
        }
    }
    variable
}
