//! The chain that a cluster runs, as far as can be told from outside: as its object says it, where the operator has
//! accepted that, else as the operator keeps what it accepted last. Only the operator can check that it wrote the latter,
//! so it is said whose word is gone by.

use std::io::{self, Write as _};

use anyhow::anyhow;
use k8s_openapi::api::core::v1::ConfigMap;
use servicechain_crds::{Mistakes, ServiceChain, ValidatedChain, validated};
use servicechain_operator::controller::accepted::unsealed;
use servicechain_operator::object_names::accepted_config_map;

use crate::cluster::{Cluster, Question, Unanswered};
use crate::outcome::Failure;
use crate::standing::{self, Standing};

pub(crate) async fn chain(cluster: &Cluster, chain: &ServiceChain) -> Result<ValidatedChain, Failure> {
    let written = validated(chain);
    let is_accepted = matches!(standing::of(chain, "Accepted"), Standing::Holds);
    // While a chain is paused, an edit of it is accepted, and waits.
    if is_accepted
        && !chain.spec.paused
        && let Ok(written) = written
    {
        return Ok(written);
    }
    let name = chain.metadata.name.clone().unwrap_or_default();
    let map = accepted_config_map(&name);
    let question = Question {
        verb: "get",
        resource: "configmaps",
    };
    let kept = match cluster.ask(question, cluster.api::<ConfigMap>().get(&map)).await {
        Ok(map) => unsealed(chain, &map),
        Err(Unanswered::NotFound(_)) => None,
        Err(other) => return Err(other.into()),
    };
    let (known, note) = choose(&name, written, kept).map_err(|mistakes| {
        let mistakes = mistakes.about(&format!("chain {name}"));
        Failure::Failed(anyhow!("{mistakes}"))
    })?;
    if let Some(note) = note {
        // Nobody reads standard error: what was asked for is answered all the same.
        let _ = writeln!(io::stderr(), "note: {note}");
    }
    Ok(known)
}

/// What to go by where the operator has not accepted what is `written`, or keeps it waiting, with what is to be said of
/// it.
fn choose(
    name: &str,
    written: Result<ValidatedChain, Mistakes>,
    kept: Option<ValidatedChain>,
) -> Result<(ValidatedChain, Option<String>), Mistakes> {
    let map = accepted_config_map(name);
    Ok(match (written, kept) {
        (Ok(written), Some(kept)) if written == kept => (kept, None),
        (_, Some(kept)) => {
            let note = format!(
                "the operator does not run chain {name} as it is written now; this goes by ConfigMap {map}, where it keeps \
                 what it accepted last"
            );
            (kept, Some(note))
        }
        (Ok(written), None) => {
            let note =
                format!("the operator has not accepted chain {name} yet; this goes by what is written");
            (written, Some(note))
        }
        (Err(mistakes), None) => return Err(mistakes),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(service: &str, next: &[&str]) -> Result<ValidatedChain, Mistakes> {
        let chain = json!({
            "apiVersion": "servicechain.dev/v1alpha1",
            "kind": "ServiceChain",
            "metadata": {"name": "shop", "namespace": "shop"},
            "spec": {
                "audiences": ["shop"],
                "issuers": [{"name": "platform", "managed": {}}],
                "gateway": {"routes": [{"name": "items", "service": service}]},
                "services": [{"name": service, "next": next, "database": {"managed": {}}}],
            },
        });
        validated(&serde_json::from_value(chain).unwrap())
    }

    #[test]
    fn whose_word_is_gone_by_is_said_wherever_it_is_not_the_chains_own() {
        let (a, b) = (written("a", &[]).unwrap(), written("b", &[]).unwrap());
        let same = choose("shop", Ok(a.clone()), Some(a.clone())).unwrap();
        assert_eq!(same, (a.clone(), None));
        for now in [written("b", &[]), written("b", &["nobody"])] {
            let (known, note) = choose("shop", now, Some(a.clone())).unwrap();
            assert_eq!(known, a);
            assert!(note.unwrap().contains("ConfigMap shop-accepted"));
        }
        let (known, note) = choose("shop", Ok(b.clone()), None).unwrap();
        assert_eq!(known, b);
        assert!(note.unwrap().contains("not accepted"));
        let never = choose("shop", written("b", &["nobody"]), None).unwrap_err();
        assert!(never.to_string().contains("nobody"), "{never}");
    }
}
