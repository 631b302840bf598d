//! A chain from YAML, and its objects with fixed secrets.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;
use servicechain_crds::ValidatedChain;
use servicechain_keys::{ChainId, RootSecret, TrustKey};
use servicechain_operator::config::{Images, Settings};
use servicechain_operator::controller::build::{FoundClient, Given, build};
use servicechain_operator::controller::resources::{Object, Prepared, Resources};
use servicechain_operator::key_controller::external::FetchRules;
use zeroize::Zeroizing;

pub(crate) const SHOP: &str = include_str!("../../../examples/shop.yaml");

/// What is there before a chain is built.
#[derive(Default)]
pub(crate) struct Before {
    pub(crate) client_secrets: BTreeMap<String, FoundClient>,
    /// And whether they have an owner.
    pub(crate) store_secrets: BTreeMap<String, bool>,
    pub(crate) majors: BTreeMap<String, String>,
}

pub(crate) fn shop() -> ValidatedChain {
    servicechain_crds::read(SHOP).unwrap()
}

/// The shop with `value` at each JSON pointer.
pub(crate) fn shop_with(changes: &[(&str, Value)]) -> ValidatedChain {
    let mut shop: Value = serde_saphyr::from_str(SHOP).unwrap();
    for (pointer, value) in changes {
        let (holder, field) = pointer.rsplit_once('/').unwrap();
        shop.pointer_mut(holder).unwrap()[field] = value.clone();
    }
    chain(&shop)
}

pub(crate) fn chain(json: &Value) -> ValidatedChain {
    servicechain_crds::read(&json.to_string()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

pub(crate) fn settings() -> Settings {
    let postgres = [
        ("15", "postgres:15"),
        ("17", "postgres:17"),
        ("18", "postgres:18"),
    ];
    Settings {
        images: Images {
            gateway: "gateway:1".to_owned(),
            item_service: "item-service:1".to_owned(),
            token_issuer: "token-issuer:1".to_owned(),
            postgres: postgres
                .map(|(major, image)| (major.to_owned(), image.to_owned()))
                .into(),
            redis: "redis:7".to_owned(),
        },
        default_postgres_major: "17".to_owned(),
        knock_url: "http://servicechain-operator.servicechain-system.svc:9091".to_owned(),
        operator_namespace: "servicechain-system".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        node_port_urls: BTreeMap::new(),
        fetch_rules: FetchRules::default(),
    }
}

pub(crate) fn built(chain: &ValidatedChain) -> Resources<Prepared> {
    built_after(chain, &Before::default())
}

pub(crate) fn built_after(chain: &ValidatedChain, before: &Before) -> Resources<Prepared> {
    let (root, settings) = (RootSecret::new([7; 32]), settings());
    let anchor = TrustKey::from_seed(&[1; 32]).unwrap().anchor().clone();
    let mut made = 0;
    let mut new_password = || {
        made += 1;
        Zeroizing::new(format!("password-{made}"))
    };
    build(
        chain,
        &mut Given {
            owner: OwnerReference {
                api_version: "servicechain.dev/v1alpha1".to_owned(),
                kind: "ServiceChain".to_owned(),
                name: chain.name.clone(),
                uid: "c0ffee00-0000-4000-8000-000000000001".to_owned(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            },
            chain_id: ChainId::new("c0ffee00-0000-4000-8000-000000000001").unwrap(),
            anchors: &[anchor],
            root: &root,
            settings: &settings,
            client_secrets: &before.client_secrets,
            store_secrets: &before.store_secrets,
            majors: &before.majors,
            new_password: &mut new_password,
        },
    )
}

/// Name and pods of everything that runs.
pub(crate) fn templates(resources: &Resources<Prepared>) -> Vec<(String, PodTemplateSpec)> {
    let deployments = resources.deployments.iter().map(|object| {
        (
            object.metadata.name.clone().unwrap(),
            object.spec.as_ref().unwrap().template.clone(),
        )
    });
    let stateful_sets = resources.stateful_sets.iter().map(|object| {
        (
            object.metadata.name.clone().unwrap(),
            object.spec.as_ref().unwrap().template.clone(),
        )
    });
    deployments.chain(stateful_sets).collect()
}

pub(crate) fn pod(resources: &Resources<Prepared>, name: &str) -> PodSpec {
    let template = templates(resources).into_iter().find(|(of, _)| of == name);
    template
        .unwrap_or_else(|| panic!("nothing runs as {name}"))
        .1
        .spec
        .unwrap()
}

pub(crate) fn container(resources: &Resources<Prepared>, name: &str) -> Container {
    pod(resources, name).containers.remove(0)
}

pub(crate) fn variable(container: &Container, name: &str) -> Option<EnvVar> {
    container
        .env
        .iter()
        .flatten()
        .find(|variable| variable.name == name)
        .cloned()
}

pub(crate) fn value(container: &Container, name: &str) -> String {
    let variable = variable(container, name).unwrap_or_else(|| panic!("there is no variable {name}"));
    variable.value.unwrap_or_default()
}

pub(crate) fn config_digest(resources: &Resources<Prepared>, name: &str) -> Option<String> {
    let (_, template) = templates(resources).into_iter().find(|(of, _)| of == name)?;
    template.metadata?.annotations?.remove("servicechain.dev/config")
}

/// Kind, name and JSON of every object, in the order of application.
pub(crate) fn objects(resources: Resources<Prepared>) -> Vec<(String, String, Value)> {
    let name = |object: &Object| {
        (
            object.api_resource().kind,
            object.name().to_owned(),
            object.to_json(),
        )
    };
    resources.into_objects().map(|object| name(&object)).collect()
}

pub(crate) fn found_client(id: &str) -> FoundClient {
    FoundClient {
        id: id.to_owned(),
        sha256: "ab".repeat(32),
    }
}
