//! What a pass and a round of keys leave behind as traces: on a real API server, with a collector on loopback. In a process
//! of its own, since telemetry is global.
#![cfg(test)]

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::ListParams;
use servicechain_e2e::cluster::{await_seen, fresh_namespace};
use servicechain_e2e::operator::{DEADLINE, Operator, World, chain, create};
use servicechain_fixtures::Collector;
use servicechain_fixtures::collector::Span;
use servicechain_runtime::telemetry::{self, LogFormat, ProcessTelemetryArgs, ResourceAttributes};

/// The first trace of that name with all of these steps, and what is in it.
async fn trace_with(collector: &Collector, name: &str, steps: &[&str]) -> (Span, Vec<Span>) {
    await_seen(&format!("a {name} with {steps:?}"), DEADLINE, async || {
        let traces = collector.traces(name);
        let has = |(_, spans): &&(Span, Vec<Span>)| {
            let is_there = |step: &&str| spans.iter().any(|span| span.name == **step);
            steps.iter().all(is_there)
        };
        let found = traces.iter().find(has).cloned();
        found.ok_or_else(|| format!("{} traces of that name", traces.len()))
    })
    .await
    .unwrap()
}

/// That a step of the trace asked the API server for this.
fn has_asked(spans: &[Span], step: &str, asked: &str) -> bool {
    let steps: BTreeSet<&[u8]> = spans
        .iter()
        .filter(|span| span.name == step)
        .map(|span| span.id.as_slice())
        .collect();
    spans.iter().any(|span| {
        let what = span.attributes.get("servicechain.asked");
        steps.contains(span.parent.as_slice()) && what.is_some_and(|what| what == asked)
    })
}

#[tokio::test]
async fn a_pass_and_a_round_are_one_trace_each_and_name_no_secret_content() {
    let collector = Collector::start().unwrap();
    let args = ProcessTelemetryArgs {
        log_format: LogFormat::Human,
        log_level: "off".to_owned(),
        otlp_endpoint: Some(collector.endpoint().to_owned()),
        trace_sampling_percent: 100.0,
        resource_attributes: ResourceAttributes::default(),
    };
    let _telemetry = telemetry::init_process(&args, "operator").unwrap();
    let world = World::start().await.unwrap();
    let client = world.client().await.unwrap();
    let namespace = fresh_namespace(&client).await.unwrap();
    create(&client, &chain(&namespace, &["a"]).unwrap())
        .await
        .unwrap();
    let operator = Operator::start(world.operator_client("operator").await.unwrap(), &namespace)
        .await
        .unwrap();

    let steps = ["read", "build", "apply", "prune", "status"];
    let (pass, within) = trace_with(&collector, "pass", &steps).await;
    assert_eq!(pass.attributes["servicechain.namespace"], namespace);
    assert_eq!(pass.attributes["servicechain.chain"], "shop");
    assert!(
        has_asked(&within, "apply", "apply the ConfigMap shop-gateway-config"),
        "{within:#?}"
    );
    let ids: BTreeSet<&[u8]> = within
        .iter()
        .chain([&pass])
        .map(|span| span.id.as_slice())
        .collect();
    assert!(
        within.iter().all(|span| ids.contains(span.parent.as_slice())),
        "one tree: {within:#?}"
    );

    let (round, within) = trace_with(&collector, "round of keys", &["read", "list", "ask", "publish"]).await;
    assert_eq!(round.attributes["servicechain.chain"], "shop");
    assert!(
        has_asked(&within, "publish", "write ConfigMap shop-keys"),
        "{within:#?}"
    );
    operator.end().await;

    let secrets = Api::<Secret>::namespaced(client.clone(), &namespace);
    let secrets = secrets.list(&ListParams::default()).await.unwrap();
    let values = secrets
        .into_iter()
        .flat_map(|secret| secret.data.unwrap_or_default());
    let values = values.map(|(_, value)| String::from_utf8_lossy(&value.0).into_owned());
    // What is short may be anything's name.
    let mut values: Vec<String> = values.filter(|value| value.len() > 16).collect();
    assert!(values.len() > 3, "keys, passwords and a configuration");
    let maps = Api::<ConfigMap>::namespaced(client, &namespace);
    let bundle = maps.get("shop-keys").await.unwrap().data.unwrap();
    values.extend(bundle.into_values());
    for span in collector.spans() {
        let said: Vec<&String> = span.attributes.values().chain(&span.failure).collect();
        let leaked = values
            .iter()
            .find(|value| said.iter().any(|said| said.contains(*value)));
        assert!(leaked.is_none(), "{span:?}");
    }
}
