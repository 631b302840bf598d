//! The Secrets of a chain. Each is for one workload; what was chosen once is created once and never changed.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use servicechain_crds::ValidatedChain;
use servicechain_crds::service_chain::stores::DeletionPolicy;
use servicechain_crds::validated::{Cache, Client, Issuer, ManagedIssuer};
use servicechain_keys::{Digest, Workload};
use zeroize::Zeroizing;

use super::configuration::ClientSecret;
use super::metadata::{kept, owned};
use super::{Blueprint, Given, postgres, redis};
use crate::object_names::{self, CLIENT_ID_KEY, CLIENT_SECRET_KEY, Component};

/// Name of the issuer's file, as its program expects it.
pub(super) const ISSUER_FILE: &str = "issuer.yaml";
/// Key of an acknowledgement key in its Secret.
pub(super) const ACK_KEY: &str = "ack-key";

/// Who may ask which issuer for tokens, by the digests of their secrets.
///
/// A client whose Secret is incomplete or names another client is not known to its issuer. One whose Secret is about to
/// be made is, so that the issuer need not be restarted for it.
pub(super) fn clients<'a>(
    chain: &'a ValidatedChain,
    given: &Given<'_>,
) -> BTreeMap<&'a str, Vec<ClientSecret>> {
    let of_issuer = |(issuer, managed): (&'a Issuer, &'a ManagedIssuer)| {
        let known = managed.clients.iter().filter_map(|client| {
            let sha256 = match given.client_secrets.get(&client.secret_name) {
                Some(found) if found.id == client.id => found.sha256.clone(),
                Some(_) => return None,
                None if client.secret_is_given => return None,
                None => hexadecimal(&new_client_secret(given, &issuer.name, client)?),
            };
            Some(ClientSecret {
                client: client.id.clone(),
                sha256,
            })
        });
        (issuer.name.as_str(), known.collect())
    };
    chain.managed_issuers().map(of_issuer).collect()
}

/// What is derived or written anew at every pass.
pub(super) fn secrets(blueprint: &Blueprint<'_>, given: &Given<'_>) -> Vec<Secret> {
    let components = object_names::components(blueprint.chain).into_iter();
    let derived = components.flat_map(|component| {
        let ack = blueprint.ack_key(component).map(|key| {
            let name = object_names::ack_secret(&blueprint.chain.name, component);
            secret(owned(blueprint, component, name), [(ACK_KEY, key.as_bytes())])
        });
        [ack, own(blueprint, component)].into_iter().flatten()
    });
    derived
        .chain(passwords_with_another_owner(blueprint, given))
        .collect()
}

/// What opens a database goes with its volume: owned by the chain where the volume is, and by nobody else. Only the
/// owner is written; without data, server-side apply leaves the data as it is.
fn passwords_with_another_owner(blueprint: &Blueprint<'_>, given: &Given<'_>) -> Vec<Secret> {
    let databases = blueprint.databases.iter().filter_map(|(component, database)| {
        let name = object_names::store_secret(&blueprint.chain.name, *component);
        let is_owned = *given.store_secrets.get(&name)?;
        let metadata = match database.spec.deletion_policy {
            DeletionPolicy::Retain if is_owned => kept(blueprint, *component, name),
            DeletionPolicy::Delete if !is_owned => owned(blueprint, *component, name),
            DeletionPolicy::Retain | DeletionPolicy::Delete => return None,
        };
        Some(secret(metadata, []))
    });
    databases.collect()
}

/// What is chosen once, where it does not exist.
pub(super) fn created_once(blueprint: &Blueprint<'_>, given: &mut Given<'_>) -> Vec<Secret> {
    let mut all = Vec::new();
    for (issuer, managed) in blueprint.chain.managed_issuers() {
        let made = managed.clients.iter().filter(|client| !client.secret_is_given);
        for client in made.filter(|client| !given.client_secrets.contains_key(&client.secret_name)) {
            let metadata = owned(
                blueprint,
                Component::Issuer(&issuer.name),
                client.secret_name.clone(),
            );
            let new = new_client_secret(given, &issuer.name, client);
            all.extend(new.map(|new| {
                secret(
                    metadata,
                    [
                        (CLIENT_ID_KEY, client.id.as_bytes()),
                        (CLIENT_SECRET_KEY, new.as_bytes()),
                    ],
                )
            }));
        }
    }
    for (component, database) in &blueprint.databases {
        let name = object_names::store_secret(&blueprint.chain.name, *component);
        // A volume opens with the passwords that it was made with, and with no others.
        if database.has_volume || given.store_secrets.contains_key(&name) {
            continue;
        }
        let metadata = kept(blueprint, *component, name);
        let (service, superuser) = ((given.new_password)(), (given.new_password)());
        all.push(secret(
            metadata,
            [
                (postgres::PASSWORD_KEY, service.as_bytes()),
                (postgres::SUPERUSER_PASSWORD_KEY, superuser.as_bytes()),
            ],
        ));
    }
    all
}

/// The issuer's file, which holds digests of secrets that people may have chosen; how a cache is opened.
fn own(blueprint: &Blueprint<'_>, component: Component<'_>) -> Option<Secret> {
    match component {
        Component::Issuer(_) => {
            let name = object_names::config(&blueprint.chain.name, component);
            let file = blueprint.file(component)?;
            Some(secret(
                owned(blueprint, component, name),
                [(ISSUER_FILE, file.as_bytes())],
            ))
        }
        Component::Cache { service } => {
            let name = object_names::store_secret(&blueprint.chain.name, component);
            let password = redis::password(blueprint, component);
            let Cache::Managed { max_memory_bytes, .. } = blueprint.chain.service(service)?.cache.as_ref()?;
            let config = redis::config(&password, *max_memory_bytes);
            let url = Zeroizing::new(blueprint.places().cache(service, &password));
            Some(secret(
                owned(blueprint, component, name),
                [
                    (redis::CONFIG_KEY, config.as_bytes()),
                    (redis::URL_KEY, url.as_bytes()),
                ],
            ))
        }
        Component::Gateway | Component::Service(_) | Component::Database { .. } => None,
    }
}

fn secret<const N: usize>(metadata: ObjectMeta, data: [(&str, &[u8]); N]) -> Secret {
    let data: BTreeMap<_, _> = data
        .into_iter()
        .map(|(key, value)| (key.to_owned(), ByteString(value.to_owned())))
        .collect();
    Secret {
        metadata,
        data: super::metadata::some_map(data),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

/// Derived, although it is chosen once: an issuer that already knows its digest still fits when creating the Secret
/// failed and is tried again. No workload is called so: names are DNS labels, without dots.
fn new_client_secret(given: &Given<'_>, issuer: &str, client: &Client) -> Option<Zeroizing<String>> {
    let workload = Workload::new(format!("{issuer}.clients")).ok()?;
    let key = given.root.ack_key(&given.chain_id, &workload).to_text();
    let text = Zeroizing::new(format!("{}.{}", *key, client.id));
    Some(Zeroizing::new(hexadecimal(&text)))
}

fn hexadecimal(text: &str) -> String {
    let digest = Digest::of(text.as_bytes()).to_string();
    digest.trim_start_matches("sha256:").to_owned()
}
