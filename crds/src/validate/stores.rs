//! The rules of databases and caches.

use std::ops::RangeInclusive;

use super::Judge;
use crate::{
    quantity::Quantity,
    rules,
    service_chain::stores::{CacheSpec, DatabaseSpec},
    validated::{Cache, Database, ManagedDatabase},
};

impl Judge<'_> {
    pub(super) fn database(&mut self, spec: &DatabaseSpec, path: &str) -> Option<Database> {
        let arms = [
            spec.managed.is_some(),
            spec.external.is_some(),
            spec.cloud_native_pg.is_some(),
        ];
        if arms.iter().filter(|given| **given).count() > 1 {
            self.mistakes.add(path, rules::ONE_DATABASE_SAYS);
        }
        if spec.external.is_some() {
            self.mistakes.add_unsupported(
                format!("{path}.external"),
                "an external database",
                "use a managed one",
            );
        }
        if spec.cloud_native_pg.is_some() {
            self.mistakes.add_unsupported(
                format!("{path}.cloudNativePG"),
                "a CloudNativePG cluster",
                "use a managed database",
            );
        }
        let managed = spec.managed.as_ref()?;
        Some(Database::Managed(ManagedDatabase {
            version: managed.version.clone(),
            storage_bytes: self.bytes(
                &managed.storage.size,
                1 << 20..=1 << 50,
                &format!("{path}.managed.storage.size"),
                rules::STORAGE_SIZE_SAYS,
            ),
            storage_class: Some(managed.storage.class_name.clone()).filter(|class| !class.is_empty()),
            deletion_policy: managed.deletion_policy,
            parameters: managed.parameters.clone(),
            pod: self.pod(&managed.pod, &format!("{path}.managed.pod")),
        }))
    }

    pub(super) fn cache(&mut self, spec: &CacheSpec, path: &str) -> Option<Cache> {
        if spec.managed.is_some() && spec.external.is_some() {
            self.mistakes.add(path, rules::ONE_CACHE_SAYS);
        }
        if spec.external.is_some() {
            self.mistakes.add_unsupported(
                format!("{path}.external"),
                "an external cache",
                "use a managed one",
            );
        }
        let managed = spec.managed.as_ref()?;
        Some(Cache::Managed {
            max_memory_bytes: self.bytes(
                &managed.max_memory,
                1 << 20..=1 << 40,
                &format!("{path}.managed.maxMemory"),
                rules::MAX_MEMORY_SAYS,
            ),
            pod: self.pod(&managed.pod, &format!("{path}.managed.pod")),
        })
    }

    /// The bytes of a quantity; zero where `check` complained about it.
    pub(super) fn bytes(
        &mut self,
        quantity: &Quantity,
        allowed: RangeInclusive<u64>,
        path: &str,
        says: &str,
    ) -> u64 {
        let Ok(bytes) = quantity.bytes() else { return 0 };
        if !allowed.contains(&bytes) {
            self.mistakes
                .add(path, format!("{says}, not {}", quantity.as_str()));
        }
        bytes
    }
}
