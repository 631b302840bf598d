//! `keys`: who trusts what, now.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::{Shop, create, ready};

#[tokio::test(flavor = "multi_thread")]
async fn keys_lists_each_key_and_which_pod_holds_them() {
    let shop = Shop::new().await.with_chain().await;
    shop.says(ready(1)).await;
    let pods = shop.api::<Pod>();
    for (name, component) in [
        ("shop-gateway-1", "gateway"),
        ("shop-b-1", "b"),
        ("shop-a-postgres-0", "a-postgres"),
    ] {
        create(
            &pods,
            json!({
                "metadata": {"name": name, "labels": {
                    "servicechain.dev/chain": "shop", "servicechain.dev/component": component}},
                "spec": {"containers": [{"name": "x", "image": "x"}]},
            }),
        )
        .await;
        let status = json!({"status": {"containerStatuses": [{
            "name": "x", "image": "x", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }]}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
    }
    let end = shop.ends("keys -n NS shop").await;
    assert_eq!(end.code, Some(0), "{end:?}");
    let rows: Vec<Vec<&str>> = end
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[2][..3], ["platform", "k7f2…", "Active"]);
    assert_eq!(rows[4][..4], ["shop-gateway-1", "gateway", "7", "current"]);
    assert_eq!(rows[5][..4], ["shop-b-1", "b", "6", "laggard"]);
    assert_eq!(rows[6], ["!", "Unreachable", "for", rows[6][3], "d"]);
    assert_eq!(rows.len(), 7, "a database verifies nothing: {rows:?}");

    let line = shop.ends("keys -n NS shop -o json").await;
    let said: Value = serde_json::from_str(&line.stdout).unwrap();
    assert_eq!(
        (&said["pods"][1]["state"], &said["pods"][1]["generation"]),
        (&json!("laggard"), &json!(6))
    );
}
