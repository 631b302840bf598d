//! `servicechain revoke`: makes a `Revocation` and waits until every verifier of the chain refuses what it names. The
//! object stays whatever becomes of the wait: the operator goes on with it.

use std::time::Duration;

use anyhow::anyhow;
use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, PostParams};
use serde::Serialize;
use servicechain_crds::service_chain::issuers::ObjectName;
use servicechain_crds::{Revocation, RevocationSpec, ServiceChain};
use tokio::time::{Instant, sleep_until};

use crate::cluster::{Cluster, Place, Question, Unanswered};
use crate::outcome::Failure;
use crate::paint::{short_key, tame};
use crate::status::Output;
use crate::wait::duration;
use crate::wording::{COLUMNS, elapsed, in_words, wrapped};
use crate::{now, print};

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
    /// Not supported yet
    #[arg(long, hide = true)]
    isolate: bool,
    #[command(flatten)]
    place: Place,
}

/// What is revoked: one of these.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Named {
    /// Every token that the key of this id (`kid`) signed; the key is trusted no more
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
    seconds: f64,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    if args.isolate {
        return Err(Failure::BadInput(
            "NotSupportedYet: --isolate cannot be done by this version; leave it out, and end the pods that are named \
             with kubectl delete pod"
                .to_owned(),
        ));
    }
    let begun = Instant::now();
    let cluster = Cluster::find(&args.place).await?;
    let chain = cluster.chain_or_others(&args.chain).await?;
    known_issuer(&chain, &args.issuer)?;
    let wanted = revocation(&args, now());
    let mut object = create(&cluster, &wanted).await?;
    let name = wanted.metadata.name.unwrap_or_default();
    let what = args.named.in_words(&args.issuer);
    let question = Question {
        verb: "get",
        resource: "revocations.servicechain.dev",
    };
    let deadline = begun + args.timeout;
    loop {
        let why = match standing(&object) {
            Standing::Enforced => return say(&args, &cluster.namespace, &object, begun.elapsed()),
            Standing::Expired => return print(&format!("{what} has expired, and is refused for that\n")),
            Standing::Not(why) => why,
        };
        let next = Instant::now() + ASK_EVERY;
        if next > deadline {
            return Err(Failure::TimedOut(too_late(&what, args.timeout, &why, &name)));
        }
        sleep_until(next).await;
        let api = cluster.api::<Revocation>();
        match tokio::time::timeout_at(deadline, cluster.ask(question, api.get(&name))).await {
            Ok(Ok(newer)) => object = newer,
            Ok(Err(Unanswered::NotFound(_))) => {
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

fn known_issuer(chain: &ServiceChain, issuer: &str) -> Result<(), Failure> {
    let issuers: Vec<&str> = chain
        .spec
        .issuers
        .iter()
        .map(|issuer| issuer.name.as_str())
        .collect();
    if issuers.contains(&issuer) {
        return Ok(());
    }
    let name = chain.metadata.name.as_deref().unwrap_or_default();
    let there_are = if issuers.is_empty() {
        "it has none".to_owned()
    } else {
        format!("it has {}", issuers.join(", "))
    };
    Err(Failure::BadInput(format!(
        "chain {name} has no issuer {:?}; {there_are}",
        tame(issuer, LONGEST_NAME)
    )))
}

/// Its name follows from what it revokes, so that the same order twice is one. Without a time, an order about a subject,
/// a session or a client is about all tokens until now: a later one is another.
fn revocation(args: &Args, now: Timestamp) -> Revocation {
    let (kind, value) = args.named.parts();
    let until = match kind {
        "subject" | "session" | "client" => args.issued_before.unwrap_or(now).as_second(),
        _ => 0,
    };
    let identity =
        [&args.issuer, kind, value, &until.to_string()].map(|part| format!("{}:{part}", part.len()));
    let digest = digest(&SHA256, identity.concat().as_bytes());
    // Enough of it that no two of a namespace meet.
    let start = digest.as_ref().first_chunk().copied().unwrap_or_default();
    let name = format!("{}-{kind}-{:016x}", args.chain, u64::from_be_bytes(start));
    let spec = RevocationSpec {
        chain_ref: ObjectName {
            name: args.chain.clone(),
        },
        issuer: args.issuer.clone(),
        key: args.named.key.clone(),
        subject: args.named.subject.clone(),
        session_id: args.named.session.clone(),
        client_id: args.named.client.clone(),
        token_id: args.named.token_id.clone(),
        issued_before: args.issued_before.map(Time),
        expires_after: None,
    };
    Revocation {
        metadata: ObjectMeta {
            name: Some(name),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

/// The object, made now or standing already.
async fn create(cluster: &Cluster, wanted: &Revocation) -> Result<Revocation, Failure> {
    let api = cluster.api::<Revocation>();
    let name = wanted.metadata.name.as_deref().unwrap_or_default();
    let question = Question {
        verb: "create",
        resource: "revocations.servicechain.dev",
    };
    let parameters = PostParams {
        field_manager: Some("servicechain".to_owned()),
        ..PostParams::default()
    };
    let created = async {
        match api.create(&parameters, wanted).await {
            Err(kube::Error::Api(status)) if status.code == 409 => api.get(name).await,
            other => other,
        }
    };
    let object = cluster.ask(question, created).await?;
    if object.spec == wanted.spec {
        return Ok(object);
    }
    Err(Failure::Failed(anyhow!(
        "Revocation {name} is there already and says something else; delete it, and try again"
    )))
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

fn say(args: &Args, namespace: &str, object: &Revocation, took: Duration) -> Result<(), Failure> {
    let status = object.status.clone().unwrap_or_default();
    let refused = Refused {
        revocation: object.metadata.name.clone().unwrap_or_default(),
        namespace,
        chain: &args.chain,
        issuer: &args.issuer,
        acknowledged: status.acknowledged,
        verifiers: status.verifiers,
        generation: status.bundle_generation,
        seconds: took.as_secs_f64(),
    };
    match args.output {
        Output::Text => print(&format!(
            "{} is refused after {}, {}/{} verifiers, generation {}\n",
            args.named.in_words(&args.issuer),
            elapsed(took),
            refused.acknowledged,
            refused.verifiers,
            refused.generation.unwrap_or_default()
        )),
        Output::Json => {
            let line = serde_json::to_string(&refused).map_err(anyhow::Error::from)?;
            print(&format!("{line}\n"))
        }
    }
}

fn too_late(what: &str, waited: Duration, why: &str, name: &str) -> String {
    let mut text = format!(
        "{what} is not refused everywhere after {}",
        in_words(waited.as_secs())
    );
    let stays = format!("Revocation {name} stays, and the operator goes on with it");
    for line in wrapped(&format!("{why}\n{stays}"), COLUMNS - 2) {
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
    use serde_json::json;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Result<Args, clap::Error> {
        let words = std::iter::once("revoke").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.args)
    }

    fn named(line: &str, at: i64) -> (String, serde_json::Value) {
        let made = revocation(&args(line).unwrap(), Timestamp::from_second(at).unwrap());
        servicechain_crds::validated_revocation(&made).unwrap();
        (
            made.metadata.name.unwrap(),
            serde_json::to_value(made.spec).unwrap(),
        )
    }

    #[test]
    fn the_same_order_is_the_same_object_and_another_is_another() {
        let (key, spec) = named("shop --issuer platform --key k7f2", 1);
        assert_eq!(
            spec,
            json!({"chainRef": {"name": "shop"}, "issuer": "platform", "key": "k7f2"})
        );
        assert!(
            key.starts_with("shop-key-") && key.len() == "shop-key-".len() + 16,
            "{key}"
        );
        assert_eq!(named("shop --issuer platform --key k7f2", 2).0, key);
        assert_ne!(named("shop --issuer platform --key k7f3", 1).0, key);
        assert_ne!(named("shop --issuer corp --key k7f2", 1).0, key);
        let subject = "shop --issuer platform --subject mallory";
        assert_ne!(named(subject, 1).0, named(subject, 2).0, "tokens came in between");
        let (timed, spec) = named(&format!("{subject} --issued-before 2026-01-31T12:00:00.5Z"), 1);
        assert_eq!(spec["issuedBefore"], "2026-01-31T12:00:00Z");
        let again = named(&format!("{subject} --issued-before 2026-01-31T13:00:00+01:00"), 2);
        assert_eq!(again.0, timed);
        let (_, spec) = named(
            "shop --issuer platform --client demo --issued-before 2026-01-31T12:00:00Z",
            1,
        );
        assert_eq!(
            (&spec["clientID"], &spec["issuedBefore"]),
            (&json!("demo"), &json!("2026-01-31T12:00:00Z"))
        );
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
        let why = "9 of 10 verifiers refuse what it names; not yet: shop-b-1 (does not answer)";
        assert_eq!(
            too_late(
                "mallory of platform",
                Duration::from_secs(30),
                why,
                "shop-subject-1"
            ),
            "mallory of platform is not refused everywhere after 30 s
  9 of 10 verifiers refuse what it names; not yet: shop-b-1 (does not answer)
  Revocation shop-subject-1 stays, and the operator goes on with it"
        );
    }
}
