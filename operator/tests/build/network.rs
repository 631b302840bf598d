//! Who may open which port of whom, and where pods look for each other.

use k8s_openapi::api::core::v1::ServiceSpec;
use serde_json::{Value, json};
use servicechain_operator::controller::resources::{Prepared, Resources};

use crate::workshop::{built, container, shop, shop_with, value};

/// `port from who`, one line for each rule of a component, as a person would say it.
fn rules(resources: &Resources<Prepared>, name: &str) -> Vec<String> {
    let policy = resources
        .network_policies
        .iter()
        .find(|policy| policy.metadata.name.as_deref() == Some(name));
    let spec = policy.unwrap().spec.clone().unwrap();
    assert_eq!(spec.policy_types.unwrap(), ["Ingress"]);
    let rules = spec.ingress.into_iter().flatten().map(|rule| {
        let rule = serde_json::to_value(rule).unwrap();
        assert_eq!(rule["ports"][0]["protocol"], "TCP");
        assert_eq!(rule["ports"].as_array().unwrap().len(), 1);
        let peers = rule["from"]
            .as_array()
            .map(|peers| peers.iter().map(who).collect::<Vec<_>>().join(" or "));
        format!(
            "{} from {}",
            rule["ports"][0]["port"],
            peers.unwrap_or_else(|| "anywhere".to_owned())
        )
    });
    rules.collect()
}

fn who(peer: &Value) -> String {
    let namespace = &peer["namespaceSelector"];
    if let Some(name) = namespace["matchLabels"]["kubernetes.io/metadata.name"].as_str() {
        return format!("namespace {name}");
    }
    if namespace.is_object() {
        return "any namespace".to_owned();
    }
    let pods = &peer["podSelector"];
    assert_eq!(
        pods["matchLabels"]["servicechain.dev/chain"], "shop",
        "pods of another chain"
    );
    match pods["matchLabels"]["servicechain.dev/component"].as_str() {
        Some(component) => component.to_owned(),
        None => pods["matchExpressions"][0]["values"].to_string(),
    }
}

#[test]
fn a_port_is_open_to_who_comes_before_it_and_to_nobody_else() {
    let resources = built(&shop());
    let keys = "9091 from namespace servicechain-system";
    let table = [
        ("shop-gateway", vec!["8080 from anywhere", keys]),
        ("shop-a", vec!["8080 from gateway", keys]),
        ("shop-b", vec!["8080 from a", keys]),
        ("shop-c", vec!["8080 from b", keys]),
        ("shop-a-postgres", vec!["5432 from a"]),
        ("shop-c-redis", vec!["6379 from c"]),
        (
            "shop-issuer-platform",
            vec![
                "8080 from any namespace",
                r#"9091 from namespace servicechain-system or ["issuer-platform","a","b","c","gateway"]"#,
            ],
        ),
    ];
    for (name, expected) in table {
        assert_eq!(rules(&resources, name), expected, "{name}");
    }
    assert_eq!(resources.network_policies.len(), 11);
}

#[test]
fn policies_follow_routes_ports_and_scrapers() {
    let scrapers =
        json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]);
    let chain = shop_with(&[
        ("/spec/networkPolicy", json!({"metricsFrom": scrapers})),
        ("/spec/gateway/routes/0/service", json!("b")),
        ("/spec/services/0/next", json!(["c"])),
        ("/spec/services/2/port", json!(3000)),
    ]);
    let resources = built(&chain);
    let (keys, metrics) = (
        "9091 from namespace servicechain-system",
        "9090 from namespace monitoring",
    );
    // Nobody leads to a, so nobody gets in; b is routed to; c is called by a and by b.
    assert_eq!(rules(&resources, "shop-a"), [keys, metrics]);
    assert_eq!(rules(&resources, "shop-b"), ["8080 from gateway", keys, metrics]);
    assert_eq!(rules(&resources, "shop-c"), ["3000 from a or b", keys, metrics]);
    assert_eq!(rules(&resources, "shop-a-redis"), ["6379 from a"]);
}

#[test]
fn mode_disabled_makes_no_policy() {
    let chain = shop_with(&[("/spec/networkPolicy", json!({"mode": "Disabled"}))]);
    assert!(built(&chain).network_policies.is_empty());
}

#[test]
fn parts_are_asked_for_by_their_whole_names() {
    let resources = built(&shop());
    let a = container(&resources, "shop-a");
    assert_eq!(
        value(&a, "NEXT_HOP_URL"),
        "http://shop-b.shop.svc.cluster.local.:8080"
    );
    assert_eq!(
        value(&a, "DATABASE_URL"),
        "postgres://app:$(DATABASE_PASSWORD)@shop-a-postgres.shop.svc.cluster.local.:5432/app?sslmode=disable"
    );
    assert_eq!(
        value(&a, "ISSUER_KEYS_URLS"),
        "platform=http://shop-issuer-platform.shop.svc.cluster.local.:9091"
    );
    let files = resources
        .config_maps
        .iter()
        .find(|map| map.metadata.name.as_deref() == Some("shop-gateway-config"));
    let file = &files.unwrap().data.as_ref().unwrap()["gateway.yaml"];
    let config = servicechain_gateway::Config::from_yaml(file).unwrap();
    let upstreams: Vec<_> = config
        .routes
        .iter()
        .map(|route| route.upstream.to_string())
        .collect();
    assert_eq!(upstreams[0], "http://shop-a.shop.svc.cluster.local.:8080");
    assert_eq!(
        upstreams[1],
        "http://shop-issuer-platform.shop.svc.cluster.local.:80"
    );
}

fn service(resources: &Resources<Prepared>, name: &str) -> ServiceSpec {
    let service = resources
        .services
        .iter()
        .find(|service| service.metadata.name.as_deref() == Some(name));
    service.unwrap().spec.clone().unwrap()
}

fn ports(service: &ServiceSpec) -> Vec<String> {
    let ports = service.ports.iter().flatten();
    ports
        .map(|port| {
            format!(
                "{} {} -> {}",
                port.name.as_deref().unwrap(),
                port.port,
                json!(port.target_port).as_str().unwrap()
            )
        })
        .collect()
}

#[test]
fn hops_are_found_address_by_address_and_issuers_and_stores_by_one() {
    let resources = built(&shop_with(&[("/spec/services/1/port", json!(3000))]));
    for (name, headless, expected) in [
        ("shop-a", true, vec!["http 8080 -> http"]),
        ("shop-b", true, vec!["http 3000 -> http"]),
        (
            "shop-issuer-platform",
            false,
            vec!["http 80 -> http", "keys 9091 -> keys"],
        ),
        ("shop-a-postgres", false, vec!["postgres 5432 -> postgres"]),
        ("shop-a-redis", false, vec!["redis 6379 -> redis"]),
    ] {
        let service = service(&resources, name);
        assert_eq!(service.cluster_ip.as_deref() == Some("None"), headless, "{name}");
        assert_eq!(ports(&service), expected, "{name}");
        assert_eq!(service.type_.as_deref(), Some("ClusterIP"), "{name}");
    }
    assert_eq!(value(&container(&resources, "shop-b"), "PORT"), "3000");
    let listening = container(&resources, "shop-b").ports.unwrap();
    assert_eq!(
        (listening[0].name.as_deref(), listening[0].container_port),
        (Some("http"), 3000)
    );
}

#[test]
fn the_gateways_service_is_as_it_was_asked_for() {
    let of = |spec: Value| {
        let resources = built(&shop_with(&[("/spec/gateway/service", spec)]));
        let found = resources
            .services
            .iter()
            .find(|service| service.metadata.name.as_deref() == Some("shop-gateway"));
        let found = serde_json::to_value(found.unwrap()).unwrap();
        (found["metadata"]["annotations"].clone(), found["spec"].clone())
    };
    let (annotations, spec) = of(json!({}));
    assert_eq!(annotations, Value::Null);
    assert_eq!(spec["type"], "ClusterIP");
    assert_eq!(
        spec["externalTrafficPolicy"],
        Value::Null,
        "only for what comes from outside"
    );

    let (_, spec) = of(json!({"type": "NodePort", "nodePort": 30080, "port": 8000}));
    assert_eq!(spec["externalTrafficPolicy"], "Cluster");
    assert_eq!(
        (&spec["ports"][0]["port"], &spec["ports"][0]["nodePort"]),
        (&json!(8000), &json!(30080))
    );

    let (annotations, spec) = of(json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "annotations": {"a": "b"}, "loadBalancerClass": "x/y",
    }));
    assert_eq!(annotations, json!({"a": "b"}));
    assert_eq!(
        (&spec["externalTrafficPolicy"], &spec["loadBalancerClass"]),
        (&json!("Local"), &json!("x/y"))
    );
    assert_eq!(spec["ports"][0]["nodePort"], Value::Null, "Kubernetes chooses");
}
