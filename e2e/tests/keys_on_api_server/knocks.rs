//! Who is told the newest generation, by whom, and who is not.

use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::json;
use servicechain_fixtures::await_condition;
use servicechain_operator::clock;
use servicechain_operator::lease::{Candidate, LeaseState};
use tokio::net::TcpListener;

use crate::Shop;
use crate::leader::{DEADLINE, Leader};
use crate::pods::{Cluster, GATEWAY, RunningPod, SERVICE};

#[tokio::test]
async fn a_knock_is_answered_only_for_a_pod_that_the_api_server_shows_as_running() {
    let shop = Shop::start().await;
    let gateways = shop
        .cluster
        .api::<ReplicaSet>()
        .get("shop-gateway")
        .await
        .unwrap();
    let scheduled = shop.cluster.schedule("gateway-2", GATEWAY, &gateways).await;
    let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
    shop.cluster.say("gateway-2", "Pending", waiting, false).await;
    let pod = shop.cluster.run(scheduled, &shop.leader).await;
    let too_early = tokio::time::timeout(RunningPod::A_WHILE, pod.verifier.ready()).await;
    assert!(too_early.is_err(), "confirmed, and left out of Have");
    shop.cluster.say_running("gateway-2").await;
    pod.await_confirmed().await;
    let state = shop.leader.await_in_sync(&shop.cluster.chain, 5).await;
    assert!(state.pod("gateway-2").unwrap().acknowledged);

    shop.cluster.delete_pod(pod).await;
    shop.leader.keys.wake(&shop.cluster.uid());
    shop.await_in_sync().await;
}

#[tokio::test]
async fn a_pod_whose_file_is_stale_is_told_the_newest_when_it_knocks() {
    let shop = Shop::start().await;
    let stale = shop.cluster.folder.path().join("stale.jws");
    std::fs::write(&stale, shop.cluster.bundle().await.unwrap()).unwrap();
    let before = shop.await_in_sync().await.newest.unwrap().0;
    shop.revoke("mallory", json!({"subject": "mallory"})).await;
    let newest = shop
        .await_generation("the revocation", before.next())
        .await
        .newest
        .unwrap()
        .0;
    let services = shop.cluster.api::<ReplicaSet>().get("shop-a").await.unwrap();
    let scheduled = shop.cluster.schedule("a-2", SERVICE, &services).await;
    shop.cluster.say_running("a-2").await;
    let address = shop.leader.knock_address;
    let pod = shop.cluster.run_with(scheduled, address, Some(stale)).await;
    pod.await_confirmed().await;
    assert!(pod.verifier.generation() >= newest);
}

#[tokio::test]
async fn whoever_does_not_lead_names_the_leader() {
    let shop = Shop::start().await;
    let Cluster {
        client,
        namespace,
        roots,
        ..
    } = &shop.cluster;
    let [leads, waits] = [
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    ];
    let candidate = |name: &str, listener: &TcpListener| {
        let address = listener.local_addr().unwrap();
        Candidate::new(
            client.clone(),
            namespace,
            "operator",
            name,
            address,
            clock::system(),
        )
    };
    let (mut first, mut second) = (candidate("operator-1", &leads), candidate("operator-2", &waits));
    first.acquire().await;
    let waiting = second.state();
    let task = tokio::spawn(async move { second.acquire().await });
    await_condition("the second to know the first", DEADLINE, async || {
        waiting.leader_address().ok_or("it does not")
    })
    .await
    .unwrap();
    let leader = Leader::on(leads, client, roots, first.state());
    let standby = Leader::on(waits, client, roots, waiting);
    leader.track(&shop.cluster.chain);

    let services = shop.cluster.api::<ReplicaSet>().get("shop-a").await.unwrap();
    let pod = shop.cluster.start("a-2", SERVICE, &services, &standby).await;
    pod.await_confirmed().await;
    assert!(standby.keys.state(&shop.cluster.uid()).is_none());
    task.abort();
}

#[tokio::test]
async fn a_leader_that_is_not_surely_one_any_more_answers_no_knock() {
    let shop = Shop::start().await;
    let lost = LeaseState::default();
    let was = Leader::start(&shop.cluster.client, &shop.cluster.roots, lost).await;
    was.track(&shop.cluster.chain);
    was.await_in_sync(&shop.cluster.chain, 4).await;
    let services = shop.cluster.api::<ReplicaSet>().get("shop-a").await.unwrap();
    let pod = shop.cluster.start("a-2", SERVICE, &services, &was).await;
    let ready = tokio::time::timeout(RunningPod::A_WHILE, pod.verifier.ready()).await;
    assert!(ready.is_err(), "confirmed by somebody who may not lead");
}

#[tokio::test]
async fn a_chain_that_starts_as_a_whole_is_confirmed_as_a_whole() {
    const PODS: usize = 30;
    let shop = Shop::start().await;
    let services = shop.cluster.api::<ReplicaSet>().get("shop-a").await.unwrap();
    let mut scheduled = Vec::new();
    for number in 0..PODS {
        let name = format!("burst-{number}");
        scheduled.push(shop.cluster.schedule(&name, SERVICE, &services).await);
        shop.cluster.say_running(&name).await;
    }
    let started = std::time::Instant::now();
    let starts = scheduled
        .into_iter()
        .map(|pod| shop.cluster.run(pod, &shop.leader));
    let pods = futures_util::future::join_all(starts).await;
    let confirmed = pods.iter().map(RunningPod::await_confirmed);
    futures_util::future::join_all(confirmed).await;
    println!(
        "{PODS} pods that started at once were confirmed in {:?}",
        started.elapsed()
    );
    shop.leader.await_in_sync(&shop.cluster.chain, 4 + PODS).await;
}
