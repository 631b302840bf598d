//! The fixture that tests of controllers stand on: a real API server and its audit log.
#![cfg(test)]

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use servicechain_e2e::cluster::{client, fresh_namespace};
use servicechain_fixtures::api_server::ApiServer;
use servicechain_fixtures::await_condition;

#[tokio::test]
async fn api_server_starts_and_records_writes_in_its_audit_log() {
    let server = ApiServer::start().unwrap();
    let client = client(server.kubeconfig()).await.unwrap();
    let namespace = fresh_namespace(&client).await.unwrap();
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
    let secrets = Api::<Secret>::namespaced(client, &namespace);

    create(
        &maps,
        json!({"metadata": {"name": "kept"}, "data": {"color": "green"}}),
    )
    .await;
    create(
        &secrets,
        json!({"metadata": {"name": "hidden"}, "stringData": {"password": "swordfish"}}),
    )
    .await;
    maps.get("kept").await.unwrap();
    maps.delete("kept", &DeleteParams::default()).await.unwrap();

    let log = std::fs::read_to_string(server.audit_log()).unwrap();
    let of_test: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["objectRef"]["namespace"] == *namespace)
        .filter(|event| event["user"]["username"] == "administrator")
        .collect();
    let seen: Vec<_> = of_test
        .iter()
        .filter_map(|event| Some((event["verb"].as_str()?, event["objectRef"]["resource"].as_str()?)))
        .filter(|(_, resource)| *resource != "namespaces")
        .collect();
    assert_eq!(
        seen,
        [
            ("create", "configmaps"),
            ("create", "secrets"),
            ("delete", "configmaps")
        ]
    );
    assert!(
        log.contains(r#""data":{"color":"green"}"#),
        "what was written is recorded"
    );
    assert!(
        !log.contains("swordfish") && !log.contains("c3dvcmRmaXNo"),
        "a Secret's contents are not"
    );
}

#[tokio::test]
async fn garbage_collector_deletes_what_lost_its_owner() {
    let server = ApiServer::start_with_garbage_collector().unwrap();
    let client: Client = client(server.kubeconfig()).await.unwrap();
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &fresh_namespace(&client).await.unwrap());
    let owner = create(&maps, json!({"metadata": {"name": "owner"}})).await;
    let reference =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid.unwrap()});
    create(
        &maps,
        json!({"metadata": {"name": "owned", "ownerReferences": [reference]}}),
    )
    .await;
    create(&maps, json!({"metadata": {"name": "free"}})).await;

    maps.delete("owner", &DeleteParams::default()).await.unwrap();
    await_condition(
        "the owned object to go",
        Duration::from_mins(1),
        async || match maps.get_opt("owned").await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err("it is there".to_owned()),
            Err(error) => Err(error.to_string()),
        },
    )
    .await
    .unwrap();
    assert!(maps.get_opt("free").await.unwrap().is_some());
}

#[tokio::test]
async fn what_was_written_outlives_a_crash_of_the_api_server() {
    let mut server = ApiServer::start().unwrap();
    let kubeconfig = server.kubeconfig();
    let first = client(kubeconfig.clone()).await.unwrap();
    let namespace = fresh_namespace(&first).await.unwrap();
    server.stop().unwrap();
    server.start_again().unwrap();
    let again = client(kubeconfig).await.unwrap();
    let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(again);
    assert!(namespaces.get_opt(&namespace).await.unwrap().is_some());
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap())
        .await
        .unwrap()
}
