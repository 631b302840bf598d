//! From the YAML that a user wrote to a chain that can be built, or to everything that is wrong with it.

use serde_json::Value;

use crate::{
    ServiceChain, ValidatedChain, check,
    mistakes::{Mistake, Mistakes},
    schema, validate,
};

const API_VERSION: &str = "servicechain.dev/v1alpha1";
const KIND: &str = "ServiceChain";

/// Reads the `ServiceChain` of a YAML file. Documents of other kinds beside it are passed over, so that one file
/// may hold a chain and its Secrets; a key that is given twice is refused.
pub fn read(yaml: &str) -> Result<ValidatedChain, Mistakes> {
    let document = chain_document(yaml)?;
    let shape = check::shape(&document, schema::service_chain_document(), "");
    match serde_json::from_value::<ServiceChain>(shape.readable(document)) {
        Ok(chain) => judge(&chain, shape.mistakes),
        Err(error) if shape.mistakes.is_empty() => Err(Mistakes::of_document(error.to_string())),
        Err(_) => Err(shape.mistakes),
    }
}

/// Resolves a chain's defaults and names, and refuses what can never be right and what this version cannot do.
///
/// Refused with [`Reason::NotSupportedYet`](crate::mistakes::Reason): external and static issuers, refresh tokens
/// and the issuer's database, autoscaling, Ingress, HTTPRoute, TLS at the gateway, rate limits, images of one's own
/// (with `command`, `args` and sidecars), the item service without a database, databases and caches that
/// somebody else runs, pod templates, and NetworkPolicies of mode Strict.
///
/// What is only about Kubernetes is validated and kept, and a local chain has no use for it: `paused`, replicas,
/// pod settings, environment and probes, the gateway's Service, the managed stores' settings, key distribution (the
/// publisher is in the same process), logs and traces, NetworkPolicies and rollouts.
pub fn validated(chain: &ServiceChain) -> Result<ValidatedChain, Mistakes> {
    let document = serde_json::to_value(chain).map_err(|error| Mistakes::of_document(error.to_string()))?;
    let shape = check::shape(&document, schema::service_chain_document(), "");
    judge(chain, shape.mistakes)
}

fn judge(chain: &ServiceChain, shape: Mistakes) -> Result<ValidatedChain, Mistakes> {
    let (validated, rules) = validate::chain(chain);
    let mut mistakes = shape;
    let news: Vec<Mistake> = rules
        .into_iter()
        .filter(|rule| !mistakes.iter().any(|shape| follows(&rule.path, &shape.path)))
        .collect();
    mistakes.extend(news);
    mistakes.or(validated)
}

/// Whether a broken rule at `rule` may be nothing but the consequence of a wrong shape at `shape`: it is about
/// the same value, a part of it, or what directly holds it.
fn follows(rule: &str, shape: &str) -> bool {
    let holder = shape.rfind(['.', '[']).map_or("", |end| &shape[..end]);
    let inside = rule
        .strip_prefix(shape)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    inside || rule == holder
}

fn chain_document(yaml: &str) -> Result<Value, Mistakes> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).map_err(|error| not_yaml(&error))?;
    let mut chains: Vec<Value> = documents
        .iter()
        .filter(|document| document["kind"] == KIND)
        .cloned()
        .collect();
    let Some(chain) = chains.pop() else {
        let kinds: Vec<&str> = documents
            .iter()
            .filter_map(|document| document["kind"].as_str())
            .collect();
        let found = if kinds.is_empty() {
            String::new()
        } else {
            format!(", only {}", kinds.join(", "))
        };
        return Err(Mistakes::of_document(format!(
            "there is no ServiceChain in it{found}; it must say `apiVersion: {API_VERSION}` and `kind: {KIND}`"
        )));
    };
    if !chains.is_empty() {
        let count = chains.len() + 1;
        return Err(Mistakes::of_document(format!(
            "there are {count} ServiceChains in it; give each a file"
        )));
    }
    if chain["apiVersion"] != API_VERSION {
        let mut mistakes = Mistakes::new();
        mistakes.add(
            "apiVersion",
            format!("{} must be {API_VERSION:?}", chain["apiVersion"]),
        );
        return Err(mistakes);
    }
    Ok(chain)
}

/// With the place in front, where the parser says it at the end.
fn not_yaml(error: &serde_saphyr::Error) -> Mistakes {
    let mut message =
        error.render_with_options(serde_saphyr::render_options! { snippets: serde_saphyr::SnippetMode::Off });
    if let Some(place) = error.location() {
        let place = format!("line {}, column {}", place.line(), place.column());
        let words = message.strip_suffix(&format!(" at {place}")).unwrap_or(&message);
        message = format!("{place}: {words}");
    }
    Mistakes::of_document(message)
}
