//! `explain`: by the bundle that the chain's pods would believe.

use std::process::Stdio;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::json;
use servicechain_auth::specimen::Specimen;
use servicechain_crds::ServiceChain;
use servicechain_keys::{ChainId, Generation};
use servicechain_runtime::clock::Clock;
use tokio::io::AsyncWriteExt as _;

use crate::{DONE_WITHIN, Ended, Shop, create};

#[tokio::test(flavor = "multi_thread")]
async fn explain_judges_by_the_bundle_that_the_chains_pods_would_believe() {
    let shop = Shop::new().await.with_chain().await;
    let specimen = Specimen::new();
    let uid = shop
        .api::<ServiceChain>()
        .get("shop")
        .await
        .unwrap()
        .uid()
        .unwrap();
    let mut bundle = specimen.bundle();
    bundle.chain = ChainId::new(uid).unwrap();
    bundle.generation = Generation::new(2);
    let bytes = specimen.sign(&bundle).bytes().to_vec();
    let bundle = String::from_utf8(bytes).unwrap();

    let now = Clock::system()
        .now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let mut claims = specimen.claims();
    claims.insert("iat".to_owned(), json!(now));
    claims.insert("exp".to_owned(), json!(now + 600));
    let token = specimen.token_with(&claims);

    let no_gateway = explained(&shop, &token, "").await;
    assert_eq!(no_gateway.code, Some(1));
    assert!(
        no_gateway
            .stderr
            .contains("chain shop has no gateway yet; see `servicechain status"),
        "{no_gateway:?}"
    );

    gateway(&shop, specimen.trust_key.anchor().to_string()).await;
    create::<ConfigMap>(
        &shop.api(),
        json!({"metadata": {"name": "shop-keys"}, "data": {"bundle.jws": bundle}}),
    )
    .await;
    let passes = explained(&shop, &token, "").await;
    assert_eq!(passes.code, Some(0), "{passes:?}");
    for line in ["gateway  ✓ key ", "a        ✓ key ", "b        ✓ key "] {
        assert!(passes.stdout.contains(line), "{passes:?}");
    }
    assert!(!passes.stdout.contains(&token), "a token is never printed");
    let refused = explained(&shop, &token, "--method PUT").await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stdout.contains("a        ✗ nobody may PUT /items/1"),
        "{refused:?}"
    );

    let another = servicechain_keys::TrustKey::from_seed(&[8; 32]).unwrap();
    let deployments = shop.api::<Deployment>();
    deployments
        .delete("shop-gateway", &DeleteParams::default())
        .await
        .unwrap();
    gateway(&shop, another.anchor().to_string()).await;
    let forged = explained(&shop, &token, "").await;
    assert_eq!(forged.code, Some(1));
    assert!(forged.stderr.contains("is not authentic"), "{forged:?}");
}

/// The gateway's Deployment, as far as it says whose bundles are believed.
async fn gateway(shop: &Shop, anchor: String) {
    let labels = json!({"app": "x"});
    let container =
        json!({"name": "gateway", "image": "x", "env": [{"name": "TRUST_ANCHORS", "value": anchor}]});
    let deployment = json!({
        "metadata": {"name": "shop-gateway"},
        "spec": {"selector": {"matchLabels": labels},
                 "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}},
    });
    create::<Deployment>(&shop.api(), deployment).await;
}

async fn explained(shop: &Shop, token: &str, more: &str) -> Ended {
    let mut command = shop.run(&format!("explain -n NS shop {more}"));
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(token.as_bytes())
        .await
        .unwrap();
    let output = tokio::time::timeout(DONE_WITHIN, child.wait_with_output()).await;
    output.expect("it ends").unwrap().into()
}
