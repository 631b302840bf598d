//! A managed database: one PostgreSQL on one volume, with the official image or one that keeps its contract.
//!
//! The image's init scripts run only once, and not again when the first start was cut short; so `start.sh` throws away
//! what is half made, which no client has ever seen.

use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaimVolumeSource, Volume};

use super::environment::value;
use super::pod::{
    self, Parts, config_map_volume, default_resources, empty_volume, mount, read_only_mount, resources,
    secret_volume,
};
use super::{Blueprint, BuiltDatabase, POSTGRES_PORT, probe};
use crate::object_names::{self, Component};

/// Keys of its Secret: the service's password, and the superuser's, which no service is given.
pub(super) const PASSWORD_KEY: &str = "password";
pub(super) const SUPERUSER_PASSWORD_KEY: &str = "superuser-password";

/// What its `ConfigMap` holds.
pub(super) const FILES: [(&str, &str); 3] = [
    (START_FILE, include_str!("postgres/start.sh")),
    (ROLE_FILE, include_str!("postgres/10-role.sql")),
    (FINISHED_FILE, include_str!("postgres/20-finished.sh")),
];
const START_FILE: &str = "start.sh";
const ROLE_FILE: &str = "10-role.sql";
const FINISHED_FILE: &str = "20-finished.sh";

/// User of the official image.
const UID: i64 = 999;
const SCRIPTS: &str = "/etc/servicechain";
const INIT_SCRIPTS: &str = "/docker-entrypoint-initdb.d";
/// `10-role.sql` reads the password there.
const PASSWORDS: &str = "/run/servicechain/passwords";

/// From this major on the image wants the volume one folder higher, with a folder for each major in it.
const FIRST_WITH_MAJOR_IN_PATH: u16 = 18;

/// None where the operator has no image of that major.
pub(super) fn parts<'a>(
    blueprint: &Blueprint<'_>,
    component: Component<'a>,
    database: &BuiltDatabase<'a>,
) -> Option<Parts<'a>> {
    let image = blueprint.settings.images.postgres.get(&database.major)?;
    let (volume, data) = folders(&database.major);
    let parameters = database.spec.parameters.iter();
    let arguments = parameters.flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]);
    let container = Container {
        image: Some(image.clone()),
        command: Some(vec!["sh".to_owned(), format!("{SCRIPTS}/{START_FILE}")]),
        args: super::metadata::some_list(arguments.collect()),
        env: Some(vec![
            value("PGDATA", &data),
            // Sorted by code point, whatever libc the image of a later minor brings; and damage on disk is noticed.
            value(
                "POSTGRES_INITDB_ARGS",
                "--encoding=UTF8 --locale=C.UTF-8 --data-checksums",
            ),
            value(
                "POSTGRES_PASSWORD_FILE",
                &format!("{PASSWORDS}/{SUPERUSER_PASSWORD_KEY}"),
            ),
        ]),
        ports: Some(vec![pod::port("postgres", POSTGRES_PORT)]),
        // Over TCP: while it is being set up, only its socket answers. Recovery after a crash may take minutes.
        startup_probe: Some(probe::command(&READY, 1, 600)),
        liveness_probe: Some(probe::tcp("postgres", 10, 6)),
        readiness_probe: Some(probe::command(&READY, 5, 2)),
        volume_mounts: Some(vec![
            mount("data", volume),
            read_only_mount("scripts", SCRIPTS),
            read_only_mount("init-scripts", INIT_SCRIPTS),
            read_only_mount("passwords", PASSWORDS),
            mount("run", "/var/run/postgresql"),
            mount("tmp", "/tmp"),
        ]),
        ..Container::default()
    };
    let name = object_names::object(&blueprint.chain.name, component);
    let config = object_names::config(&blueprint.chain.name, component);
    let claim = Volume {
        name: "data".to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: name.clone(),
            ..PersistentVolumeClaimVolumeSource::default()
        }),
        ..Volume::default()
    };
    Some(Parts {
        component,
        settings: &database.spec.pod,
        uid: UID,
        container,
        resources: resources(&database.spec.pod, default_resources(50, 128, 512)),
        volumes: vec![
            claim,
            config_map_volume("scripts", config.clone(), &[START_FILE], false),
            config_map_volume("init-scripts", config, &[ROLE_FILE, FINISHED_FILE], false),
            secret_volume("passwords", name, &[PASSWORD_KEY, SUPERUSER_PASSWORD_KEY]),
            empty_volume("run", false, 16),
            empty_volume("tmp", false, 64),
        ],
        // Its scripts matter to a first start only.
        config_digest: None,
        revision_label: "controller-revision-hash",
    })
}

const READY: [&str; 7] = [
    "pg_isready",
    "--quiet",
    "--host=127.0.0.1",
    "--username=app",
    "--dbname=app",
    "--timeout=1",
    "--port=5432",
];

/// Where the volume is mounted, and the folder in it that holds the database.
fn folders(major: &str) -> (&'static str, String) {
    let number: u16 = major.parse().unwrap_or_default();
    if number >= FIRST_WITH_MAJOR_IN_PATH {
        (
            "/var/lib/postgresql",
            format!("/var/lib/postgresql/{major}/docker"),
        )
    } else {
        (
            "/var/lib/postgresql/data",
            "/var/lib/postgresql/data/pgdata".to_owned(),
        )
    }
}
