//! Databases and caches of services and issuers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pod::PodSettings;
use crate::{quantity::Quantity, rules};

/// Where data is kept: at most one of `managed`, `external` and `cloudNativePG`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::rules(&[(rules::ONE_DATABASE, rules::ONE_DATABASE_SAYS)])))]
pub struct DatabaseSpec {
    /// A PostgreSQL that the operator runs: a single instance, with no high availability and no backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedDatabaseSpec>,
    /// A PostgreSQL that somebody else runs. Not supported yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalDatabaseSpec>,
    /// A cluster of the CloudNativePG operator. Not supported yet.
    #[serde(rename = "cloudNativePG", skip_serializing_if = "Option::is_none")]
    pub cloud_native_pg: Option<CloudNativePgSpec>,
}

/// A PostgreSQL that the operator runs. Switching away from it keeps its volume and its Secret.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::rules(&[(rules::VERSION_KEPT, rules::VERSION_KEPT_SAYS)])))]
pub struct ManagedDatabaseSpec {
    /// Major version of PostgreSQL. Cannot be changed. Default: the operator's, recorded in the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2), regex(pattern = r"^[1-9][0-9]?$"))]
    pub version: Option<String>,
    /// Its volume.
    pub storage: StorageSpec,
    /// `Retain` keeps volume and password Secret, together, when the chain is deleted; `Delete` deletes both.
    /// Default Retain.
    pub deletion_policy: DeletionPolicy,
    /// Settings of postgresql.conf, all as strings. Default: none.
    #[schemars(extend("maxProperties" = 64))]
    pub parameters: BTreeMap<String, String>,
    /// Settings of its pod, merged over `spec.podDefaults`.
    pub pod: PodSettings,
}

/// The volume of a managed database.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageSpec {
    /// Its size, a quantity of bytes. It only grows. 1Mi to 1024Ti, default 1Gi.
    #[schemars(extend("x-kubernetes-validations" = rules::rules(&[
        (rules::STORAGE_SIZE, rules::STORAGE_SIZE_SAYS),
        (rules::SIZE_GROWS, rules::SIZE_GROWS_SAYS),
    ])))]
    pub size: Quantity,
    /// Its StorageClass. Cannot be changed. Default: empty, the cluster's own.
    #[schemars(length(max = 253))]
    #[schemars(extend("x-kubernetes-validations" = rules::rules(&[("self == oldSelf", rules::CLASS_KEPT_SAYS)])))]
    pub class_name: String,
}

/// What happens to a managed database's data when the chain is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum DeletionPolicy {
    #[default]
    Retain,
    Delete,
}

/// A PostgreSQL that somebody else runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalDatabaseSpec {
    /// Secret that says where it is and how to log in.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub secret_name: String,
    /// How its certificate is checked: `Disable` (clear text), `Require` (unchecked), `VerifyCA` or
    /// `VerifyFull`. Default VerifyFull.
    #[serde(default)]
    pub ssl_mode: SslMode,
    /// Names of the keys in the Secret. Default: those of CloudNativePG.
    #[serde(default)]
    pub keys: DatabaseSecretKeys,
}

/// How a database's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum SslMode {
    Disable,
    Require,
    VerifyCA,
    #[default]
    VerifyFull,
}

/// Names of the keys in a database's Secret. `uri` wins over the others when the Secret has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseSecretKeys {
    /// Key of the whole URL. Default `uri`.
    #[schemars(length(max = 253))]
    pub uri: String,
    /// Key of the host. Default `host`.
    #[schemars(length(max = 253))]
    pub host: String,
    /// Key of the port. Default `port`.
    #[schemars(length(max = 253))]
    pub port: String,
    /// Key of the database's name. Default `dbname`.
    #[schemars(length(max = 253))]
    pub dbname: String,
    /// Key of the user. Default `username`.
    #[schemars(length(max = 253))]
    pub user: String,
    /// Key of the password. Default `password`.
    #[schemars(length(max = 253))]
    pub password: String,
}

/// A cluster of the CloudNativePG operator, in the chain's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloudNativePgSpec {
    /// Name of the Cluster.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::OBJECT_NAME))]
    pub cluster_name: String,
    /// Database in it. Default `app`.
    #[serde(default = "app")]
    #[schemars(length(min = 1, max = 63))]
    pub database: String,
}

/// What is read before the database: at most one of `managed` and `external`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::rules(&[(rules::ONE_CACHE, rules::ONE_CACHE_SAYS)])))]
pub struct CacheSpec {
    /// A Redis that the operator runs, kept in memory only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedCacheSpec>,
    /// A Redis that somebody else runs. Not supported yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalCacheSpec>,
}

/// A Redis that the operator runs, kept in memory only.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ManagedCacheSpec {
    /// How much it may hold, a quantity of bytes; the least recently used items leave first. 1Mi to 1Ti,
    /// default 64Mi.
    #[schemars(extend("x-kubernetes-validations" = rules::rules(&[(rules::MAX_MEMORY, rules::MAX_MEMORY_SAYS)])))]
    pub max_memory: Quantity,
    /// Settings of its pod, merged over `spec.podDefaults`.
    pub pod: PodSettings,
}

/// A Redis that somebody else runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalCacheSpec {
    /// Secret whose key `uri` holds its URL, redis:// or rediss://.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub secret_name: String,
}

impl Default for StorageSpec {
    fn default() -> Self {
        Self {
            size: Quantity::from("1Gi"),
            class_name: String::new(),
        }
    }
}

impl Default for ManagedCacheSpec {
    fn default() -> Self {
        Self {
            max_memory: Quantity::from("64Mi"),
            pod: PodSettings::default(),
        }
    }
}

impl Default for DatabaseSecretKeys {
    fn default() -> Self {
        Self {
            uri: "uri".to_owned(),
            host: "host".to_owned(),
            port: "port".to_owned(),
            dbname: "dbname".to_owned(),
            user: "username".to_owned(),
            password: "password".to_owned(),
        }
    }
}

fn app() -> String {
    "app".to_owned()
}
