//! docs/metrics.md names every metric that a hop shows, and none that there is not. The operator's own are looked at
//! beside it.

use std::collections::BTreeSet;

use servicechain_e2e::Keys;
use servicechain_e2e::client::{exchange, get, request};
use servicechain_e2e::running::issuer;

use crate::{chain, read, write};

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

/// The names of samples, as a query has them: a counter's ends in `_total`.
fn shown(page: &str) -> BTreeSet<String> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .filter_map(|line| match line.split_once(' ')? {
            (name, "counter") => Some(format!("{name}_total")),
            (name, _) => Some(name.to_owned()),
        })
        .collect()
}

/// The first cell of each row of the tables of metrics.
fn documented() -> BTreeSet<String> {
    let rows = DOCUMENT
        .lines()
        .filter_map(|line| line.strip_prefix("| `servicechain_"));
    rows.filter_map(|row| Some(format!("servicechain_{}", row.split_once("` |")?.0)))
        .filter(|name| !name.starts_with("servicechain_operator_"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_a_hop_is_documented_and_nothing_else_is() {
    let chain = chain().await;
    let token = chain.keys.token("alice");
    assert_eq!(write(&chain, "1", &token, "{}").await.status, 201);
    assert_eq!(read(&chain, "2", &token).await.status, 404);
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::new();
    let bundle = keys.write_bundle(folder.path()).unwrap();
    let yaml = "issuer: {name: platform, url: \"http://platform.test\", algorithm: ES256, tokenLifetime: 15m, audiences: [shop]}\nclients: []\n";
    let issuer = issuer(yaml, keys.verifier("platform", &bundle).unwrap())
        .await
        .unwrap();
    let nothing = request("POST", "/oauth2/token", &[("content-length", "0")], "");
    assert!(exchange(issuer.address, &nothing).await.unwrap().unwrap().status >= 400);

    let mut names = BTreeSet::new();
    for hop in [&chain.gateway, &issuer].into_iter().chain(&chain.services) {
        let page = get(hop.admin, "/metrics", None).await.unwrap();
        assert_eq!(page.status, 200, "{}", page.head);
        names.extend(shown(std::str::from_utf8(&page.body).unwrap()));
    }
    assert_eq!(documented(), names);
}
