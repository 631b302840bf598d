//! Pods: what Pod Security "restricted" asks for, what users say of them, what their processes are told.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};
use servicechain_crds::rules::VARIABLES;

use crate::workshop::{
    built, config_digest, container, objects, pod, settings, shop, shop_with, templates, value,
};

#[test]
fn every_pod_satisfies_restricted_and_has_no_token() {
    let resources = built(&shop());
    let templates = templates(&resources);
    assert_eq!(templates.len(), 11);
    for (name, template) in templates {
        let pod = serde_json::to_value(template.spec.unwrap()).unwrap();
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        assert_eq!(pod["enableServiceLinks"], false, "{name}");
        for field in [
            "hostNetwork",
            "hostPID",
            "hostIPC",
            "hostUsers",
            "initContainers",
            "ephemeralContainers",
        ] {
            assert_eq!(pod[field], Value::Null, "{name}: {field}");
        }
        let security = &pod["securityContext"];
        assert_eq!(security["runAsNonRoot"], true, "{name}");
        assert!(security["runAsUser"].as_i64().unwrap() > 0, "{name}");
        assert_eq!(
            security["seccompProfile"],
            json!({"type": "RuntimeDefault"}),
            "{name}"
        );
        for field in ["sysctls", "seLinuxOptions", "appArmorProfile", "windowsOptions"] {
            assert_eq!(security[field], Value::Null, "{name}: {field}");
        }
        let allowed = ["configMap", "emptyDir", "persistentVolumeClaim", "secret"];
        for volume in pod["volumes"].as_array().unwrap() {
            let kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
            assert!(
                kinds.clone().all(|kind| allowed.contains(&kind.as_str())),
                "{name}: {volume}"
            );
        }
        for container in pod["containers"].as_array().unwrap() {
            assert_eq!(
                container["securityContext"],
                json!({
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": true,
                }),
                "{name}"
            );
            assert!(
                container["ports"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|port| port["hostPort"].is_null()),
                "{name}"
            );
            assert_eq!(
                container["lifecycle"],
                Value::Null,
                "{name}: draining is the process's own"
            );
            assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                assert!(container[probe].is_object(), "{name}: {probe}");
            }
        }
    }
}

#[test]
fn verifiers_are_asked_on_their_admin_port() {
    let resources = built(&shop());
    for name in ["shop-gateway", "shop-a", "shop-issuer-platform"] {
        let container = serde_json::to_value(container(&resources, name)).unwrap();
        for (probe, path) in [
            ("startupProbe", "/livez"),
            ("livenessProbe", "/livez"),
            ("readinessProbe", "/readyz"),
        ] {
            assert_eq!(
                container[probe]["httpGet"],
                json!({"path": path, "port": "admin", "scheme": "HTTP"}),
                "{name}"
            );
        }
        assert_eq!(container["ports"][1]["containerPort"], 9090);
        assert_eq!(container["ports"][2]["containerPort"], 9091);
    }
}

#[test]
fn every_image_is_from_the_settings() {
    let images = settings().images;
    let known: Vec<_> = images
        .postgres
        .values()
        .chain([
            &images.gateway,
            &images.item_service,
            &images.token_issuer,
            &images.redis,
        ])
        .collect();
    for (name, template) in templates(&built(&shop())) {
        for container in template.spec.unwrap().containers {
            assert!(known.contains(&&container.image.unwrap()), "{name}");
        }
    }
}

#[test]
fn the_example_asks_for_half_a_core_and_one_and_a_half_gibibytes_at_most() {
    let resources = built(&shop());
    let replicas: BTreeMap<String, i32> = resources
        .deployments
        .iter()
        .map(|object| {
            (
                object.metadata.name.clone().unwrap(),
                object.spec.as_ref().unwrap().replicas.unwrap(),
            )
        })
        .collect();
    let (mut cpu, mut memory) = (0, 0);
    for (name, template) in templates(&resources) {
        let count = replicas.get(&name).copied().unwrap_or(1);
        for container in template.spec.unwrap().containers {
            let requests = container.resources.unwrap().requests.unwrap();
            cpu += count * number(&requests["cpu"], "m");
            memory += count * number(&requests["memory"], "Mi");
        }
    }
    assert_eq!((cpu, memory), (380, 944), "thousandths of a core, and MiB");
    assert!(cpu <= 500 && memory <= 1536);
}

fn number(quantity: &Quantity, unit: &str) -> i32 {
    quantity.0.strip_suffix(unit).unwrap().parse().unwrap()
}

#[test]
fn what_users_say_of_pods_reaches_every_pod_they_mean() {
    let defaults = json!({
        "labels": {"team": "shop", "app.kubernetes.io/name": "ours"}, "annotations": {"note": "x"},
        "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}, "limits": {"memory": "2048Mi"}},
        "nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "dedicated", "operator": "Exists", "value": ""}],
        "priorityClassName": "high", "imagePullSecrets": [{"name": "registry"}], "serviceAccountName": "shop",
        "terminationGracePeriodSeconds": 60, "drainDelay": "10s",
        "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}],
    });
    let own = json!({"labels": {"team": "gate"}, "drainDelay": "2s", "priorityClassName": "higher"});
    let resources = built(&shop_with(&[
        ("/spec/podDefaults", defaults),
        ("/spec/gateway/pod", own),
    ]));
    assert!(
        resources.service_accounts.is_empty(),
        "each has the account it was given"
    );
    for (name, template) in templates(&resources) {
        let template = serde_json::to_value(template).unwrap();
        let (metadata, pod) = (&template["metadata"], &template["spec"]);
        let is_gateway = name == "shop-gateway";
        assert_eq!(
            metadata["labels"]["team"],
            if is_gateway { "gate" } else { "shop" },
            "{name}"
        );
        assert_eq!(metadata["labels"]["servicechain.dev/chain"], "shop", "{name}");
        assert_eq!(metadata["annotations"]["note"], "x", "{name}");
        assert_eq!(
            pod["containers"][0]["resources"],
            json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}),
            "{name}"
        );
        assert_eq!(pod["nodeSelector"], json!({"disk": "ssd"}), "{name}");
        assert_eq!(
            pod["tolerations"],
            json!([{"key": "dedicated", "operator": "Exists"}]),
            "{name}"
        );
        assert_eq!(
            pod["priorityClassName"],
            if is_gateway { "higher" } else { "high" },
            "{name}"
        );
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}]), "{name}");
        assert_eq!(pod["serviceAccountName"], "shop", "{name}");
        assert_eq!(pod["terminationGracePeriodSeconds"], 60, "{name}");
        let spread = &pod["topologySpreadConstraints"];
        assert_eq!(spread.as_array().unwrap().len(), 1, "{name}");
        assert_eq!(spread[0]["topologyKey"], "rack", "{name}");
        assert_eq!(
            spread[0]["labelSelector"]["matchLabels"]["servicechain.dev/chain"], "shop",
            "{name}: a constraint without a selector counts no pod"
        );
    }
    for (name, delay, grace) in [("shop-gateway", "2s", "53s"), ("shop-a", "10s", "45s")] {
        let container = container(&resources, name);
        assert_eq!(
            (
                value(&container, "DRAIN_DELAY").as_str(),
                value(&container, "DRAIN_GRACE").as_str()
            ),
            (delay, grace)
        );
    }
}

#[test]
fn pods_are_spread_over_zones_and_hosts_by_default() {
    let spread = pod(&built(&shop()), "shop-a")
        .topology_spread_constraints
        .unwrap();
    let spread = serde_json::to_value(spread).unwrap();
    assert_eq!(spread[0]["topologyKey"], "topology.kubernetes.io/zone");
    assert_eq!(spread[1]["topologyKey"], "kubernetes.io/hostname");
    assert_eq!(spread[1]["whenUnsatisfiable"], "ScheduleAnyway");
    assert_eq!(spread[1]["matchLabelKeys"], json!(["pod-template-hash"]));
}

#[test]
fn a_pod_ends_its_requests_before_it_is_killed() {
    for (seconds, delay, expected_delay, expected_grace) in [
        (30, "5s", "5s", "20s"),
        (6, "5s", "5s", "750ms"),
        (3600, "10m", "10m", "49m55s"),
        (1, "0s", "0s", "750ms"),
    ] {
        let chain = shop_with(&[(
            "/spec/podDefaults",
            json!({"terminationGracePeriodSeconds": seconds, "drainDelay": delay}),
        )]);
        let container = container(&built(&chain), "shop-a");
        assert_eq!(value(&container, "DRAIN_DELAY"), expected_delay);
        assert_eq!(value(&container, "DRAIN_GRACE"), expected_grace);
    }
}

#[test]
fn a_service_has_its_users_variables_and_probes_as_the_api_server_stores_them() {
    let env = json!([
        {"name": "MODE", "value": "fast"},
        {"name": "EMPTY", "value": ""},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
    ]);
    let probes = json!({
        "startup": {},
        "liveness": {"tcpSocket": {"port": "http"}, "periodSeconds": 7},
        "readiness": {"failureThreshold": 9},
    });
    let chain = shop_with(&[
        ("/spec/services/0/env", env),
        (
            "/spec/services/0/envFrom",
            json!([{"configMapRef": {"name": "a-settings"}, "prefix": ""}]),
        ),
        ("/spec/services/0/probes", probes),
    ]);
    let container = serde_json::to_value(container(&built(&chain), "shop-a")).unwrap();
    let env = container["env"].as_array().unwrap();
    assert_eq!(
        env[env.len() - 4..],
        [
            json!({"name": "MODE", "value": "fast"}),
            json!({"name": "EMPTY"}),
            json!({"name": "POD", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}),
            json!({"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "0"}}}),
        ]
    );
    assert_eq!(
        container["envFrom"],
        json!([{"configMapRef": {"name": "a-settings"}}])
    );
    assert_eq!(container["startupProbe"]["httpGet"]["path"], "/livez");
    assert_eq!(container["livenessProbe"]["tcpSocket"], json!({"port": "http"}));
    assert_eq!(container["livenessProbe"]["httpGet"], Value::Null);
    assert_eq!(container["livenessProbe"]["periodSeconds"], 7);
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(container["readinessProbe"]["failureThreshold"], 9);
    assert_eq!(container["readinessProbe"]["successThreshold"], 1);
}

#[test]
fn users_cannot_name_a_variable_that_the_operator_sets() {
    let chain = shop_with(&[(
        "/spec/observability",
        json!({"otlpEndpoint": "http://collector:4318"}),
    )]);
    let container = container(&built(&chain), "shop-a");
    let mut names: Vec<_> = container
        .env
        .unwrap()
        .into_iter()
        .map(|variable| variable.name)
        .collect();
    for name in &names {
        assert!(VARIABLES.contains(&name.as_str()), "{name} could be given twice");
    }
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all, "no variable twice");
}

#[test]
fn a_verifier_is_told_who_it_is_and_whom_it_trusts() {
    let chain = shop_with(&[
        (
            "/spec/keyDistribution",
            json!({"startupWait": "1m", "unconfirmedStart": "Wait", "maxStaleness": "1h30m"}),
        ),
        (
            "/spec/observability",
            json!({"logLevel": "Debug", "accessLog": false, "traceSamplingPercent": 10}),
        ),
    ]);
    let resources = built(&chain);
    for (name, workload) in [
        ("shop-gateway", "gateway"),
        ("shop-b", "b"),
        ("shop-issuer-platform", "platform"),
    ] {
        let container = container(&resources, name);
        for (variable, expected) in [
            ("WORKLOAD", workload),
            ("CHAIN_UID", "c0ffee00-0000-4000-8000-000000000001"),
            (
                "OPERATOR_URL",
                "http://servicechain-operator.servicechain-system.svc:9091",
            ),
            ("ACK_KEY_FILE", "/run/servicechain/ack/ack-key"),
            ("BUNDLE_FILE", "/run/servicechain/bundle/bundle.jws"),
            ("STATE_DIR", "/var/lib/servicechain"),
            ("STARTUP_WAIT", "1m"),
            ("UNCONFIRMED_START", "wait"),
            ("MAX_STALENESS", "1h30m"),
            ("LOG_LEVEL", "debug"),
            ("ACCESS_LOG", "false"),
            ("TRACE_SAMPLING_PERCENT", "10"),
        ] {
            assert_eq!(value(&container, variable), expected, "{name}: {variable}");
        }
        let uid = container
            .env
            .unwrap()
            .into_iter()
            .find(|variable| variable.name == "POD_UID")
            .unwrap();
        assert_eq!(
            uid.value_from.unwrap().field_ref.unwrap().field_path,
            "metadata.uid"
        );
    }
}

#[test]
fn keys_of_an_issuer_stay_in_memory_and_the_bundle_is_mounted_as_a_folder() {
    let volumes = serde_json::to_value(pod(&built(&shop()), "shop-issuer-platform").volumes).unwrap();
    let volume = |name: &str| {
        let volumes = volumes.as_array().unwrap();
        volumes
            .iter()
            .find(|volume| volume["name"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(volume("keys")["emptyDir"]["medium"], "Memory");
    assert_eq!(volume("state")["emptyDir"]["medium"], Value::Null);
    assert_eq!(volume("bundle")["configMap"]["name"], "shop-keys");
    assert_eq!(volume("bundle")["configMap"]["optional"], true);
    for name in ["config", "ack"] {
        assert_eq!(volume(name)["secret"]["defaultMode"], 0o440, "{name}");
    }
    let issuer = container(&built(&shop()), "shop-issuer-platform");
    // A file mounted by itself is never brought up to date.
    assert!(
        issuer
            .volume_mounts
            .unwrap()
            .iter()
            .all(|mount| mount.sub_path.is_none())
    );
}

#[test]
fn a_change_of_configuration_changes_the_template_of_its_pods_only() {
    let before = built(&shop());
    let after = built(&shop_with(&[("/spec/services/1/cacheTTL", json!("30s"))]));
    for (name, changes) in [
        ("shop-gateway", false),
        ("shop-a", false),
        ("shop-b", true),
        ("shop-b-postgres", false),
    ] {
        let same = config_digest(&before, name) == config_digest(&after, name);
        assert_eq!(!same, changes, "{name}");
    }
    let bigger = built(&shop_with(&[(
        "/spec/services/1/cache",
        json!({"managed": {"maxMemory": "128Mi"}}),
    )]));
    assert_ne!(
        config_digest(&before, "shop-b-redis"),
        config_digest(&bigger, "shop-b-redis")
    );
    assert_eq!(config_digest(&before, "shop-b"), config_digest(&bigger, "shop-b"));
}

#[test]
fn what_runs_once_has_no_disruption_budget() {
    let chain = shop_with(&[("/spec/services/1/replicas", json!(1))]);
    let budgets = built(&chain).pod_disruption_budgets;
    let names: Vec<_> = budgets
        .iter()
        .map(|budget| budget.metadata.name.as_deref().unwrap())
        .collect();
    assert_eq!(
        names,
        ["shop-issuer-platform", "shop-a", "shop-c", "shop-gateway"]
    );
}

#[test]
fn a_rollout_takes_no_pod_away_before_its_successor_serves() {
    for (kind, name, object) in objects(built(&shop())) {
        if kind == "Deployment" {
            let strategy = &object["spec"]["strategy"]["rollingUpdate"];
            assert_eq!(strategy["maxUnavailable"], 0, "{name}");
            assert_eq!(object["spec"]["progressDeadlineSeconds"], 600, "{name}");
        }
    }
}
