//! `servicechain rotate`: orders new keys for a chain's own issuers, by an annotation that the operator reads, and waits
//! until they sign and every verifier holds them. The order stays whatever becomes of the wait.

use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde::Serialize;
use serde_json::json;
use servicechain_crds::ServiceChain;
use servicechain_crds::service_chain::status::{KeyStatus, KeysStatus};
use servicechain_operator::key_controller::ROTATE_ANNOTATION;
use tokio::time::{Instant, sleep_until};

use crate::cluster::{Cluster, Place, Question, Unanswered};
use crate::outcome::Failure;
use crate::paint::{short_key, tame};
use crate::status::Output;
use crate::wait::duration;
use crate::wording::{COLUMNS, elapsed, in_words, seconds_between, wrapped};
use crate::{now, print};

/// How often the chain is asked for.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Longest name of a pod that is shown whole.
const LONGEST_POD: usize = 253;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the chain
    chain: String,
    /// Not supported yet where the chain has several issuers of its own: all of them rotate
    #[arg(long, value_name = "NAME", hide = true)]
    issuer: Option<String>,
    /// How long to wait, such as 60s or 5m; the rotation goes on whatever happens
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    timeout: Duration,
    /// How to say it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    place: Place,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let begun = Instant::now();
    let cluster = Cluster::find(&args.place).await?;
    let mut chain = cluster.chain_or_others(&args.chain).await?;
    let order = Order::of(&chain, args.issuer.as_deref(), now())?;
    let question = Question {
        verb: "patch",
        resource: "servicechains.servicechain.dev",
    };
    let annotations = json!({"metadata": {"annotations": {ROTATE_ANNOTATION: order.before.to_string()}}});
    let parameters = PatchParams {
        field_manager: Some("servicechain".to_owned()),
        ..PatchParams::default()
    };
    let api = cluster.api::<ServiceChain>();
    let patch = Patch::Merge(&annotations);
    cluster
        .ask(question, api.patch(&args.chain, &parameters, &patch))
        .await?;
    let deadline = begun + args.timeout;
    loop {
        let keys = chain.status.as_ref().and_then(|status| status.keys.as_ref());
        let why = match order.progress(keys) {
            Ok(rotated) => return say(&args, &cluster.namespace, rotated, begun.elapsed()),
            Err(why) => [Some(why), order.due_in(now())]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("\n"),
        };
        let next = Instant::now() + ASK_EVERY;
        if next > deadline {
            let place = format!("-n {} {}", cluster.namespace, args.chain);
            return Err(Failure::TimedOut(too_late(
                &args.chain,
                args.timeout,
                &why,
                &place,
            )));
        }
        sleep_until(next).await;
        match tokio::time::timeout_at(deadline, cluster.chain(&args.chain)).await {
            Ok(Ok(newer)) => chain = newer,
            Ok(Err(Unanswered::NotFound(_))) => {
                return Err(Failure::NoSuchChain(format!(
                    "chain {} of namespace {} was deleted while its keys rotated",
                    args.chain, cluster.namespace
                )));
            }
            // What passes by itself is asked again until the time is over.
            Ok(Err(Unanswered::Unreachable(_))) | Err(_) => {}
            Ok(Err(other)) => return Err(other.into()),
        }
    }
}

/// What was asked for, and what stood then.
#[derive(Debug)]
struct Order {
    /// Keys that sign since an earlier time are to be replaced.
    before: Timestamp,
    /// Names of the chain's own issuers.
    issuers: Vec<String>,
    /// The ids of the keys that signed when it was ordered.
    signed: Vec<String>,
}

/// What is printed once new keys sign.
#[derive(Debug, PartialEq, Eq)]
struct Rotated {
    signs: Vec<String>,
    retires: Vec<String>,
    acknowledged: i32,
    verifiers: i32,
    generation: i64,
}

impl Order {
    fn of(chain: &ServiceChain, issuer: Option<&str>, now: Timestamp) -> Result<Self, Failure> {
        let own = chain
            .spec
            .issuers
            .iter()
            .filter(|issuer| issuer.managed.is_some());
        let issuers: Vec<String> = own.map(|issuer| issuer.name.clone()).collect();
        let name = chain.metadata.name.as_deref().unwrap_or_default();
        if issuers.is_empty() {
            return Err(Failure::BadInput(format!(
                "chain {name} has no issuer of its own; keys of others are rotated where those issuers run"
            )));
        }
        if let Some(issuer) = issuer
            && issuers != [issuer]
        {
            return Err(Failure::BadInput(format!(
                "NotSupportedYet: this version rotates the keys of all own issuers of a chain together ({}); leave \
                 --issuer out",
                issuers.join(", ")
            )));
        }
        let status = chain.status.as_ref();
        let keys = status.and_then(|status| status.keys.as_ref());
        let signing: Vec<&KeyStatus> = keys
            .into_iter()
            .flat_map(|keys| &keys.entries)
            .filter(|key| key.state == "Active" && issuers.contains(&key.issuer))
            .collect();
        // Later than every key that signs now, whatever this machine's clock says; an order is never taken back.
        let youngest = signing.iter().map(|key| key.since.0.as_second() + 1).max();
        let annotations = chain.metadata.annotations.as_ref();
        let ordered = annotations
            .and_then(|annotations| annotations.get(ROTATE_ANNOTATION)?.parse::<Timestamp>().ok())
            .map(Timestamp::as_second);
        let before = [youngest, ordered]
            .into_iter()
            .flatten()
            .fold(now.as_second(), i64::max);
        Ok(Self {
            before: Timestamp::from_second(before).unwrap_or(now),
            signed: signing.iter().map(|key| key.kid.clone()).collect(),
            issuers,
        })
    }

    /// An order that lies ahead, by this machine's clock, is carried out once its time has come: somebody gave it such a
    /// time before, and an order is never taken back.
    fn due_in(&self, now: Timestamp) -> Option<String> {
        let seconds = seconds_between(now, self.before);
        (seconds > 1).then(|| {
            format!(
                "the keys are ordered to be replaced from {} on, in {}; an earlier order said so (annotation \
                 {ROTATE_ANNOTATION})",
                self.before,
                in_words(seconds)
            )
        })
    }

    /// What is in the way, else what signs now.
    fn progress(&self, keys: Option<&KeysStatus>) -> Result<Rotated, String> {
        let Some(keys) = keys else {
            return Err("the operator has not published any keys yet; is it running?".to_owned());
        };
        let mut signs = Vec::new();
        for issuer in &self.issuers {
            let active = keys
                .entries
                .iter()
                .filter(|key| &key.issuer == issuer && key.state == "Active");
            let (new, old): (Vec<_>, Vec<_>) = active.partition(|key| key.since.0 >= self.before);
            if !old.is_empty() {
                let old = short(old.iter().map(|key| &key.kid));
                return Err(format!(
                    "{issuer} still signs with {old}; {}",
                    acknowledgement(keys)
                ));
            }
            if new.is_empty() {
                return Err(format!(
                    "{issuer} has no key that signs; {}",
                    acknowledgement(keys)
                ));
            }
            signs.extend(new.iter().map(|key| key.kid.clone()));
        }
        if keys.acknowledged < keys.verifiers {
            return Err(acknowledgement(keys));
        }
        let signed = self.signed.iter().filter(|kid| !signs.contains(kid));
        Ok(Rotated {
            retires: signed.cloned().collect(),
            signs,
            acknowledged: keys.acknowledged,
            verifiers: keys.verifiers,
            generation: keys.generation,
        })
    }
}

fn acknowledgement(keys: &KeysStatus) -> String {
    let (acknowledged, verifiers, generation) = (keys.acknowledged, keys.verifiers, keys.generation);
    let mut text = format!("{acknowledged} of {verifiers} verifiers hold generation {generation}");
    let laggards = keys.laggards.iter().map(|laggard| {
        format!(
            "{} ({})",
            tame(&laggard.pod, LONGEST_POD),
            tame(&laggard.reason, 64)
        )
    });
    let mut names: Vec<String> = laggards.collect();
    let more = usize::try_from(keys.laggard_count)
        .unwrap_or_default()
        .saturating_sub(names.len());
    if more > 0 {
        names.push(format!("{more} more"));
    }
    if !names.is_empty() {
        text.push_str("; not yet: ");
        text.push_str(&names.join(", "));
    }
    text
}

fn short<'a>(kids: impl Iterator<Item = &'a String>) -> String {
    kids.map(|kid| short_key(kid)).collect::<Vec<_>>().join(", ")
}

impl Rotated {
    fn line(&self, took: Duration) -> String {
        let sign = if self.signs.len() == 1 { "signs" } else { "sign" };
        let mut line = format!(
            "{} {sign} after {}, {}/{} verifiers, generation {}",
            short(self.signs.iter()),
            elapsed(took),
            self.acknowledged,
            self.verifiers,
            self.generation
        );
        if !self.retires.is_empty() {
            let retire = if self.retires.len() == 1 {
                "retires"
            } else {
                "retire"
            };
            line = format!("{line} · {} {retire}", short(self.retires.iter()));
        }
        line
    }
}

fn say(args: &Args, namespace: &str, rotated: Rotated, took: Duration) -> Result<(), Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Line<'a> {
        chain: &'a str,
        namespace: &'a str,
        signs: Vec<String>,
        retires: Vec<String>,
        acknowledged: i32,
        verifiers: i32,
        generation: i64,
        seconds: f64,
    }
    match args.output {
        Output::Text => print(&format!("{}\n", rotated.line(took))),
        Output::Json => {
            let line = Line {
                chain: &args.chain,
                namespace,
                signs: rotated.signs,
                retires: rotated.retires,
                acknowledged: rotated.acknowledged,
                verifiers: rotated.verifiers,
                generation: rotated.generation,
                seconds: took.as_secs_f64(),
            };
            let line = serde_json::to_string(&line).map_err(anyhow::Error::from)?;
            print(&format!("{line}\n"))
        }
    }
}

fn too_late(chain: &str, waited: Duration, why: &str, place: &str) -> String {
    let mut text = format!(
        "the keys of chain {chain} are not all rotated after {}",
        in_words(waited.as_secs())
    );
    let goes_on = format!("the rotation goes on; see `servicechain keys {place}`");
    for line in wrapped(&format!("{why}\n{goes_on}"), COLUMNS - 2) {
        text.push_str("\n  ");
        text.push_str(&line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> ServiceChain {
        serde_saphyr::from_str(include_str!("../fixtures/ready.yaml")).unwrap()
    }

    fn keys(chain: &ServiceChain) -> KeysStatus {
        chain.status.as_ref().unwrap().keys.clone().unwrap()
    }

    fn order(now: &str) -> Order {
        Order::of(&ready(), None, now.parse().unwrap()).unwrap()
    }

    /// As the operator carries an order out: the staged key signs, those before it retire.
    fn rotated(order: &Order) -> KeysStatus {
        let mut keys = keys(&ready());
        keys.generation = 9;
        for key in &mut keys.entries {
            if key.state == "Staged" {
                "Active".clone_into(&mut key.state);
                key.since.0 = order.before;
            } else {
                "Retiring".clone_into(&mut key.state);
            }
        }
        keys
    }

    #[test]
    fn an_order_is_later_than_every_key_that_signs_and_never_taken_back() {
        let early = order("2026-01-01T00:00:00Z");
        assert_eq!(early.before.to_string(), "2026-01-01T00:09:21Z");
        assert_eq!(
            order("2026-01-02T00:00:00.7Z").before.to_string(),
            "2026-01-02T00:00:00Z"
        );
        let mut chain = ready();
        let ordered = [(ROTATE_ANNOTATION.to_owned(), "2026-02-01T00:00:00Z".to_owned())];
        chain.metadata.annotations = Some(ordered.into());
        let again = Order::of(&chain, Some("platform"), "2026-01-02T00:00:00Z".parse().unwrap());
        let again = again.unwrap();
        assert_eq!(again.before.to_string(), "2026-02-01T00:00:00Z");
        assert_eq!(
            again.due_in("2026-01-31T23:00:00Z".parse().unwrap()).unwrap(),
            "the keys are ordered to be replaced from 2026-02-01T00:00:00Z on, in 1 h; an earlier order said so \
             (annotation servicechain.dev/rotate-keys-before)"
        );
        assert_eq!(again.due_in("2026-02-01T00:00:00Z".parse().unwrap()), None);
    }

    #[test]
    fn what_cannot_be_rotated_is_said() {
        let refused = |chain: &ServiceChain, issuer| match Order::of(chain, issuer, Timestamp::UNIX_EPOCH) {
            Err(Failure::BadInput(says)) => says,
            other => format!("{other:?}"),
        };
        let mut chain = ready();
        assert!(refused(&chain, Some("corp")).starts_with("NotSupportedYet: "));
        chain.spec.issuers[0].managed = None;
        assert!(refused(&chain, None).starts_with("chain shop has no issuer of its own; "));
    }

    #[test]
    fn it_is_done_once_only_new_keys_sign_and_everybody_holds_them() {
        let order = order("2026-01-02T00:00:00Z");
        assert_eq!(
            order.progress(Some(&keys(&ready()))).unwrap_err(),
            "platform still signs with k7f2…, k1c9…; 10 of 10 verifiers hold generation 7"
        );
        let mut keys = rotated(&order);
        keys.acknowledged = 9;
        keys.laggard_count = 2;
        keys.laggards = serde_json::from_value(json!([
            {"pod": "shop-b-1", "reason": "Unreachable", "since": "2026-01-01T00:00:00Z"},
        ]))
        .unwrap();
        assert_eq!(
            order.progress(Some(&keys)).unwrap_err(),
            "9 of 10 verifiers hold generation 9; not yet: shop-b-1 (Unreachable), 1 more"
        );
        keys.acknowledged = 10;
        let done = order.progress(Some(&keys)).unwrap();
        assert_eq!(
            done.line(Duration::from_millis(420)),
            "s9d3… signs after 0.4 s, 10/10 verifiers, generation 9 · k7f2…, k1c9… retire"
        );
        keys.entries.clear();
        assert!(
            order
                .progress(Some(&keys))
                .unwrap_err()
                .starts_with("platform has no key that signs; ")
        );
    }

    #[test]
    fn what_is_in_the_way_at_the_end_is_said() {
        assert_eq!(
            too_late(
                "shop",
                Duration::from_mins(1),
                "platform still signs with k7f2…",
                "-n shop shop"
            ),
            "the keys of chain shop are not all rotated after 1 m
  platform still signs with k7f2…
  the rotation goes on; see `servicechain keys -n shop shop`"
        );
    }
}
