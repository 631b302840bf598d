//! What an API server's refusal means to a person: what is wrong, where, and what to do. Pure.

use std::error::Error;
use std::time::Duration;

use crate::outcome::Failure;

/// What is said where no cluster can even be looked for.
pub(super) const NO_KUBECONFIG: &str = "there is no cluster to ask: no kubeconfig in $KUBECONFIG or ~/.kube/config, \
     and this is no pod; name one with --kubeconfig, or run a chain without a cluster: `servicechain local`";

/// What an API server is asked, in the words of its roles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// `get`, `list`, `create`.
    pub verb: &'a str,
    /// With its group: `servicechains.servicechain.dev`, `pods/portforward`.
    pub resource: &'a str,
}

/// Why there is no answer; each is a sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// There is no such object, or no such kind of object.
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Forbidden(String),
    /// The API server cannot be reached, or cannot answer now: worth asking again.
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Other(String),
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        Self::Failed(anyhow::anyhow!("{unanswered}"))
    }
}

pub(super) fn explain(
    error: &kube::Error,
    question: Question<'_>,
    server: &str,
    namespace: &str,
) -> Unanswered {
    let Question { verb, resource } = question;
    let status = match error {
        kube::Error::Api(status) => status,
        kube::Error::SerdeError(error) => {
            return Unanswered::Other(format!(
                "what the cluster at {server} says of {resource} cannot be read by this version of servicechain \
                 ({error}); use the version of the operator"
            ));
        }
        kube::Error::Auth(_) => {
            return Unanswered::Other(format!(
                "nobody can be logged in at the cluster {server}: {}; check the user of the kubeconfig's context",
                cause(error)
            ));
        }
        _ => return unreachable(server, &cause(error)),
    };
    match status.code {
        401 => Unanswered::Other(format!(
            "the cluster at {server} does not know who asks (401): log in again, or choose another --context"
        )),
        403 => {
            let between = |before: &str, after: &str| {
                let (_, rest) = status.message.split_once(before)?;
                rest.split_once(after).map(|(word, _)| word)
            };
            let who = between("User \"", "\"").map_or("you".to_owned(), |user| format!("user {user:?}"));
            // Some questions need more than one verb; the API server says which one is missing.
            let verb = between(" cannot ", " resource").unwrap_or(verb);
            forbidden(&who, Question { verb, resource }, namespace)
        }
        404 => Unanswered::NotFound(status.message.clone()),
        429 | 500..=599 => unreachable(server, &format!("{} ({})", status.message, status.code)),
        code => Unanswered::Other(format!(
            "the cluster at {server} refuses to {verb} {resource}: {} ({code})",
            status.message
        )),
    }
}

pub(super) fn forbidden(who: &str, question: Question<'_>, namespace: &str) -> Unanswered {
    let Question { verb, resource } = question;
    Unanswered::Forbidden(format!(
        "{who} may not {verb} {resource} in namespace {namespace}: ask for a role with the verb {verb:?} on {resource:?}"
    ))
}

pub(super) fn silent(server: &str, waited: Duration) -> Unanswered {
    unreachable(server, &format!("no answer within {} s", waited.as_secs()))
}

fn unreachable(server: &str, why: &str) -> Unanswered {
    Unanswered::Unreachable(format!(
        "the cluster at {server} does not answer: {why}; check that it runs, or choose another with --context"
    ))
}

pub(super) fn not_installed(server: &str) -> String {
    format!(
        "ServiceChain is not installed in the cluster at {server}: `helm install servicechain-crds \
         charts/servicechain-crds`, then `helm install servicechain charts/servicechain`"
    )
}

/// `others` are the chains there are, as namespace and name.
pub(super) fn no_such_chain(name: &str, namespace: &str, others: &[(String, String)]) -> String {
    let here: Vec<&str> = others
        .iter()
        .filter(|(of, _)| of == namespace)
        .map(|(_, name)| name.as_str())
        .collect();
    let namesake = others.iter().find(|(_, other)| other == name);
    let hint = match namesake {
        Some((elsewhere, _)) => format!("there is one in namespace {elsewhere}: add -n {elsewhere}"),
        None if !here.is_empty() => there_is(&here),
        None if others.is_empty() => {
            "there is none in the cluster; make one with `kubectl apply -f examples/shop.yaml`".to_owned()
        }
        None => {
            let all: Vec<String> = others
                .iter()
                .map(|(namespace, name)| format!("{name} in namespace {namespace}"))
                .collect();
            there_is(&all.iter().map(String::as_str).collect::<Vec<_>>())
        }
    };
    format!("there is no chain {name:?} in namespace {namespace}; {hint}")
}

pub(super) fn there_is(names: &[&str]) -> String {
    match names {
        [] => "there is none".to_owned(),
        [one] => format!("there is {one}"),
        many => format!("there are {}", many.join(", ")),
    }
}

/// The innermost cause of an error: those around it say again that something failed, or only name a type.
pub(super) fn cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    const CHAINS: Question<'static> = Question {
        verb: "get",
        resource: "servicechains.servicechain.dev",
    };

    fn said(code: u16, message: &str) -> Unanswered {
        let status = Status::failure(message, "").with_code(code);
        let error = kube::Error::Api(status.boxed());
        explain(&error, CHAINS, "https://127.0.0.1:6443", "shop")
    }

    #[test]
    fn a_missing_right_is_named_with_who_lacks_it() {
        let message =
            r#"servicechains.servicechain.dev "shop" is forbidden: User "jane" cannot get resource"#;
        let said = said(403, message);
        assert!(matches!(said, Unanswered::Forbidden(_)));
        assert_eq!(
            said.to_string(),
            r#"user "jane" may not get servicechains.servicechain.dev in namespace shop: ask for a role with the verb "get" on "servicechains.servicechain.dev""#
        );
    }

    #[test]
    fn what_passes_by_itself_is_told_from_what_does_not() {
        assert!(matches!(said(503, "etcd"), Unanswered::Unreachable(_)));
        assert!(matches!(said(429, "slow down"), Unanswered::Unreachable(_)));
        assert!(matches!(said(404, "gone"), Unanswered::NotFound(_)));
        assert!(matches!(said(401, "Unauthorized"), Unanswered::Other(_)));
        assert!(matches!(said(422, "odd"), Unanswered::Other(_)));
    }

    #[test]
    fn who_looks_for_another_chain_is_told_which_there_are() {
        let chains = |pairs: &[(&str, &str)]| {
            let owned = pairs
                .iter()
                .map(|(namespace, name)| ((*namespace).to_owned(), (*name).to_owned()));
            no_such_chain("shop", "default", &owned.collect::<Vec<_>>())
        };
        for (there, hint) in [
            (
                &[][..],
                "there is none in the cluster; make one with `kubectl apply -f examples/shop.yaml`",
            ),
            (&[("default", "a"), ("x", "b")], "there is a"),
            (&[("shop", "shop")], "there is one in namespace shop: add -n shop"),
            (
                &[("x", "a"), ("y", "b")],
                "there are a in namespace x, b in namespace y",
            ),
        ] {
            assert_eq!(
                chains(there),
                format!("there is no chain \"shop\" in namespace default; {hint}")
            );
        }
    }
}
