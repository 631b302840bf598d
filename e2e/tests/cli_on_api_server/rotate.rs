//! `rotate`: what is ordered, and what is said where it does not come.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use servicechain_crds::ServiceChain;

use crate::{Shop, ended, ready, servicechain};

const ORDER: &str = "servicechain.dev/rotate-keys-before";

impl Shop {
    async fn order(&self) -> Option<String> {
        let chain = self.api::<ServiceChain>().get("shop").await.unwrap();
        chain.metadata.annotations.unwrap_or_default().remove(ORDER)
    }

    async fn annotate(&self, time: &str) {
        let order = json!({"metadata": {"annotations": {ORDER: time}}});
        self.api::<ServiceChain>()
            .patch("shop", &PatchParams::default(), &Patch::Merge(order))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_said_and_nothing_is_ordered() {
    let shop = Shop::new().await.with_chain().await;
    for (line, code, says) in [
        ("shp", 4, "there is no chain \"shp\""),
        ("shop --timeout soon", 2, "soon"),
        ("shop --issuer corp", 2, "NotSupportedYet: "),
    ] {
        let end = shop.ends(&format!("rotate -n NS {line}")).await;
        assert_eq!(end.code, Some(code), "{line}: {end:?}");
        assert!(end.stderr.contains(says), "{line}: {end:?}");
    }
    assert_eq!(shop.order().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_is_named_and_the_order_stays() {
    let shop = Shop::new().await.with_chain().await;
    shop.says(ready(1)).await;
    let end = shop.ends("rotate -n NS shop --timeout 1s").await;
    assert_eq!(end.code, Some(3), "{end:?}");
    assert_eq!(
        end.stderr,
        format!(
            "error: the keys of chain shop are not all rotated after 1 s\n  \
             platform still signs with k7f2…; 2 of 3 verifiers hold generation 7; not yet: shop-b-1\n  (Unreachable)\n  \
             the rotation goes on; see `servicechain keys -n {} shop`\n",
            shop.namespace
        )
    );
    let ordered = shop.order().await.unwrap();
    assert!(ordered.as_str() > "2026-01-01T00:00:00Z", "{ordered}");

    shop.annotate("2099-01-01T00:00:00Z").await;
    let end = shop.ends("rotate -n NS shop --timeout 1s").await;
    assert_eq!(end.code, Some(3), "{end:?}");
    let said = end.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        said.contains("the keys are ordered to be replaced from 2099-01-01T00:00:00Z on, in ")
            && said.contains("; an earlier order said so (annotation servicechain.dev/rotate-keys-before)"),
        "{said}"
    );
    assert_eq!(
        shop.order().await.as_deref(),
        Some("2099-01-01T00:00:00Z"),
        "never taken back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_done_once_a_new_key_signs_and_everybody_holds_it() {
    let shop = Shop::new().await.with_chain().await;
    shop.says(ready(1)).await;
    shop.annotate("2026-01-02T00:00:00Z").await;
    let command = shop.run("rotate -n NS shop --timeout 60s -o json");
    let (end, ()) = tokio::join!(ended(command), async {
        let ordered = servicechain_fixtures::await_condition("the order", crate::DONE_WITHIN, async || {
            shop.order()
                .await
                .filter(|order| order.as_str() > "2026-01-02T00:00:00Z")
                .ok_or("not yet")
        });
        let ordered = ordered.await.unwrap();
        let mut status = ready(1);
        status["keys"]["entries"] = json!([
            {"issuer": "platform", "kid": "k9d3abcd", "state": "Active", "since": ordered},
            {"issuer": "platform", "kid": "k7f2abcd", "state": "Retiring", "since": ordered},
        ]);
        status["keys"]["generation"] = json!(9);
        // Not before the last of them holds it.
        shop.says(status.clone()).await;
        for (name, value) in [
            ("acknowledged", json!(3)),
            ("laggardCount", json!(0)),
            ("laggards", json!([])),
        ] {
            status["keys"][name] = value;
        }
        shop.says(status).await;
    });
    assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""), "{end:?}");
    let said: Value = serde_json::from_str(&end.stdout).unwrap();
    assert_eq!(
        (
            &said["signs"],
            &said["retires"],
            &said["acknowledged"],
            &said["verifiers"],
            &said["generation"]
        ),
        (
            &json!(["k9d3abcd"]),
            &json!(["k7f2abcd"]),
            &json!(3),
            &json!(3),
            &json!(9)
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_order_it_is_told_which_right_is_missing() {
    let shop = Shop::new().await.with_chain().await;
    let (_folder, file) = shop.kubeconfig_of("jane");
    let view = json!([{"apiGroups": ["servicechain.dev"], "resources": ["servicechains"], "verbs": ["get"]}]);
    shop.grant("jane", "view", view).await;
    let end = ended(servicechain(&file, "rotate shop")).await;
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(
        end.stderr
            .contains("user \"jane\" may not patch servicechains.servicechain.dev in namespace ")
            && end.stderr.contains("ask for a role with the verb \"patch\""),
        "{end:?}"
    );
}
