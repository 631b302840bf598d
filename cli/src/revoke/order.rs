//! The object `Revocation` that an order comes to: what it is called, what it says, and how it is made.

use anyhow::anyhow;
use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, PostParams};
use servicechain_crds::service_chain::issuers::ObjectName;
use servicechain_crds::{Revocation, RevocationSpec, ServiceChain};

use super::{Args, LONGEST_NAME};
use crate::cluster::{Cluster, Question, Unanswered};
use crate::outcome::Failure;
use crate::paint::tame;

/// So many letters of a key's id `servicechain keys` shows; fewer are none.
const SHOWN: usize = 4;

/// Refuses an issuer that the chain does not have, and names those it has.
pub(super) fn known_issuer(chain: &ServiceChain, issuer: &str) -> Result<(), Failure> {
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

/// The whole id of the issuer's one key that is called `given`, or begins so. One that no verifier holds is refused: a key
/// that is mistyped must not seem revoked.
pub(super) fn known_key(chain: &ServiceChain, issuer: &str, given: &str) -> Result<String, Failure> {
    let keys = chain.status.as_ref().and_then(|status| status.keys.as_ref());
    let all = keys.into_iter().flat_map(|keys| &keys.entries);
    let kids: Vec<&str> = all
        .filter(|key| key.issuer == issuer)
        .map(|key| key.kid.as_str())
        .collect();
    let beginning = given.trim_end_matches('…');
    let is_meant = |kid: &&str| beginning.len() >= SHOWN && kid.starts_with(beginning);
    let mut meant: Vec<&str> = kids.iter().copied().filter(is_meant).collect();
    if kids.contains(&given) {
        meant = vec![given];
    }
    let is_cut = keys.is_some_and(|keys| keys.entry_count.is_some());
    let listed = |kids: &[&str]| {
        let tamed: Vec<String> = kids.iter().map(|kid| tame(kid, LONGEST_NAME)).collect();
        tamed.join(", ")
    };
    let given_tamed = tame(given, LONGEST_NAME);
    match meant[..] {
        [only] if only == given || !is_cut => Ok(only.to_owned()),
        _ if is_cut => Err(Failure::BadInput(format!(
            "key {given_tamed} is not among those that the chain's status names, which are some of many; make a Revocation of \
             the whole id with kubectl"
        ))),
        [] if kids.is_empty() => Err(Failure::BadInput(format!(
            "issuer {issuer} has no key {given_tamed}: it has none yet"
        ))),
        [] => Err(Failure::BadInput(format!(
            "issuer {issuer} has no key {given_tamed}; it has {}. To refuse a key before it comes, make a Revocation with \
             kubectl",
            listed(&kids)
        ))),
        _ => Err(Failure::BadInput(format!(
            "issuer {issuer} has several keys that begin with {given_tamed}: {}; give more of it",
            listed(&meant)
        ))),
    }
}

/// Its name follows from what it revokes, so that the same order twice is one. Without a time, an order about a subject,
/// a session or a client is about all tokens until now: a later one is another.
pub(super) fn revocation(args: &Args, now: Timestamp) -> Revocation {
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

/// Whether this very order was given before.
pub(super) async fn is_there(cluster: &Cluster, wanted: &Revocation) -> Result<bool, Failure> {
    let api = cluster.api::<Revocation>();
    let name = wanted.metadata.name.as_deref().unwrap_or_default();
    let question = Question {
        verb: "get",
        resource: "revocations.servicechain.dev",
    };
    match cluster.ask(question, api.get(name)).await {
        Ok(object) => Ok(object.spec == wanted.spec),
        Err(Unanswered::NotFound(_)) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

/// The object, made now or standing already.
pub(super) async fn create(cluster: &Cluster, wanted: &Revocation) -> Result<Revocation, Failure> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::args;
    use super::*;

    fn named(line: &str, at: i64) -> (String, serde_json::Value) {
        let made = revocation(&args(line).unwrap(), Timestamp::from_second(at).unwrap());
        servicechain_crds::validated_revocation(&made).unwrap();
        (
            made.metadata.name.unwrap(),
            serde_json::to_value(made.spec).unwrap(),
        )
    }

    #[test]
    fn a_key_is_named_whole_or_by_its_beginning_and_must_be_there() {
        let chain: ServiceChain = serde_saphyr::from_str(include_str!("../../fixtures/ready.yaml")).unwrap();
        let known = |given: &str| {
            known_key(&chain, "platform", given).map_err(|failure| failure.message().unwrap_or_default())
        };
        assert_eq!(known("k7f2KPdZ0sT3").unwrap(), "k7f2KPdZ0sT3");
        assert_eq!(known("k7f2…").unwrap(), "k7f2KPdZ0sT3");
        assert_eq!(known("s9d3W").unwrap(), "s9d3WmA7nQxL");
        for given in ["nokey", "k7f", "", "…", "k7f2KPdZ0sT3x"] {
            let error = known(given).unwrap_err();
            assert!(
                error.contains("it has k7f2KPdZ0sT3, k1c9Qm3xY8wV"),
                "{given}: {error}"
            );
        }
        let mut many = chain.clone();
        many.status.as_mut().unwrap().keys.as_mut().unwrap().entry_count = Some(70);
        assert!(known_key(&many, "platform", "k7f2KPdZ0sT3").is_ok());
        for given in ["k7f2", "k8", "k8xxxxxxxxxx"] {
            assert!(known_key(&many, "platform", given).is_err(), "{given}");
        }
        let mut twins = chain.clone();
        twins.status.as_mut().unwrap().keys.as_mut().unwrap().entries[1].kid = "k7f2other".to_owned();
        let error = known_key(&twins, "platform", "k7f2")
            .unwrap_err()
            .message()
            .unwrap();
        assert!(
            error.contains("several keys that begin with k7f2: k7f2KPdZ0sT3, k7f2other"),
            "{error}"
        );
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
}
