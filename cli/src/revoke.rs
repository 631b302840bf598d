//! `servicechain revoke`: makes a `Revocation` and waits until every verifier of the chain refuses what it names. The
//! object stays whatever becomes of the wait: the operator goes on with it.

mod isolate;
mod order;

use std::time::Duration;

use anyhow::anyhow;
use jiff::Timestamp;
use serde::Serialize;
use servicechain_crds::Revocation;
use tokio::time::{Instant, sleep_until};

use crate::cluster::{Cluster, Place, Question, Unanswered};
use crate::outcome::Failure;
use crate::paint::{short_key, tame};
use crate::status::Output;
use crate::wait::duration;
use crate::wording::{COLUMNS, elapsed, in_words, wrapped};
use crate::{now, print};
use isolate::{Isolation, Outcome};

/// How often the object is asked for.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Longest name of a subject, a session or a token that is shown whole.
const LONGEST_NAME: usize = 48;
/// Longest sentence of the operator that is printed.
const LONGEST_SENTENCE: usize = 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the chain
    chain: String,
    /// Name of the issuer in the chain; a subject, a session, a client and a token mean nothing without one
    #[arg(long, value_name = "NAME")]
    issuer: String,
    #[command(flatten)]
    named: Named,
    /// Only the subject's or client's tokens issued before this time, such as 2026-01-31T12:00:00Z; default: all until
    /// now. A time to come refuses new ones too until then
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with_all = ["key", "session", "token_id"])]
    issued_before: Option<Timestamp>,
    /// How long to wait, such as 30s or 2m; the revocation stays whatever happens
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// How to say it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    /// End the pods that do not hold it in time: no Service sends to them from then on. As long again is waited
    #[arg(long)]
    isolate: bool,
    #[command(flatten)]
    place: Place,
}

/// What is revoked: one of these.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Named {
    /// Every token that the key of this id (`kid`) signed; the key is trusted no more. Its beginning will do, as
    /// `servicechain keys` shows it
    #[arg(long, value_name = "KID")]
    key: Option<String>,
    /// Every token about this subject (`sub`) until now
    #[arg(long, value_name = "SUB")]
    subject: Option<String>,
    /// Every token of this session (`sid`) until now
    #[arg(long, value_name = "SID")]
    session: Option<String>,
    /// Every token that this client (`client_id`) was given until now
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// One token (`jti`)
    #[arg(long, value_name = "JTI")]
    token_id: Option<String>,
}

/// What is printed of a revocation that every verifier holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Refused<'a> {
    revocation: String,
    namespace: &'a str,
    chain: &'a str,
    issuer: &'a str,
    acknowledged: i32,
    verifiers: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
    /// Pods that were ended.
    #[serde(skip_serializing_if = "<[Outcome]>::is_empty")]
    isolated: &'a [Outcome],
    seconds: f64,
}

pub(crate) async fn run(mut args: Args) -> Result<(), Failure> {
    let begun = Instant::now();
    let cluster = Cluster::find(&args.place).await?;
    let chain = cluster.chain_or_others(&args.chain).await?;
    order::known_issuer(&chain, &args.issuer)?;
    if let Some(given) = &args.named.key {
        match order::known_key(&chain, &args.issuer, given) {
            Ok(kid) => args.named.key = Some(kid),
            // Gone because it is revoked: the same order again.
            Err(_) if order::is_there(&cluster, &order::revocation(&args, now())).await? => (),
            Err(unknown) => return Err(unknown),
        }
    }
    if args.isolate {
        isolate::check_rights(&cluster).await?;
    }
    let mut object = order::create(&cluster, &order::revocation(&args, now())).await?;
    let mut isolation = Isolation::default();
    let mut found = wait(&cluster, &args, &mut object, begun + args.timeout, None).await?;
    if args.isolate && matches!(found, Standing::Not(_)) {
        let deadline = Instant::now() + args.timeout;
        found = wait(&cluster, &args, &mut object, deadline, Some(&mut isolation)).await?;
    }
    let what = args.named.in_words(&args.issuer);
    match found {
        Standing::Enforced => {
            let took = begun.elapsed();
            let isolated = isolation.outcome(&cluster).await;
            say(&args, &cluster.namespace, &object, &isolated, took)
        }
        Standing::Expired => print(&format!("{what} has expired, and is refused for that\n")),
        Standing::Not(why) => {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            let isolated = isolation.outcome(&cluster).await;
            let left = isolated.iter().map(Outcome::sentence);
            let why: Vec<String> = std::iter::once(why).chain(left).collect();
            let waited = if args.isolate {
                args.timeout.saturating_mul(2)
            } else {
                args.timeout
            };
            Err(Failure::TimedOut(too_late(&what, waited, &why, name)))
        }
    }
}

/// Until it is enforced or the time is over, and then what is in the way. `isolation` ends meanwhile whoever is behind.
async fn wait(
    cluster: &Cluster,
    args: &Args,
    object: &mut Revocation,
    deadline: Instant,
    mut isolation: Option<&mut Isolation>,
) -> Result<Standing, Failure> {
    let question = Question {
        verb: "get",
        resource: "revocations.servicechain.dev",
    };
    let name = object.metadata.name.clone().unwrap_or_default();
    loop {
        let found = standing(object);
        let next = Instant::now() + ASK_EVERY;
        if next > deadline || !matches!(found, Standing::Not(_)) {
            return Ok(found);
        }
        if let Some(isolation) = isolation.as_deref_mut() {
            isolation.end_who_is_behind(cluster, &args.chain, object).await?;
        }
        sleep_until(next).await;
        let api = cluster.api::<Revocation>();
        match tokio::time::timeout_at(deadline, cluster.ask(question, api.get(&name))).await {
            Ok(Ok(newer)) => *object = newer,
            Ok(Err(Unanswered::NotFound(_))) => {
                let what = args.named.in_words(&args.issuer);
                return Err(anyhow!(
                    "Revocation {name} was deleted while it was waited for: {what} may pass"
                )
                .into());
            }
            // What passes by itself is asked again until the time is over.
            Ok(Err(Unanswered::Unreachable(_))) | Err(_) => {}
            Ok(Err(other)) => return Err(other.into()),
        }
    }
}

impl Named {
    /// What kind of thing it is, and which.
    fn parts(&self) -> (&'static str, &str) {
        let kinds = [
            ("key", &self.key),
            ("subject", &self.subject),
            ("session", &self.session),
            ("client", &self.client),
            ("token", &self.token_id),
        ];
        let mut given = kinds
            .into_iter()
            .filter_map(|(kind, value)| Some((kind, value.as_deref()?)));
        given.next().unwrap_or_default()
    }

    fn in_words(&self, issuer: &str) -> String {
        match self.parts() {
            ("key", kid) => format!("key {} of {issuer}", short_key(kid)),
            ("subject", subject) => format!("{} of {issuer}", tame(subject, LONGEST_NAME)),
            (kind, value) => format!("{kind} {} of {issuer}", tame(value, LONGEST_NAME)),
        }
    }
}

enum Standing {
    Enforced,
    Expired,
    Not(String),
}

fn standing(object: &Revocation) -> Standing {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let mut of_newest = conditions.filter(|condition| {
        condition.type_ == "Enforced" && condition.observed_generation >= object.metadata.generation
    });
    match of_newest.next() {
        None => Standing::Not("the operator has said nothing about it yet; is it running?".to_owned()),
        Some(said) if said.status != "True" => Standing::Not(tame(&said.message, LONGEST_SENTENCE)),
        Some(said) if said.reason == "Expired" => Standing::Expired,
        Some(_) => Standing::Enforced,
    }
}

fn say(
    args: &Args,
    namespace: &str,
    object: &Revocation,
    isolated: &[Outcome],
    took: Duration,
) -> Result<(), Failure> {
    let status = object.status.clone().unwrap_or_default();
    let refused = Refused {
        revocation: object.metadata.name.clone().unwrap_or_default(),
        namespace,
        chain: &args.chain,
        issuer: &args.issuer,
        acknowledged: status.acknowledged,
        verifiers: status.verifiers,
        generation: status.bundle_generation,
        isolated,
        seconds: took.as_secs_f64(),
    };
    match args.output {
        Output::Text => {
            let mut text = String::new();
            for line in isolated
                .iter()
                .flat_map(|ended| wrapped(&ended.sentence(), COLUMNS))
            {
                text.push_str(&line);
                text.push('\n');
            }
            print(&format!(
                "{text}{} is refused after {}, {}/{} verifiers, generation {}\n",
                args.named.in_words(&args.issuer),
                elapsed(took),
                refused.acknowledged,
                refused.verifiers,
                refused.generation.unwrap_or_default()
            ))
        }
        Output::Json => {
            let line = serde_json::to_string(&refused).map_err(anyhow::Error::from)?;
            print(&format!("{line}\n"))
        }
    }
}

fn too_late(what: &str, waited: Duration, why: &[String], name: &str) -> String {
    let mut text = format!(
        "{what} is not refused everywhere after {}",
        in_words(waited.as_secs())
    );
    let stays = format!("Revocation {name} stays, and the operator goes on with it");
    for line in wrapped(&format!("{}\n{stays}", why.join("\n")), COLUMNS - 2) {
        text.push_str("\n  ");
        text.push_str(&line);
    }
    text
}

fn time(text: &str) -> Result<Timestamp, String> {
    let time: Timestamp = text
        .parse()
        .map_err(|_| "not a time such as 2026-01-31T12:00:00Z".to_owned())?;
    // As Kubernetes keeps it.
    Timestamp::from_second(time.as_second()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    pub(super) fn args(line: &str) -> Result<Args, clap::Error> {
        let words = std::iter::once("revoke").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.args)
    }

    #[test]
    fn exactly_one_thing_is_revoked() {
        use clap::error::ErrorKind::{ArgumentConflict, MissingRequiredArgument, ValueValidation};
        for (line, kind) in [
            ("shop --issuer platform", MissingRequiredArgument),
            ("shop --key k", MissingRequiredArgument),
            ("shop --issuer platform --key k --subject s", ArgumentConflict),
            ("shop --issuer platform --client c --subject s", ArgumentConflict),
            (
                "shop --issuer platform --key k --issued-before 2026-01-31T12:00:00Z",
                ArgumentConflict,
            ),
            (
                "shop --issuer platform --subject s --issued-before noon",
                ValueValidation,
            ),
        ] {
            assert_eq!(args(line).unwrap_err().kind(), kind, "{line}");
        }
    }

    #[test]
    fn what_is_revoked_is_said_in_words() {
        let said = |line: &str| args(line).unwrap().named.in_words("platform");
        assert_eq!(
            said("shop --issuer platform --subject mallory"),
            "mallory of platform"
        );
        assert_eq!(
            said("shop --issuer platform --key k7f2KPd"),
            "key k7f2… of platform"
        );
        assert_eq!(
            said("shop --issuer platform --session s1"),
            "session s1 of platform"
        );
        assert_eq!(
            said("shop --issuer platform --client demo"),
            "client demo of platform"
        );
        assert_eq!(
            said("shop --issuer platform --token-id t1"),
            "token t1 of platform"
        );
    }

    #[test]
    fn who_does_not_refuse_it_yet_is_named() {
        let why = "9 of 10 verifiers refuse what it names; not yet: shop-b-1 (does not answer)".to_owned();
        assert_eq!(
            too_late(
                "mallory of platform",
                Duration::from_secs(30),
                &[why],
                "shop-subject-1"
            ),
            "mallory of platform is not refused everywhere after 30 s
  9 of 10 verifiers refuse what it names; not yet: shop-b-1 (does not answer)
  Revocation shop-subject-1 stays, and the operator goes on with it"
        );
    }
}
