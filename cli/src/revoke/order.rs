//! The object `Revocation` that an order comes to: what it is called, what it says, and how it is made.

use anyhow::anyhow;
use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, PostParams};
use servicechain_crds::service_chain::issuers::ObjectName;
use servicechain_crds::{Revocation, RevocationSpec, ServiceChain};

use super::{Args, LONGEST_NAME};
use crate::cluster::{Cluster, Question};
use crate::outcome::Failure;
use crate::paint::tame;

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
