//! What users are told: every mistake at once, each with its path and what would be right.
#![cfg(test)]

use std::time::Duration;

use serde_json::{Value, json};
use servicechain_crds::service_chain::issuers::VerificationAlgorithm;
use servicechain_crds::validated::IssuerKind;
use servicechain_crds::{ValidatedChain, read};

fn shop() -> Value {
    json!({
        "apiVersion": "servicechain.dev/v1alpha1",
        "kind": "ServiceChain",
        "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {
            "audiences": ["shop"],
            "issuers": [{"name": "platform", "managed": {"clients": [{"id": "demo"}]}}],
            "gateway": {"routes": [{"name": "items", "service": "a"}]},
            "services": [
                {"name": "a", "database": {"managed": {}}},
                {"name": "b", "database": {"managed": {}}},
                {"name": "c", "database": {"managed": {}}},
            ],
        },
    })
}

/// The shop with each value at its pointer.
fn with(changes: &[(&str, Value)]) -> Value {
    let mut shop = shop();
    for (pointer, value) in changes {
        let (holder, field) = pointer.rsplit_once('/').unwrap();
        match shop.pointer_mut(holder).unwrap() {
            Value::Array(items) => {
                let index: usize = field.parse().unwrap();
                // One past the end is one more.
                items.splice(index..items.len().min(index + 1), [value.clone()]);
            }
            holder => holder[field] = value.clone(),
        }
    }
    shop
}

fn told(chain: &Value) -> Vec<String> {
    match read(&chain.to_string()) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
    }
}

fn accepted(chain: &Value) -> ValidatedChain {
    read(&chain.to_string()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

#[track_caller]
fn assert_told(changes: &[(&str, Value)], expected: &[&str]) {
    assert_eq!(told(&with(changes)), expected);
}

#[test]
fn what_would_collide_in_a_pod_or_a_service_is_refused() {
    assert_told(
        &[
            ("/spec/services/0/port", json!(9091)),
            (
                "/spec/services/1/env",
                json!([{"name": "ISSUER_KEYS_URLS", "value": "x"}]),
            ),
            (
                "/spec/podDefaults",
                json!({"labels": {"servicechain.dev/chain": "other"}}),
            ),
            (
                "/spec/gateway/service",
                json!({"loadBalancerClass": "example.com/lb"}),
            ),
            (
                "/spec/observability",
                json!({"otlpEndpoint": "https://collector:4318"}),
            ),
        ],
        &[
            "spec.podDefaults.labels: \"servicechain.dev/chain\" is reserved: names that start with servicechain.dev/ are \
             the operator's; take another one",
            "spec.observability.otlpEndpoint: NotSupportedYet: sending traces over TLS cannot be done by this version; \
             use an http:// endpoint, such as a collector in the cluster",
            "spec.gateway.service.loadBalancerClass: loadBalancerClass may be given only with the type LoadBalancer",
            "spec.services[0].port: port must not be 9090 or 9091, where every pod has its health and its keys",
            "spec.services[1].env[0].name: \"ISSUER_KEYS_URLS\" is taken: env must not name a variable that the \
             operator sets, such as PORT, DATABASE_URL or LOG_LEVEL",
        ],
    );
}

#[test]
fn the_example_of_the_readme_is_accepted() {
    let chain = read(include_str!("../../examples/shop.yaml")).unwrap();
    let path: Vec<&str> = chain
        .path_from("a")
        .map(|service| service.name.as_str())
        .collect();
    assert_eq!(path, ["a", "b", "c"]);
    assert_eq!(chain.issuers[0].url, "http://shop-issuer-platform.shop.svc");
}

#[test]
fn several_mistakes_are_told_at_once_each_with_what_would_be_right() {
    assert_told(
        &[
            ("/spec/services/1/name", json!("Gateway")),
            ("/spec/issuers/0/managed/rotationPeriod", json!("10m")),
            ("/spec/gateway/replica", json!(3)),
        ],
        &[
            "spec.gateway.replica: there is no such field; did you mean \"replicas\"?",
            "spec.services[1].name: \"Gateway\" is reserved and must be a lower-case DNS label of at most 15 \
             characters; try \"b\"",
            "spec.issuers[0].managed.rotationPeriod: rotationPeriod must be at least twice tokenLifetime: 10m is \
             shorter than twice 15m; use 30m or more",
        ],
    );
}

#[test]
fn a_wrong_value_hides_no_other_mistake() {
    assert_told(
        &[
            ("/spec/gateway/replicas", json!("two")),
            (
                "/spec/gateway/service",
                json!({"type": "nodeport", "nodePort": "30080"}),
            ),
            ("/spec/gateway/routes/0/service", json!("z")),
        ],
        &[
            "spec.gateway.replicas: must be a whole number",
            "spec.gateway.service.nodePort: must be a whole number",
            "spec.gateway.service.type: \"nodeport\" must be one of ClusterIP, NodePort, LoadBalancer; did you \
             mean \"NodePort\"?",
            "spec.gateway.routes[0].service: there is no service \"z\"; there are a, b, c",
        ],
    );
}

#[test]
fn unknown_fields_are_named_with_what_was_meant() {
    assert_told(
        &[("/spec/issuers/0", json!({"name": "platform", "manged": {}}))],
        &["spec.issuers[0].manged: there is no such field; did you mean \"managed\"?"],
    );
    assert_told(
        &[("/spec/services/0/cacheTtl", json!("1m"))],
        &["spec.services[0].cacheTtl: there is no such field; did you mean \"cacheTTL\"?"],
    );
}

#[test]
fn missing_fields_are_named_with_what_they_are_for() {
    let mut chain = shop();
    chain["spec"].as_object_mut().unwrap().remove("audiences");
    assert_eq!(
        told(&chain),
        [
            "spec.audiences: is required. What a token's `aud` must name: any one of these is enough, unless an \
             issuer or a service narrows the list for itself."
        ]
    );
}

#[test]
fn bounds_are_told_with_the_value() {
    assert_told(
        &[
            (
                "/spec/tokenPolicy",
                json!({"clockSkew": "10m", "maxTokenBytes": 10, "minimumRemaining": "soon"}),
            ),
            (
                "/spec/gateway/limits",
                json!({"requestBytes": "2Gi", "headerBytes": "many"}),
            ),
            ("/spec/audiences", json!([])),
            ("/spec/gateway/trustedProxies", json!(["10.0.0.0/33"])),
        ],
        &[
            "spec.audiences: must have at least 1 item",
            "spec.gateway.limits.headerBytes: \"many\" is not a quantity of bytes like 64Mi or 1Gi",
            "spec.tokenPolicy.clockSkew: 10m must be between 0s and 5m",
            "spec.tokenPolicy.maxTokenBytes: 10 must be between 1024 and 65536",
            "spec.tokenPolicy.minimumRemaining: \"soon\" is not a duration like 30s, 15m, 1h30m or 500ms",
            "spec.gateway.trustedProxies[0]: \"10.0.0.0/33\" is none: trustedProxies must be address ranges, as in \
             \"10.0.0.0/8\" or \"fd00::/8\"",
            "spec.gateway.limits.requestBytes: requestBytes must be between 1 and 1Gi, not 2Gi",
        ],
    );
}

#[test]
fn exactly_one_kind_of_issuer_and_target_of_a_route() {
    assert_told(
        &[
            ("/spec/issuers/0/managed", json!({})),
            (
                "/spec/issuers/0/external",
                json!({"url": "https://idp.example.com"}),
            ),
            ("/spec/gateway/routes/0/issuer", json!("platform")),
        ],
        &[
            "spec.issuers[0]: exactly one of managed, external and static must be given; try `managed: {}`",
            "spec.gateway.routes[0]: exactly one of service and issuer must be given; try `service: a`",
        ],
    );
}

#[test]
fn issuers_of_others_have_keys_that_are_fetched_or_given() {
    let chain = with(&[
        (
            "/spec/issuers/1",
            json!({"name": "corp", "external": {
                "url": "https://idp.example.com/realms/corp",
                "algorithms": ["PS256"],
                "caBundle": {"configMapKeyRef": {"name": "corp-ca", "key": "ca.crt"}},
            }}),
        ),
        (
            "/spec/issuers/2",
            json!({"name": "partner", "static": {
                "url": "https://p.example.com",
                "jwks": {"configMapKeyRef": {"name": "partner-jwks", "key": "jwks.json"}},
            }}),
        ),
    ]);
    let chain = read(&chain.to_string()).unwrap();
    let [_, corp, partner] = chain.issuers.as_slice() else {
        panic!("{:?}", chain.issuers);
    };
    let IssuerKind::External(external) = &corp.kind else {
        panic!("{corp:?}");
    };
    assert_eq!(corp.url, "https://idp.example.com/realms/corp");
    assert_eq!(corp.token_types, ["at+jwt", "JWT"]);
    assert_eq!(external.jwks_uri, None);
    assert_eq!(external.algorithms, [VerificationAlgorithm::PS256]);
    assert_eq!(external.refresh_interval, Duration::from_mins(5));
    assert_eq!(external.ca_bundle.as_ref().unwrap().name, "corp-ca");
    let IssuerKind::Static(given) = &partner.kind else {
        panic!("{partner:?}");
    };
    assert_eq!(
        (given.jwks.name.as_str(), given.jwks.key.as_str()),
        ("partner-jwks", "jwks.json")
    );
    assert_eq!(chain.managed_issuers().count(), 1);
}

#[test]
fn an_external_issuer_signs_with_public_keys_and_answers_at_a_url() {
    let external = |more: Value| {
        let mut spec = json!({"url": "https://idp.example.com"});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        told(&with(&[(
            "/spec/issuers/1",
            json!({"name": "corp", "external": spec}),
        )]))
    };
    for wrong in ["HS256", "none"] {
        let told = external(json!({"algorithms": [wrong]}));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with("spec.issuers[1].external.algorithms[0]"),
            "{told:?}"
        );
    }
    assert_eq!(
        external(json!({"jwksURI": "ftp://idp.example.com/keys", "refreshInterval": "10s"})),
        [
            "spec.issuers[1].external.jwksURI: \"ftp://idp.example.com/keys\" must be a URL that starts with https:// or http://, without #",
            "spec.issuers[1].external.refreshInterval: 10s must be between 30s and 24h",
        ],
    );
    let told = told(&with(&[
        (
            "/spec/issuers/1",
            json!({"name": "corp", "external": {"url": "https://idp.example.com"}}),
        ),
        (
            "/spec/gateway/routes/1",
            json!({"name": "tokens", "issuer": "corp"}),
        ),
    ]));
    assert!(told[0].contains("managed issuer"), "{told:?}");
}

#[test]
fn names_and_urls_are_unique() {
    assert_told(
        &[
            ("/spec/services/2/name", json!("a")),
            (
                "/spec/issuers",
                json!([
                    {"name": "one", "managed": {"url": "http://issuer"}},
                    {"name": "two", "managed": {"url": "http://issuer"}},
                ]),
            ),
        ],
        &[
            "spec.services[2].name: \"a\" is taken by an item before it; every name must be unique",
            "spec.issuers[1]: no two issuers may have the same url, since a token names its issuer by it \
             (\"http://issuer\")",
            "spec.services[0].next: next must not lead back to a service before it, but a calls b calls a; end it \
             with `next: []`",
        ],
    );
}

#[test]
fn every_workload_has_its_own_name() {
    assert_told(
        &[("/spec/issuers/0/name", json!("b"))],
        &[
            "spec.issuers[0].name: \"b\" is taken: no issuer may have the name of a service, or gateway, since each \
             workload of a chain has its own name",
        ],
    );
}

#[test]
fn no_two_clients_share_a_secret_that_is_made_for_them() {
    let issuers = |id: &str| {
        json!([
            {"name": "corp", "managed": {"clients": [{"id": id}]}},
            {"name": "corp-eu", "managed": {"clients": [{"id": "demo"}]}},
        ])
    };
    assert_told(
        &[("/spec/issuers", issuers("eu-demo"))],
        &[
            "spec.issuers: client \"demo\" of issuer \"corp-eu\" and client \"eu-demo\" of issuer \"corp\" would share \
             the Secret \"shop-client-corp-eu-demo\"; give one of them a secretRef, or another name",
        ],
    );
    assert_told(&[("/spec/issuers", issuers("demo"))], &[]);
}

#[test]
fn next_leads_to_another_service_and_never_back() {
    assert_told(
        &[("/spec/services/0/next", json!(["d"]))],
        &[
            "spec.services[0].next[0]: next must name another service of spec.services; \"d\" is not one: there \
             are b, c, or [] for none",
        ],
    );
    assert_told(
        &[("/spec/services/2/next", json!(["b"]))],
        &[
            "spec.services[1].next: next must not lead back to a service before it, but b calls c calls b; end it \
             with `next: []`",
        ],
    );
    assert_told(
        &[("/spec/services/0/next", json!(["a"]))],
        &[
            "spec.services[0].next[0]: next must name another service of spec.services; \"a\" is not one: there \
             are b, c, or [] for none",
        ],
    );
}

#[test]
fn the_order_of_services_is_the_default_of_next_and_next_overrides_it() {
    let chain = accepted(&with(&[
        ("/spec/services/0/next", json!(["c"])),
        ("/spec/services/1/next", json!([])),
        ("/spec/services/2/next", json!(["b"])),
    ]));
    let path: Vec<&str> = chain
        .path_from("a")
        .map(|service| service.name.as_str())
        .collect();
    assert_eq!(path, ["a", "c", "b"]);
}

#[test]
fn a_narrowing_list_only_narrows() {
    assert_told(
        &[("/spec/services/1/audiences", json!(["shopp"]))],
        &[
            "spec.services[1].audiences[0]: \"shopp\" is not one: audiences must be some of spec.audiences, which they \
             narrow; did you mean \"shop\"?",
        ],
    );
}

#[test]
fn a_route_of_an_issuer_asks_for_no_token_and_keeps_its_paths() {
    assert_told(
        &[(
            "/spec/gateway/routes",
            json!([
                {"name": "items", "service": "a"},
                {"name": "tokens", "issuer": "platform", "authentication": "Required", "pathPrefix": "/tokens"},
            ]),
        )],
        &[
            "spec.gateway.routes[1].pathPrefix: pathPrefix must be / for an issuer, whose paths /oauth2, /jwks.json and \
             /.well-known are not rewritten",
            "spec.gateway.routes[1].authentication: authentication must be None for an issuer, since nobody has a token before \
             the issuer gives one",
        ],
    );
}

#[test]
fn a_route_that_looks_at_no_token_asks_nothing_of_it() {
    assert_told(
        &[(
            "/spec/gateway/routes",
            json!([
                {"name": "one", "service": "a", "pathPrefix": "/1", "authentication": "Optional", "scopes": ["x"]},
                {"name": "two", "service": "a", "pathPrefix": "/2", "authentication": "None", "issuers": ["platform"]},
            ]),
        )],
        &[
            "spec.gateway.routes[0].scopes: scopes need the authentication Required, or a request without a token \
             would pass them",
            "spec.gateway.routes[1].issuers: issuers need the authentication Required or Optional, since None \
             looks at no token",
        ],
    );
}

#[test]
fn path_prefixes_have_one_way_to_be_written() {
    for good in ["/", "/items", "/items/", "/a.b/~c_d-1", "/.well-known"] {
        let chain = with(&[("/spec/gateway/routes/0/pathPrefix", json!(good))]);
        assert!(told(&chain).is_empty(), "{good}");
    }
    for bad in [
        "items", "//", "/a//b", "/a/..", "/./a", "/%61", "/a?b", "/@x", "/a b",
    ] {
        let told = told(&with(&[("/spec/gateway/routes/0/pathPrefix", json!(bad))]));
        assert_eq!(told.len(), 1, "{bad}: {told:?}");
    }
}

#[test]
fn two_routes_never_answer_for_the_same_paths() {
    assert_told(
        &[(
            "/spec/gateway/routes",
            json!([
                {"name": "one", "service": "a", "pathPrefix": "/items"},
                {"name": "two", "service": "b", "pathPrefix": "/items/"},
            ]),
        )],
        &[
            "spec.gateway.routes[1].pathPrefix: route \"one\" answers for the same host and path; give one another \
             pathPrefix or host",
        ],
    );
}

#[test]
fn what_this_version_cannot_do_is_refused_by_name() {
    assert_each_unsupported(&[
        (
            "/spec/gateway/autoscaling",
            json!({"maxReplicas": 3}),
            "spec.gateway.autoscaling",
        ),
        (
            "/spec/gateway/ingress",
            json!({"hosts": ["a.example.com"]}),
            "spec.gateway.ingress",
        ),
        (
            "/spec/gateway/httpRoute",
            json!({"parentRefs": [{"name": "public"}]}),
            "spec.gateway.httpRoute",
        ),
        (
            "/spec/gateway/tls",
            json!({"secretName": "tls"}),
            "spec.gateway.tls",
        ),
        (
            "/spec/gateway/routes/0/rateLimit",
            json!({"requestsPerSecond": 1}),
            "spec.gateway.routes[0].rateLimit",
        ),
        (
            "/spec/issuers/0/managed/database",
            json!({"managed": {}}),
            "spec.issuers[0].managed.database",
        ),
    ]);
}

#[test]
fn what_this_version_cannot_do_for_a_service_is_refused_by_name() {
    assert_each_unsupported(&[
        (
            "/spec/services/0/autoscaling",
            json!({"maxReplicas": 3}),
            "spec.services[0].autoscaling",
        ),
        (
            "/spec/networkPolicy",
            json!({"mode": "Strict"}),
            "spec.networkPolicy.mode",
        ),
        (
            "/spec/networkPolicy",
            json!({"egress": [{}]}),
            "spec.networkPolicy.egress",
        ),
        (
            "/spec/podDefaults",
            json!({"template": {}}),
            "spec.podDefaults.template",
        ),
        (
            "/spec/services/0/database/managed",
            json!({"pod": {"template": {"spec": {}}}}),
            "spec.services[0].database.managed.pod.template",
        ),
        (
            "/spec/services/0/image",
            json!("registry.example.com/a:1"),
            "spec.services[0].image",
        ),
        (
            "/spec/services/0/verification",
            json!("Sidecar"),
            "spec.services[0].verification",
        ),
        (
            "/spec/services/0/command",
            json!(["a"]),
            "spec.services[0].command",
        ),
        ("/spec/services/0/args", json!(["a"]), "spec.services[0].args"),
        (
            "/spec/services/0/database",
            json!({"external": {"secretName": "db"}}),
            "spec.services[0].database.external",
        ),
        (
            "/spec/services/0/database",
            json!({"cloudNativePG": {"clusterName": "db"}}),
            "spec.services[0].database.cloudNativePG",
        ),
        (
            "/spec/services/0/cache",
            json!({"external": {"secretName": "r"}}),
            "spec.services[0].cache.external",
        ),
    ]);
}

#[track_caller]
fn assert_each_unsupported(unsupported: &[(&str, Value, &str)]) {
    for (pointer, value, path) in unsupported {
        let told = told(&with(&[(*pointer, value.clone())]));
        assert_eq!(told.len(), 1, "{pointer}: {told:?}");
        assert!(
            told[0].starts_with(&format!("{path}: NotSupportedYet: ")),
            "{}",
            told[0]
        );
    }
}

#[test]
fn what_the_issuer_cannot_express_is_refused() {
    assert_told(
        &[(
            "/spec/issuers/0/managed",
            json!({"url": "https://shop.example.com/issuer", "tokenLifetime": "90s500ms"}),
        )],
        &[
            "spec.issuers[0].managed.url: \"https://shop.example.com/issuer\" must be http:// or https:// and a host \
             alone, as in \"https://shop.example.com\"",
            "spec.issuers[0].managed.tokenLifetime: 90s500ms must be whole seconds, without ms",
        ],
    );
}

#[test]
fn a_refresh_token_is_refused_with_the_database_it_needs() {
    let told = told(&with(&[(
        "/spec/issuers/0/managed/clients/0/grants",
        json!(["RefreshToken"]),
    )]));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].starts_with("spec.issuers[0].managed.database: is missing: a client with the grant"),
        "{told:?}"
    );
    assert!(told[1].contains("NotSupportedYet"), "{told:?}");
}

#[test]
fn pod_defaults_are_merged_under_a_components_own_settings() {
    let chain = accepted(&with(&[
        (
            "/spec/podDefaults",
            json!({"labels": {"team": "shop", "tier": "x"}, "drainDelay": "7s"}),
        ),
        (
            "/spec/gateway/pod",
            json!({"labels": {"tier": "edge"}, "terminationGracePeriodSeconds": 60}),
        ),
    ]));
    let pod = &chain.gateway.pod;
    assert_eq!(
        pod.labels
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect::<Vec<_>>(),
        ["team=shop", "tier=edge"]
    );
    assert_eq!(pod.termination_grace_period_seconds, Some(60));
    assert_eq!(
        pod.drain_delay
            .as_ref()
            .map(servicechain_crds::duration::GatewayDuration::as_str),
        Some("7s")
    );
    assert_eq!(chain.services[0].pod.termination_grace_period_seconds, Some(30));
}

#[test]
fn a_pod_that_drains_longer_than_it_lives_is_refused() {
    assert_told(
        &[("/spec/services/0/pod", json!({"drainDelay": "30s"}))],
        &[
            "spec.services[0].pod.drainDelay: must be shorter than terminationGracePeriodSeconds (30), or the pod \
             is killed while it drains",
        ],
    );
}

#[test]
fn names_of_chains_are_short_labels() {
    for name in ["Shop", "", "a-very-long-name-for-it", "shop-"] {
        let told = told(&with(&[("/metadata/name", json!(name))]));
        assert_eq!(told.len(), 1, "{name}: {told:?}");
        assert!(told[0].starts_with("metadata.name: "), "{told:?}");
    }
}

#[test]
fn a_file_may_hold_other_objects_beside_the_chain() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n---\n";
    assert!(read(&format!("{secret}{}", shop())).is_ok());
    let two = format!("{}\n---\n{}", shop(), shop());
    assert_eq!(
        read(&two).unwrap_err().to_string(),
        "  there are 2 ServiceChains in it; give each a file"
    );
    assert_eq!(
        read(secret).unwrap_err().to_string(),
        "  there is no ServiceChain in it, only Secret; it must say `apiVersion: servicechain.dev/v1alpha1` and \
         `kind: ServiceChain`"
    );
}

#[test]
fn what_is_no_yaml_is_told_with_its_place() {
    let told = read("kind: ServiceChain\nspec: {audiences: [shop]\n")
        .unwrap_err()
        .to_string();
    assert!(
        told.starts_with("  line ") && told.matches("line ").count() == 1,
        "{told}"
    );
    let twice = read("kind: ServiceChain\nspec: {}\nspec: {}\n")
        .unwrap_err()
        .to_string();
    assert!(
        twice.starts_with("  line 3, column 1: ") && twice.contains("spec"),
        "{twice}"
    );
}

#[test]
fn nothing_in_a_document_makes_reading_panic() {
    for odd in [
        "",
        "---",
        "[]",
        "a",
        "kind: ServiceChain",
        "kind: [ServiceChain]",
        "{kind: ServiceChain, apiVersion: servicechain.dev/v1alpha1, spec: []}",
        "{kind: ServiceChain, apiVersion: servicechain.dev/v1alpha1, metadata: x, spec: {services: [[]], issuers: [null], gateway: 1}}",
        "{kind: ServiceChain, apiVersion: servicechain.dev/v1alpha1, metadata: {name: a}, spec: {services: null, audiences: {a: b}}}",
        "a: &a [*a]",
    ] {
        assert!(read(odd).is_err(), "{odd}");
    }
}
