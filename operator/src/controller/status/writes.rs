//! What the API server would not do, by the component that it concerns, and the Secrets of users that are not there. It
//! must not know conditions.

use servicechain_crds::ValidatedChain;
use servicechain_crds::validated::{Client, Issuer};

use super::reason::{Reason, Trouble};
use super::words::quote;
use crate::controller::observed::{NameTaken, Observed, Refusal, WriteFailure};
use crate::object_names::{CLIENT_ID_KEY, CLIENT_SECRET_KEY, Component, object};

/// An object that was not written.
pub(crate) struct Unwritten<'a> {
    /// The part that it belongs to; `None`: the whole chain.
    pub component: Option<Component<'a>>,
    pub trouble: Trouble,
    /// It is not even there as it was before.
    pub is_absent: bool,
}

pub(crate) fn unwritten<'a>(
    chain: &str,
    components: &[Component<'a>],
    observed: &Observed,
) -> Vec<Unwritten<'a>> {
    let of = |name: &str, trouble, is_absent| Unwritten {
        component: component_of(chain, components, name),
        trouble,
        is_absent,
    };
    let taken = observed
        .name_taken
        .iter()
        .map(|taken| of(&taken.name, name_taken(chain, taken), true));
    let failed = observed.write_failures.iter().map(|failure| {
        let WriteFailure { kind, name, .. } = failure;
        let is_absent = *kind != "Secret" && !observed.standing.contains(&(*kind, name.clone()));
        of(name, write_failed(failure), is_absent)
    });
    taken.chain(failed).collect()
}

/// Whether a person has to make or mend a Secret. Secrets are not watched: nobody tells when that was done.
pub(crate) fn awaits_a_secret(chain: &ValidatedChain, observed: &Observed) -> bool {
    let mut issuers = chain.issuers.iter();
    issuers.any(|issuer| !of_clients(issuer, observed).is_empty())
}

/// Clients whose Secret is not there, lacks a key, or is another client's: their issuer does not know them.
pub(crate) fn of_clients(issuer: &Issuer, observed: &Observed) -> Vec<Trouble> {
    let clients = issuer.managed().map(|managed| &managed.clients);
    let clients = clients.into_iter().flatten();
    clients
        .filter_map(|client| of_client(&issuer.name, client, observed))
        .collect()
}

fn of_client(issuer: &str, client: &Client, observed: &Observed) -> Option<Trouble> {
    let Client {
        id,
        secret_name,
        secret_is_given,
        ..
    } = client;
    let place = format!("spec.issuers[{issuer}].managed.clients[{id}].secretRef");
    let secret = format!("the Secret {secret_name} of client {id}");
    let Some(keys) = observed.secrets.get(secret_name) else {
        // One that is not given is made in this very pass.
        return secret_is_given.then(|| {
            Trouble::new(
                Reason::MissingSecret,
                format_args!("{secret} does not exist"),
                format_args!(
                    "create it with the keys {CLIENT_ID_KEY} and {CLIENT_SECRET_KEY}, or mend {place}"
                ),
            )
        });
    };
    let missing: Vec<&str> = [CLIENT_ID_KEY, CLIENT_SECRET_KEY]
        .into_iter()
        .filter(|key| !keys.contains(*key))
        .collect();
    if !missing.is_empty() {
        let missing = missing.join(" and ");
        return Some(Trouble::new(
            Reason::MissingSecret,
            format_args!("{secret} lacks {missing}"),
            format_args!("add what it lacks, or mend {place}"),
        ));
    }
    observed
        .client_ids
        .get(secret_name)
        .filter(|found| *found != id)?;
    // Not which: `secretRef` may name any Secret, and more people read a status than Secrets.
    Some(Trouble::new(
        Reason::MissingSecret,
        format_args!("{secret} is of another, its {CLIENT_ID_KEY} is not {id}"),
        format_args!("let its {CLIENT_ID_KEY} be {id}, or mend {place}"),
    ))
}

/// The component with the longest name that the object's name begins with: `shop-a-postgres` is not of `a`.
fn component_of<'a>(chain: &str, components: &[Component<'a>], name: &str) -> Option<Component<'a>> {
    let fits = |component: &&Component<'a>| {
        let rest = name.strip_prefix(&object(chain, **component));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    components
        .iter()
        .filter(fits)
        .max_by_key(|component| component.label().len())
        .copied()
}

fn name_taken(chain: &str, taken: &NameTaken) -> Trouble {
    let NameTaken { kind, name, owner } = taken;
    if owner.as_deref() == Some(&format!("ServiceChain {chain}")) {
        return Trouble::new(
            Reason::NameTaken,
            format_args!("{kind} {name} is still that of an earlier chain of this name"),
            "wait until Kubernetes has removed it with that chain",
        );
    }
    let whose = owner.as_ref().map_or_else(
        || "it is there already and not of this chain".to_owned(),
        |owner| format!("it belongs to {owner}"),
    );
    Trouble::new(
        Reason::NameTaken,
        format_args!("{kind} {name} is not touched, since {whose}"),
        "rename or delete it, or give the chain or its part another name",
    )
}

fn write_failed(failure: &WriteFailure) -> Trouble {
    let WriteFailure {
        kind,
        name,
        refusal,
        message,
    } = failure;
    let (reason, remedy) = match refusal {
        Refusal::Quota => (Reason::QuotaExceeded, "raise the quota, or ask for less"),
        Refusal::Admission => (
            Reason::AdmissionDenied,
            "change the policy, or what it objects to",
        ),
        Refusal::Forbidden => (
            Reason::Forbidden,
            "give the operator's ServiceAccount its role again: helm upgrade the chart servicechain",
        ),
        Refusal::Invalid => (
            Reason::WriteRefused,
            "change what it objects to, or delete the object if it may be made anew",
        ),
        Refusal::NamespaceEnds => (Reason::NamespaceEnding, "nothing is to be done"),
        Refusal::Unavailable => (Reason::WriteFailed, "it is tried again"),
    };
    Trouble::new(
        reason,
        format_args!("{kind} {name} is not written ({})", quote(message)),
        remedy,
    )
}
