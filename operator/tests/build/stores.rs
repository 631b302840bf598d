//! Managed databases and caches: what opens them, what they may use, what outlives the chain.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use servicechain_operator::controller::build;
use servicechain_operator::controller::resources::{Prepared, Resources};

use crate::workshop::{
    Before, built, built_after, config_digest, container, found_client, objects, pod, settings, shop,
    shop_with, variable,
};

fn secret(secrets: &[Secret], name: &str) -> Option<Vec<(String, String)>> {
    let secret = secrets
        .iter()
        .find(|secret| secret.metadata.name.as_deref() == Some(name))?;
    let data = secret.data.clone().unwrap_or_default().into_iter();
    Some(
        data.map(|(key, value)| (key, String::from_utf8(value.0).unwrap()))
            .collect(),
    )
}

fn created(resources: &Resources<Prepared>) -> Vec<&str> {
    resources
        .created_once
        .iter()
        .map(|secret| secret.metadata.name.as_deref().unwrap())
        .collect()
}

#[test]
fn passwords_are_made_once_and_never_for_a_volume_that_is_there() {
    let databases = ["shop-a-postgres", "shop-b-postgres", "shop-c-postgres"];
    assert_eq!(
        created(&built(&shop())),
        [
            "shop-client-platform-demo",
            databases[0],
            databases[1],
            databases[2]
        ]
    );

    let adopted = Before {
        store_secrets: databases.map(|name| (name.to_owned(), false)).into(),
        ..Before::default()
    };
    assert_eq!(
        created(&built_after(&shop(), &adopted)),
        ["shop-client-platform-demo"]
    );

    // The volume is there and the Secret is gone: a new password would lock the database for ever.
    let lost = Before {
        majors: [("b".to_owned(), "17".to_owned())].into(),
        ..Before::default()
    };
    assert_eq!(
        created(&built_after(&shop(), &lost)),
        ["shop-client-platform-demo", databases[0], databases[2]]
    );
    assert!(
        built_after(&shop(), &lost)
            .stateful_sets
            .iter()
            .any(|set| set.metadata.name.as_deref() == Some(databases[1]))
    );
}

#[test]
fn a_service_is_given_its_own_password_and_never_the_superusers() {
    let resources = built(&shop());
    let of_a = secret(&resources.created_once, "shop-a-postgres").unwrap();
    assert_eq!(
        of_a,
        [
            ("password".into(), "password-1".into()),
            ("superuser-password".into(), "password-2".into())
        ]
    );
    let password = variable(&container(&resources, "shop-a"), "DATABASE_PASSWORD").unwrap();
    let source = password.value_from.unwrap().secret_key_ref.unwrap();
    assert_eq!(
        (source.name.as_str(), source.key.as_str()),
        ("shop-a-postgres", "password")
    );
    for deployment in &resources.deployments {
        let text = serde_json::to_string(deployment).unwrap();
        assert!(!text.contains("superuser"), "{:?}", deployment.metadata.name);
        let name = deployment.metadata.name.as_deref().unwrap();
        for database in ["shop-a-postgres", "shop-b-postgres", "shop-c-postgres"] {
            let is_own = database.starts_with(name) && name != "shop";
            assert_eq!(
                text.contains(&format!(r#""name":"{database}""#)),
                is_own,
                "{name} and {database}"
            );
        }
    }
}

#[test]
fn the_major_of_a_volume_is_chosen_once() {
    let image = |resources: &Resources<Prepared>| container(resources, "shop-a-postgres").image.unwrap();
    let recorded = |resources: &Resources<Prepared>| {
        let claim = &resources.persistent_volume_claims[0];
        claim.metadata.annotations.as_ref().unwrap()["servicechain.dev/postgres-major"].clone()
    };
    let by_default = built(&shop());
    assert_eq!(
        (image(&by_default).as_str(), recorded(&by_default).as_str()),
        ("postgres:17", "17")
    );
    let asked = shop_with(&[("/spec/services/0/database", json!({"managed": {"version": "18"}}))]);
    assert_eq!(image(&built(&asked)), "postgres:18");
    let before = Before {
        majors: [("a".to_owned(), "15".to_owned())].into(),
        ..Before::default()
    };
    let kept = built_after(&asked, &before);
    assert_eq!(
        (image(&kept).as_str(), recorded(&kept).as_str()),
        ("postgres:15", "15")
    );
}

#[test]
fn a_major_without_an_image_is_refused_with_the_majors_there_are() {
    let chain = shop_with(&[("/spec/services/1/database", json!({"managed": {"version": "12"}}))]);
    let told = build::mistakes(&chain, &settings(), &BTreeMap::default());
    let told: Vec<_> = told.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with("spec.services[1].database.managed.version: "),
        "{}",
        told[0]
    );
    assert!(
        told[0].contains("no image of PostgreSQL 12; it has 15, 17, 18"),
        "{}",
        told[0]
    );
    assert!(build::mistakes(&shop(), &settings(), &BTreeMap::default()).is_empty());
}

#[test]
fn the_database_lies_in_a_folder_of_its_volume_where_its_image_expects_it() {
    for (major, mount, data) in [
        (
            "15",
            "/var/lib/postgresql/data",
            "/var/lib/postgresql/data/pgdata",
        ),
        (
            "17",
            "/var/lib/postgresql/data",
            "/var/lib/postgresql/data/pgdata",
        ),
        ("18", "/var/lib/postgresql", "/var/lib/postgresql/18/docker"),
    ] {
        let chain = shop_with(&[(
            "/spec/services/0/database",
            json!({"managed": {"version": major}}),
        )]);
        let postgres = container(&built(&chain), "shop-a-postgres");
        assert_eq!(variable(&postgres, "PGDATA").unwrap().value.unwrap(), data);
        let mounts = postgres.volume_mounts.unwrap();
        assert_eq!(
            mounts
                .iter()
                .find(|mount| mount.name == "data")
                .unwrap()
                .mount_path,
            mount
        );
    }
}

#[test]
fn a_claim_is_as_large_as_asked_and_outlives_the_chain_unless_told_otherwise() {
    let storage =
        json!({"managed": {"storage": {"size": "2048Mi", "className": "fast"}, "deletionPolicy": "Delete"}});
    let resources = built(&shop_with(&[("/spec/services/0/database", storage)]));
    let claims = serde_json::to_value(&resources.persistent_volume_claims).unwrap();
    assert_eq!(claims[0]["spec"]["resources"]["requests"]["storage"], "2Gi");
    assert_eq!(claims[0]["spec"]["storageClassName"], "fast");
    assert_eq!(
        claims[1]["spec"]["storageClassName"],
        json!(null),
        "the cluster's own"
    );
    let owned = |object: &serde_json::Value| object["metadata"]["ownerReferences"].is_array();
    assert_eq!((owned(&claims[0]), owned(&claims[1])), (true, false));
    let set = resources.stateful_sets[0].spec.clone().unwrap();
    assert_eq!(
        (set.replicas, set.pod_management_policy.as_deref()),
        (Some(1), Some("Parallel"))
    );
    assert!(
        set.volume_claim_templates.is_none(),
        "claims are objects of their own"
    );
}

#[test]
fn what_opens_a_volume_goes_with_it() {
    let policy = |policy| {
        shop_with(&[(
            "/spec/services/0/database",
            json!({"managed": {"deletionPolicy": policy}}),
        )])
    };
    let owner = |policy_now, is_owned| {
        let store_secrets = [("shop-a-postgres".to_owned(), is_owned)].into();
        let resources = built_after(
            &policy(policy_now),
            &Before {
                store_secrets,
                ..Before::default()
            },
        );
        let written = resources
            .secrets
            .iter()
            .find(|found| found.metadata.name.as_deref() == Some("shop-a-postgres"))?;
        assert!(written.data.is_none(), "the password stays as it is");
        Some(written.metadata.owner_references.is_some())
    };
    assert_eq!(owner("Delete", false), Some(true));
    assert_eq!(owner("Delete", true), None, "nothing to write");
    assert_eq!(owner("Retain", true), Some(false));
    assert_eq!(owner("Retain", false), None, "nothing to write");
    let made = built(&policy("Delete")).created_once;
    assert!(
        made[1].metadata.owner_references.is_none(),
        "whoever creates it could not take the owner off again"
    );
}

#[test]
fn parameters_reach_the_server_in_one_order() {
    let parameters = json!({"managed": {"parameters": {"work_mem": "8MB", "max_connections": "50"}}});
    let chain = shop_with(&[("/spec/services/0/database", parameters)]);
    let postgres = container(&built(&chain), "shop-a-postgres");
    assert_eq!(
        postgres.args.unwrap(),
        ["-c", "max_connections=50", "-c", "work_mem=8MB"]
    );
    assert!(container(&built(&shop()), "shop-a-postgres").args.is_none());
}

#[test]
fn a_cache_keeps_nothing_and_has_room_above_what_it_may_hold() {
    let limit = |chain| {
        let resources = container(&built(&chain), "shop-a-redis").resources.unwrap();
        resources.limits.unwrap()["memory"].0.clone()
    };
    let cache = |managed| ("/spec/services/0/cache", json!({"managed": managed}));
    assert_eq!(limit(shop()), "128Mi");
    assert_eq!(limit(shop_with(&[cache(json!({"maxMemory": "1Gi"}))])), "1568Mi");
    let tight = json!({"maxMemory": "64Mi", "pod": {"resources": {"limits": {"memory": "64Mi"}}}});
    assert_eq!(
        limit(shop_with(&[cache(tight)])),
        "128Mi",
        "it would be killed when it is full"
    );
    let roomy = json!({"maxMemory": "64Mi", "pod": {"resources": {"limits": {"memory": "2048Mi"}}}});
    assert_eq!(limit(shop_with(&[cache(roomy)])), "2Gi");
    let asks_only = json!({"maxMemory": "64Mi", "pod": {"resources": {"requests": {"memory": "200Mi"}}}});
    assert_eq!(
        limit(shop_with(&[cache(asks_only)])),
        "200Mi",
        "a limit is never below what is asked for"
    );

    let config = secret(&built(&shop()).secrets, "shop-a-redis").unwrap();
    let (config, url) = (&config[0].1, &config[1].1);
    for line in [
        "maxmemory 67108864",
        "maxmemory-policy allkeys-lru",
        "save \"\"",
        "appendonly no",
    ] {
        assert!(config.lines().any(|found| found == line), "{line}\n{config}");
    }
    let password = config
        .lines()
        .find_map(|line| line.strip_prefix("requirepass "))
        .unwrap();
    assert_eq!(
        *url,
        format!("redis://:{password}@shop-a-redis.shop.svc.cluster.local.:6379/0")
    );
}

#[test]
fn each_password_is_another_one() {
    let resources = built(&shop());
    let mut opened: Vec<_> = ["a", "b", "c"]
        .map(|service| {
            secret(&resources.secrets, &format!("shop-{service}-redis")).unwrap()[1]
                .1
                .clone()
        })
        .map(|url| url.split('@').next().unwrap().to_owned())
        .into();
    opened.extend(resources.secrets.iter().filter_map(|found| {
        let name = found.metadata.name.as_deref().unwrap();
        name.ends_with("-ack")
            .then(|| secret(&resources.secrets, name).unwrap()[0].1.clone())
    }));
    let all = opened.len();
    opened.sort();
    opened.dedup();
    assert_eq!((opened.len(), all), (8, 8));
}

#[test]
fn no_password_is_in_a_config_map_a_template_or_a_debug() {
    let resources = built(&shop());
    let mut secrets: Vec<String> = Vec::new();
    for found in resources.secrets.iter().chain(&resources.created_once) {
        let name = found.metadata.name.as_deref().unwrap();
        for (key, text) in secret(&resources.secrets, name)
            .or_else(|| secret(&resources.created_once, name))
            .unwrap()
        {
            match key.as_str() {
                "issuer.yaml" | "redis.conf" | "clientID" => {}
                "url" => secrets.push(text.split(['@', ':']).nth(2).unwrap().to_owned()),
                _ => secrets.push(text),
            }
        }
    }
    assert_eq!(
        secrets.len(),
        5 + 3 + 6 + 1,
        "ack keys, caches, databases, a client"
    );
    let debug = format!("{resources:?}");
    assert!(debug.contains("Secret shop-a-redis"), "{debug}");
    for (kind, name, object) in objects(resources) {
        let text = object.to_string();
        for secret in &secrets {
            assert!(
                kind == "Secret" || !text.contains(secret),
                "{kind} {name} holds a secret"
            );
            assert!(!debug.contains(secret));
        }
    }
}

#[test]
fn an_issuer_knows_each_client_whose_secret_is_there_or_is_being_made() {
    let clients = json!({"clients": [
        {"id": "made"}, {"id": "given", "secretRef": {"name": "of-given"}},
        {"id": "missing", "secretRef": {"name": "of-missing"}}, {"id": "other", "secretRef": {"name": "of-other"}},
    ]});
    let chain = shop_with(&[("/spec/issuers/0/managed", clients)]);
    let mut before = Before {
        client_secrets: [
            ("of-given".to_owned(), found_client("given")),
            ("of-other".to_owned(), found_client("somebody")),
        ]
        .into(),
        ..Before::default()
    };
    let file = |resources: &Resources<Prepared>| {
        secret(&resources.secrets, "shop-issuer-platform-config").unwrap()[0]
            .1
            .clone()
    };
    let first = built_after(&chain, &before);
    let config = servicechain_token_issuer::Config::from_yaml(&file(&first)).unwrap();
    let text = format!("{:?}", config.clients);
    for (id, known) in [
        ("made", true),
        ("given", true),
        ("missing", false),
        ("other", false),
    ] {
        assert_eq!(text.contains(&format!("id: {id:?}")), known, "{id}: {text}");
    }

    // Once the Secret is there, nothing changes: a pod is not restarted for what it knows already.
    let made = secret(&first.created_once, "shop-client-platform-made").unwrap();
    assert!(config.clients.authenticate(&made[0].1, &made[1].1).is_some());
    let digest: serde_json::Value = serde_json::from_str(&file(&first)).unwrap();
    let mut found = found_client("made");
    found.sha256 = digest["clients"][0]["secretSha256"].as_str().unwrap().to_owned();
    before
        .client_secrets
        .insert("shop-client-platform-made".to_owned(), found);
    let second = built_after(&chain, &before);
    assert_eq!(file(&second), file(&first));
    assert!(!created(&second).contains(&"shop-client-platform-made"));
    let digest = |resources| config_digest(resources, "shop-issuer-platform");
    assert_eq!(digest(&second), digest(&first));
    before
        .client_secrets
        .insert("of-missing".to_owned(), found_client("missing"));
    assert_ne!(
        digest(&built_after(&chain, &before)),
        digest(&first),
        "a new client is a rollout"
    );
}

#[test]
fn stores_run_as_the_official_images_do() {
    let resources = built(&shop());
    for name in ["shop-a-postgres", "shop-a-redis"] {
        let security = pod(&resources, name).security_context.unwrap();
        assert_eq!(
            (security.run_as_user, security.run_as_group, security.fs_group),
            (Some(999), Some(999), Some(999))
        );
    }
    assert_eq!(
        container(&resources, "shop-a-redis").args.unwrap(),
        ["redis-server", "/etc/redis/redis.conf"]
    );
}
