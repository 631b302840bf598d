//! What changes of a chain cost the clients that ask it meanwhile and never repeat a request: nothing, unless a pod is
//! killed. The tests of this file share one chain, one after another.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use servicechain_e2e::cluster::await_seen;
use servicechain_e2e::load::{Failure, Load, Tally};
use servicechain_e2e::shop::{READY_WITHIN, Shop, is_ready};
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, MutexGuard};

/// As many as make it certain that every pod has some request of theirs inside.
const CLIENTS: usize = 6;
/// A change is under load only if there was load before and after it.
const ANSWERS_AROUND: u64 = 100;
const ITEM: &str = "/items/1";
/// Between two looks at all of a chain's objects.
const LOOK: Duration = Duration::from_secs(5);
/// Which of a chain's objects are compared over time.
const OBJECTS: &str = "servicechains,deployments,replicasets,statefulsets,pods,services,configmaps,secrets,serviceaccounts,\
                       networkpolicies,poddisruptionbudgets,persistentvolumeclaims";

#[test]
fn deleting_a_gateway_pod_fails_no_request() {
    on_shared_shop(async |shop| {
        let load = start(shop).await;
        let pod = &shop.pods("gateway").await.unwrap()[0];
        delete(shop, pod).await;
        assert_spotless(load).await;
    });
}

#[test]
fn deleting_a_pod_of_each_service_fails_no_request() {
    on_shared_shop(async |shop| {
        let load = start(shop).await;
        for service in ["a", "b", "c"] {
            let pod = &shop.pods(service).await.unwrap()[0];
            delete(shop, pod).await;
        }
        assert_spotless(load).await;
    });
}

/// Until the nodes know that the container is gone they lead new connections to where nothing listens, and what maps the
/// port accepts those first: a client cannot tell them from requests that were inside, so broken connections are not
/// counted here. `request_fails_only_if_it_was_inside_a_killed_replica_and_succeeds_when_repeated` counts them.
#[test]
fn killing_a_gateway_breaks_connections_never_gives_a_wrong_answer_and_nothing_once_it_is_back() {
    on_shared_shop(async |shop| {
        let load = start(shop).await;
        let pod = &shop.pods("gateway").await.unwrap()[0];
        shop.cluster.kill_container(pod, "gateway").await.unwrap();
        shop.await_restart(pod).await.unwrap();
        shop.await_ready().await.unwrap();
        load.await_answers(ANSWERS_AROUND).await.unwrap();
        let tally = load.stop().await;
        let are_broken = tally
            .failures
            .iter()
            .all(|failure| matches!(failure, Failure::Broken(_) | Failure::Refused(_)));
        assert!(are_broken, "{tally:?}");
        assert_spotless(start(shop).await).await;
    });
}

#[test]
fn scaling_up_and_down_fails_no_request() {
    on_shared_shop(async |shop| {
        let load = start(shop).await;
        for (gateway, service) in [(3, 3), (2, 1), (2, 2)] {
            let mut services = shop.chain().await.unwrap()["spec"]["services"].clone();
            services[1]["replicas"] = json!(service);
            let patch = json!({"spec": {"gateway": {"replicas": gateway}, "services": services}});
            shop.patch(patch).await.unwrap();
            shop.await_ready().await.unwrap();
            await_count(shop, "gateway", gateway).await;
            await_count(shop, "b", service).await;
        }
        assert_spotless(load).await;
    });
}

#[test]
fn new_templates_reach_c_then_b_then_a_then_the_gateway_and_fail_no_request() {
    on_shared_shop(async |shop| {
        let load = start(shop).await;
        let uids = |pods: &[Pod]| {
            pods.iter()
                .filter_map(|pod| pod.metadata.uid.clone())
                .collect::<Vec<_>>()
        };
        let order = ["c", "b", "a", "gateway"];
        let mut old = BTreeMap::new();
        for component in order {
            old.insert(component, uids(&shop.pods(component).await.unwrap()));
        }
        let mut services = shop.chain().await.unwrap()["spec"]["services"].clone();
        for service in services.as_array_mut().unwrap() {
            service["pod"]["annotations"]["example.com/rolled"] = json!("once");
        }
        let rolled = json!({"annotations": {"example.com/rolled": "once"}});
        let patch = json!({"spec": {"gateway": {"pod": rolled}, "services": services}});
        shop.patch(patch).await.unwrap();

        await_seen("every pod to be a new one", READY_WITHIN, async || {
            let mut before_is_done = true;
            let mut seen = Vec::new();
            for component in order {
                let pods = shop.pods(component).await.map_err(|error| format!("{error:#}"))?;
                let now = uids(&pods);
                let new = now.iter().filter(|uid| !old[component].contains(uid)).count();
                assert!(
                    new == 0 || before_is_done,
                    "{component} has a new pod before the one that it calls is done: {seen:?}"
                );
                before_is_done = new == old[component].len() && now.len() == new && pods.iter().all(is_ready);
                seen.push(format!("{component}: {new} of {} are new", now.len()));
            }
            if before_is_done {
                Ok(())
            } else {
                Err(seen.join(", "))
            }
        })
        .await
        .unwrap();
        shop.await_ready().await.unwrap();
        assert_spotless(load).await;
    });
}

#[test]
fn nothing_of_a_ready_chain_is_written_while_nothing_changes() {
    on_shared_shop(async |shop| {
        let minutes = if std::env::var_os("SERVICECHAIN_LONG").is_some() {
            5
        } else {
            1
        };
        let before = settled(shop).await;
        let ends = tokio::time::Instant::now() + Duration::from_mins(minutes);
        let mut looks = tokio::time::interval(LOOK);
        while tokio::time::Instant::now() < ends {
            looks.tick().await;
            assert_eq!(changes(&before, &objects(shop).await), Vec::<String>::new());
        }
    });
}

/// One chain for all tests of this file, and one runtime for the connections that go with it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static SHOP: Mutex<Option<Shop>> = Mutex::const_new(None);

fn on_shared_shop(test: impl AsyncFnOnce(&Shop)) {
    RUNTIME.block_on(async {
        let mut shop: MutexGuard<'_, Option<Shop>> = SHOP.lock().await;
        if shop.is_none() {
            *shop = Some(Shop::start(|_| {}).await.unwrap());
        }
        let shop = shop.as_ref().unwrap();
        shop.await_ready().await.unwrap();
        test(shop).await;
    });
}

/// Clients that ask for an item which is there.
async fn start(shop: &Shop) -> Load {
    let token = shop.token().await.unwrap();
    let put = shop.put(ITEM, &token, r#"{"name":"lamp"}"#).await.unwrap();
    assert!(matches!(put.status, 200 | 201), "{put:?}");
    let load = Load::start(CLIENTS, shop.gateway, ITEM, &token, 3);
    load.await_answers(ANSWERS_AROUND).await.unwrap();
    load
}

async fn assert_spotless(load: Load) {
    load.await_answers(ANSWERS_AROUND).await.unwrap();
    let Tally { answered, failures } = load.stop().await;
    assert!(
        failures.is_empty(),
        "{} of {answered}: {failures:?}",
        failures.len()
    );
}

/// Gracefully, and to the end: the pod is gone and the chain is Ready again.
async fn delete(shop: &Shop, pod: &Pod) {
    let pods = shop.api::<Pod>();
    let (name, uid) = (pod.metadata.name.as_deref().unwrap(), &pod.metadata.uid);
    pods.delete(name, &DeleteParams::default()).await.unwrap();
    await_seen(
        &format!("pod {name} to be gone"),
        READY_WITHIN,
        async || match pods.get_opt(name).await {
            Ok(Some(pod)) if pod.metadata.uid == *uid => Err("it is there still".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        },
    )
    .await
    .unwrap();
    shop.await_ready().await.unwrap();
}

async fn await_count(shop: &Shop, component: &str, count: usize) {
    let what = format!("{component} to have {count} pods");
    await_seen(&what, READY_WITHIN, async || {
        let pods = shop.pods(component).await.map_err(|error| format!("{error:#}"))?;
        if pods.len() == count && pods.iter().all(is_ready) {
            return Ok(());
        }
        Err(format!("{} pods", pods.len()))
    })
    .await
    .unwrap();
}

/// The objects once two looks agree: what happened just before takes a while to be written down.
async fn settled(shop: &Shop) -> Objects {
    let mut looks = tokio::time::interval(LOOK);
    let mut before = Objects::new();
    await_seen("the chain to settle", READY_WITHIN, async || {
        looks.tick().await;
        let now = objects(shop).await;
        let changes = changes(&before, &now);
        before.clone_from(&now);
        if changes.is_empty() {
            Ok(now)
        } else {
            Err(changes.join(", "))
        }
    })
    .await
    .unwrap()
}

/// `resourceVersion` by kind, name and uid.
type Objects = BTreeMap<String, String>;

async fn objects(shop: &Shop) -> Objects {
    let all = shop.kubectl(&["get", OBJECTS, "--output=json"]).await.unwrap();
    let all: Value = serde_json::from_str(&all).unwrap();
    let items = all["items"].as_array().unwrap().iter();
    items
        .map(|object| {
            let metadata = &object["metadata"];
            let key = format!("{} {} {}", object["kind"], metadata["name"], metadata["uid"]);
            (key, metadata["resourceVersion"].to_string())
        })
        .collect()
}

fn changes(before: &Objects, now: &Objects) -> Vec<String> {
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    keys.into_iter()
        .filter(|key| before.get(*key) != now.get(*key))
        .cloned()
        .collect()
}
