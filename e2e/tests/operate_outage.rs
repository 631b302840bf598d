//! Operator and control plane are gone for longer than a token lives, and containers end meanwhile: tokens are issued and
//! accepted all the time, and keys are in sync again once both are back.
#![cfg(test)]

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use servicechain_e2e::control_plane::Outage;
use servicechain_e2e::pod;
use servicechain_e2e::progress::Progress;
use servicechain_e2e::shop::{NAME, READY_WITHIN, Shop, condition};
use servicechain_e2e::token_load::{Killed, Kind, Token, TokenLoad};

const ASKERS: usize = 6;
const ANSWERS_AROUND: u64 = 100;
/// Every token in use at the outage's end was issued within it.
const TOKEN_LIFETIME: &str = "2m";
/// Between two looks at how it goes.
const LOOK: Duration = Duration::from_secs(10);
/// Which container is killed at which look: with a pause between two of the same service, since one that has just
/// started does not serve yet.
const KILLS: [(u64, &str, &str, usize); 4] = [
    (2, "b", "service", 0),
    (5, "issuer-platform", "issuer", 0),
    (8, "b", "service", 1),
    (11, "issuer-platform", "issuer", 1),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_operator_and_api_server_tokens_are_issued_and_accepted_for_longer_than_any_lives() {
    let progress = Progress::begin();
    let minutes = if std::env::var_os("SERVICECHAIN_LONG").is_some() {
        10
    } else {
        3
    };
    let shop = Shop::start(|chain| {
        let client = |id: &str| json!({"id": id, "scopes": ["items:read", "items:write"]});
        let managed = json!({"tokenLifetime": TOKEN_LIFETIME, "clients": [client("demo"), client("guest")]});
        chain["spec"]["issuers"] = json!([{"name": "platform", "managed": managed}]);
    })
    .await
    .unwrap();
    progress.say("the chain is ready");
    let mut credentials = Vec::new();
    for client in ["demo", "guest"] {
        let client = shop.credentials(client).await.unwrap();
        let token = Token::fetch(shop.gateway, &client).await.unwrap();
        pod::put_items(&shop, &token).await.unwrap();
        credentials.push(client);
    }
    let mut victims = Vec::new();
    for (_, component, _, which) in KILLS {
        victims.push(shop.pods(component).await.unwrap().remove(which));
    }
    let load = TokenLoad::start(shop.gateway, ASKERS, &credentials);
    load.await_answers(ANSWERS_AROUND).await.unwrap();

    let outage = Outage::begin(&shop.cluster).await.unwrap();
    let began = Instant::now();
    progress.say("operator and API server are gone");
    let mut killed = Vec::new();
    let mut looks = tokio::time::interval(LOOK);
    for look in 0.. {
        looks.tick().await;
        if began.elapsed() >= Duration::from_mins(minutes) {
            break;
        }
        for ((_, component, container, _), pod) in
            KILLS.iter().zip(&victims).filter(|((at, ..), _)| *at == look)
        {
            killed.push(kill(&shop, pod, component, container).await);
            progress.say(format_args!("a container of {component} is killed"));
        }
        load.await_answers(ANSWERS_AROUND).await.unwrap();
        let seen = load.seen();
        progress.say(format_args!(
            "{} requests, {} tokens, mishaps {:?}",
            seen.requests,
            seen.fetched,
            seen.counts()
        ));
    }
    assert_eq!(killed.len(), KILLS.len(), "no container was left out");
    let issued_without = load.seen().fetched;
    outage.end().await.unwrap();
    progress.say(format_args!(
        "both are back after {:.0} s",
        began.elapsed().as_secs_f64()
    ));

    // Written by an operator that has asked every pod.
    shop.patch(json!({"spec": {"tokenPolicy": {"clockSkew": "29s"}}}))
        .await
        .unwrap();
    shop.await_chain("KeysInSync", READY_WITHIN, |chain| {
        condition(chain, "KeysInSync").is_some_and(|keys| keys["status"] == "True")
    })
    .await
    .unwrap();
    let rotate = [
        "rotate",
        NAME,
        "--namespace",
        &shop.namespace,
        "--timeout",
        "120s",
    ];
    progress.say(shop.cluster.servicechain(rotate).await.unwrap());
    shop.await_ready().await.unwrap();
    load.await_answers(ANSWERS_AROUND).await.unwrap();

    let clients = load.clients();
    let mut seen = load.stop().await.unwrap();
    let inside = seen.take_inside(&killed);
    progress.say(format_args!(
        "requests {}, 401 for valid tokens {}, 5xx {}, tokens issued meanwhile {issued_without}, wrong answers {}, \
         broken connections {}, inside killed containers {inside:?}",
        seen.requests,
        seen.count(Kind::RefusedValid),
        seen.count(Kind::ServerError),
        seen.count(Kind::Wrong),
        seen.count(Kind::Broken),
    ));
    assert!(seen.mishaps.is_empty(), "{:#?}", seen.mishaps);
    assert!(
        inside.values().sum::<usize>() <= clients * killed.len(),
        "{inside:?} of {clients} clients"
    );
}

async fn kill(shop: &Shop, pod: &Pod, component: &str, container: &str) -> Killed {
    let not_before = Instant::now();
    shop.cluster.kill_container(pod, container).await.unwrap();
    Killed {
        // Problems name an issuer without what it is.
        hop: component.trim_start_matches("issuer-").to_owned(),
        not_before,
        not_after: Instant::now(),
    }
}
