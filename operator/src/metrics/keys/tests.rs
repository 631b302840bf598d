//! What a scrape says of chains that rounds have shown.

use servicechain_keys::rotation::LaggardReason;
use servicechain_keys::{Digest, PodId};
use std::time::Duration;

use super::*;
use crate::key_controller::state::{IssuerStanding, KeyEntry, Laggard, PodKeys};
use crate::metrics::Metrics;

fn pod(name: &str, workload: &str, generation: u64) -> PodKeys {
    PodKeys {
        name: name.to_owned(),
        pod: PodId::new(name).unwrap(),
        workload: Workload::new(workload).unwrap(),
        is_counted: true,
        acknowledged: generation == 7,
        generation: Some(Generation::new(generation)),
        refusal: None,
        refused: std::collections::BTreeSet::new(),
        falsehood: None,
        unconfirmed: name == "a-1",
        clock_offset: Some(if name == "a-2" { -12 } else { 0 }),
        anchors: Vec::new(),
    }
}

fn state(acknowledged: usize) -> Arc<KeyState> {
    let since = NumericDate::from_seconds(1_800_000_000);
    let entry = |state, since| KeyEntry {
        issuer: "platform".to_owned(),
        kid: None,
        algorithm: "ES256",
        state,
        since,
    };
    Arc::new(KeyState {
        newest: Some((Generation::new(7), Digest::of(b"seven"))),
        acknowledged,
        verifiers: 3,
        laggards: vec![Laggard {
            name: "a-2".to_owned(),
            pod: PodId::new("a-2").unwrap(),
            generation: None,
            reason: LaggardReason::NotDurable,
            falsehood: None,
            since,
        }],
        entries: vec![
            entry(StateOfKey::Active, since),
            entry(StateOfKey::Active, NumericDate::from_seconds(1_700_000_000)),
            entry(StateOfKey::Retiring, since),
        ],
        pods: vec![pod("a-1", "a", 7), pod("a-2", "a", 6), pod("g-1", "gateway", 7)],
        issuers: [(
            "corp".to_owned(),
            IssuerStanding {
                problem: None,
                refused: vec!["key 2 is left out".to_owned()],
            },
        )]
        .into(),
        ..KeyState::default()
    })
}

fn fetches() -> BTreeMap<String, Fetches> {
    let fetches = Fetches {
        good: 5,
        failed: 2,
        last_good: Some(NumericDate::from_seconds(1_800_000_060)),
    };
    [("corp".to_owned(), fetches)].into()
}

fn assert_has(metrics: &Metrics, lines: &[&str]) {
    let text = metrics.encode().unwrap();
    for line in lines {
        let line = format!("servicechain_operator_{line}");
        assert!(
            text.lines().any(|found| found == line),
            "{line} is missing in\n{text}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_scrape_says_what_a_chains_keys_are_and_nothing_of_it_once_it_is_gone() {
    let metrics = Metrics::default();
    let mut shop = metrics.keys().of_chain("shop".to_owned(), "shop".to_owned());
    shop.show(&state(3), fetches(), false);
    shop.refused("offer", "proof");
    let shop_is = r#"namespace="shop",chain="shop""#;
    assert_has(
        &metrics,
        &[
            &format!("key_generation{{{shop_is}}} 7"),
            &format!(r#"key_generation_acknowledged{{{shop_is},workload="a"}} 6"#),
            &format!(r#"key_generation_acknowledged{{{shop_is},workload="gateway"}} 7"#),
            &format!("key_verifiers{{{shop_is}}} 3"),
            &format!(r#"key_laggards{{{shop_is},reason="NotDurable"}} 1"#),
            &format!(r#"key_laggards{{{shop_is},reason="Behind"}} 0"#),
            &format!(r#"key_laggards{{{shop_is},reason="ClaimRefuted"}} 0"#),
            &format!("key_verifiers_unconfirmed{{{shop_is}}} 1"),
            &format!("key_clock_offset_seconds{{{shop_is}}} 12"),
            &format!(r#"keys{{{shop_is},issuer="platform",state="Active"}} 2"#),
            &format!(r#"keys{{{shop_is},issuer="platform",state="Staged"}} 0"#),
            &format!(r#"key_active_since_timestamp_seconds{{{shop_is},issuer="platform"}} 1700000000"#),
            &format!(r#"issuer_keys_left_out{{{shop_is},issuer="corp"}} 1"#),
            &format!(r#"issuer_answered_timestamp_seconds{{{shop_is},issuer="corp"}} 1800000060"#),
            &format!(r#"issuer_fetches_total{{{shop_is},issuer="corp",outcome="failed"}} 2"#),
            r#"key_refusals_total{what="offer",reason="proof"} 1"#,
        ],
    );
    // Another of the same name began before this one ended.
    let mut next = metrics.keys().of_chain("shop".to_owned(), "shop".to_owned());
    next.show(&state(3), fetches(), false);
    drop(shop);
    assert_has(&metrics, &[&format!("key_generation{{{shop_is}}} 7")]);
    drop(next);
    assert!(!metrics.encode().unwrap().contains(shop_is));
}

#[tokio::test(start_paused = true)]
async fn a_bundle_is_on_its_way_until_the_last_verifier_has_it_or_a_newer_one() {
    let metrics = Metrics::default();
    let mut shop = metrics.keys().of_chain("shop".to_owned(), "shop".to_owned());
    shop.show(&state(0), fetches(), true);
    tokio::time::advance(Duration::from_secs(1)).await;
    shop.show(&state(0), fetches(), true);
    tokio::time::advance(Duration::from_millis(150)).await;
    shop.show(&state(2), fetches(), false);
    assert_has(&metrics, &["key_distribution_seconds_count 0"]);
    shop.show(&state(3), fetches(), false);
    shop.show(&state(3), fetches(), false);
    assert_has(
        &metrics,
        &[
            "key_distribution_seconds_count 2",
            r#"key_distribution_seconds_bucket{le="0.2"} 1"#,
            r#"key_distribution_seconds_bucket{le="2.0"} 2"#,
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn what_nobody_was_told_took_no_time() {
    let metrics = Metrics::default();
    let mut shop = metrics.keys().of_chain("shop".to_owned(), "shop".to_owned());
    let nobody = Arc::new(KeyState {
        verifiers: 0,
        acknowledged: 0,
        ..KeyState::clone(&state(0))
    });
    shop.show(&nobody, fetches(), true);
    tokio::time::advance(Duration::from_mins(5)).await;
    shop.show(&state(3), fetches(), false);
    assert_has(&metrics, &["key_distribution_seconds_count 0"]);
}

#[test]
fn a_scrape_does_not_grow_with_every_chain() {
    let metrics = Metrics::default();
    let chains: Vec<_> = (0..MOST_CHAINS + 3)
        .map(|number| {
            let mut chain = metrics
                .keys()
                .of_chain(format!("n-{number:05}"), "shop".to_owned());
            chain.show(&state(3), fetches(), false);
            chain
        })
        .collect();
    assert_has(&metrics, &["key_chains_unnamed 3"]);
    assert!(!metrics.encode().unwrap().contains("n-00501"));
    drop(chains);
}
