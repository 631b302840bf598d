//! `servicechain wait`: until a condition of a chain holds for what its specification says now. Whether it does is
//! decided in `standing`.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::anyhow;
use servicechain_crds::ServiceChain;
use servicechain_crds::duration::GatewayDuration;
use tokio::time::{Instant, sleep_until};

use crate::cluster::{Cluster, Place, Unanswered};
use crate::outcome::Failure;
use crate::print;
use crate::standing::{self, CONDITIONS, Standing};
use crate::wording::{COLUMNS, in_words, wrapped};

/// How often the chain is asked for. Asking again needs no right but `get` and outlives any lost connection.
const ASK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the chain
    chain: String,
    /// The condition that must be True for the newest generation of the chain
    #[arg(long = "for", value_name = "CONDITION", default_value = "Ready", value_parser = CONDITIONS, ignore_case = true)]
    condition: String,
    /// How long to wait, such as 90s or 5m; 0s looks once
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    place: Place,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let begun = Instant::now();
    let deadline = begun + args.timeout;
    let (name, condition) = (&args.chain, canonical(&args.condition));
    let cluster = Cluster::find(&args.place).await?;
    print(&format!(
        "waiting up to {} for chain {name} in namespace {} to be {condition}\n",
        in_words(args.timeout.as_secs()),
        cluster.namespace
    ))?;
    // Who never answered will not be there in a second; who answered once is waited for.
    let mut chain = cluster.chain_or_others(name).await?;
    let mut said = String::new();
    let mut trouble = None;
    loop {
        let is_answered = trouble.is_none();
        let standing = trouble
            .take()
            .map_or_else(|| standing::of(&chain, condition), Standing::Not);
        let elapsed = begun.elapsed().as_secs();
        match standing {
            Standing::Holds => return print(&format!("{name} is {condition} after {}\n", in_words(elapsed))),
            Standing::Not(_) if is_answered && is_refused(&chain) => {
                let sentence = block(
                    &format!("chain {name} will not be {condition} as it is"),
                    &sentences(&chain, condition),
                );
                return Err(anyhow!(sentence).into());
            }
            Standing::Not(why) => {
                let first = first_of(&why);
                if first != said {
                    print(&line(elapsed, &first))?;
                    said = first;
                }
            }
        }
        let next = Instant::now() + ASK_EVERY;
        if next > deadline {
            let known = is_answered.then_some(&chain);
            return Err(Failure::TimedOut(too_late(
                name,
                known,
                condition,
                args.timeout,
                &said,
            )));
        }
        sleep_until(next).await;
        match tokio::time::timeout_at(deadline, cluster.chain(name)).await {
            Ok(Ok(newer)) => chain = newer,
            Ok(Err(Unanswered::NotFound(_))) => {
                return Err(Failure::NoSuchChain(format!(
                    "chain {name} of namespace {} was deleted while it was waited for",
                    cluster.namespace
                )));
            }
            Ok(Err(Unanswered::Unreachable(why))) => trouble = Some(why),
            Ok(Err(other)) => return Err(other.into()),
            // The loop's next turn ends it.
            Err(_) => {}
        }
    }
}

/// The newest spec is refused: only another one changes that, so there is nothing to wait for.
fn is_refused(chain: &ServiceChain) -> bool {
    let newest = chain.metadata.generation;
    standing::conditions(chain).iter().any(|condition| {
        condition.type_ == "Accepted"
            && condition.status == "False"
            && condition.observed_generation >= newest
    })
}

/// What is in the way first, and how much more.
fn first_of(why: &str) -> String {
    let first = why.lines().next().unwrap_or_default();
    match why.lines().count() {
        0 | 1 => first.to_owned(),
        lines => format!("{first} (and {} more)", lines - 1),
    }
}

/// One change: when, and what stands in the way now.
fn line(elapsed: u64, why: &str) -> String {
    let indent = format!("{:>8}  ", in_words(elapsed));
    let mut text = String::new();
    for (index, line) in wrapped(why, COLUMNS - indent.len()).iter().enumerate() {
        let lead = if index == 0 {
            indent.clone()
        } else {
            " ".repeat(indent.len())
        };
        let _ = writeln!(text, "{lead}{line}");
    }
    text
}

/// `chain` is `None` while nobody answers: what was known of it is no longer what is in the way.
fn too_late(
    name: &str,
    chain: Option<&ServiceChain>,
    condition: &str,
    waited: Duration,
    last: &str,
) -> String {
    let mut sentences = chain.map(|chain| sentences(chain, condition)).unwrap_or_default();
    if sentences.is_empty() {
        sentences.push(last.to_owned());
    }
    let heading = format!(
        "chain {name} is not {condition} after {}",
        in_words(waited.as_secs())
    );
    block(&heading, &sentences)
}

fn sentences(chain: &ServiceChain, condition: &str) -> Vec<String> {
    let in_the_way = standing::in_the_way(chain, condition);
    in_the_way.into_iter().map(standing::sentence).collect()
}

fn block(heading: &str, sentences: &[String]) -> String {
    let mut text = heading.to_owned();
    for sentence in sentences {
        for (index, line) in wrapped(sentence, COLUMNS - 4).iter().enumerate() {
            text.push_str(if index == 0 { "\n  " } else { "\n    " });
            text.push_str(line);
        }
    }
    text
}

fn canonical(condition: &str) -> &'static str {
    CONDITIONS
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(condition))
        .unwrap_or("Ready")
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    GatewayDuration::from(text)
        .parse()
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_at_the_end_is_said_condition_by_condition() {
        let chain: ServiceChain = serde_saphyr::from_str(include_str!("../fixtures/broken.yaml")).unwrap();
        assert_eq!(
            too_late(
                "shop",
                Some(&chain),
                "Ready",
                Duration::from_mins(5),
                "StoresNotReady: x"
            ),
            "chain shop is not Ready after 5 m
  StoresReady is False (VolumeNotBound): the volume shop-a-postgres does not bind: there is no
    StorageClass \"fast\"; choose another spec.services[0].database.managed.storage.className or make
    it
  ServicesReady is False (ImageNotPulled): pod shop-b-7d9f5c6b8d-x2k4p: the image
    registry.example/team/item-service:4.0.1-rc.2 does not pull (not found): check
    spec.services[1].image"
        );
        assert_eq!(
            too_late(
                "shop",
                Some(&chain),
                "IssuersReady",
                Duration::from_secs(1),
                "the operator does not say"
            ),
            "chain shop is not IssuersReady after 1 s\n  the operator does not say"
        );
        assert_eq!(
            too_late("shop", None, "Ready", Duration::from_secs(1), "nobody answers"),
            "chain shop is not Ready after 1 s\n  nobody answers"
        );
    }

    #[test]
    fn a_change_is_a_line_with_its_time() {
        assert_eq!(line(72, "Waiting: pod x"), "1 m 12 s  Waiting: pod x\n");
        assert_eq!(first_of("Waiting: x\ny\nz"), "Waiting: x (and 2 more)");
        assert_eq!(first_of("Waiting: x"), "Waiting: x");
    }

    #[test]
    fn a_refused_spec_is_not_waited_for_unless_it_is_an_older_one() {
        let mut chain: ServiceChain =
            serde_saphyr::from_str(include_str!("../fixtures/broken.yaml")).unwrap();
        assert!(!is_refused(&chain));
        let newest = chain.metadata.generation.unwrap();
        let conditions = &mut chain.status.as_mut().unwrap().conditions;
        let accepted = conditions
            .iter_mut()
            .find(|condition| condition.type_ == "Accepted")
            .unwrap();
        accepted.status = "False".to_owned();
        accepted.observed_generation = Some(newest);
        assert!(is_refused(&chain));
        chain.metadata.generation = Some(newest + 1);
        assert!(!is_refused(&chain));
    }

    #[test]
    fn every_known_condition_is_itself() {
        for condition in CONDITIONS {
            assert_eq!(canonical(&condition.to_lowercase()), condition);
        }
    }
}
