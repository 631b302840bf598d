//! What stands in for the ConfigMaps of a cluster: files that the command line names.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use servicechain_crds::ValidatedChain;
use servicechain_crds::service_chain::issuers::ObjectKey;
use servicechain_crds::validated::IssuerKind;

use crate::outcome::Failure;

/// `NAME/KEY=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    name: String,
    key: String,
    file: PathBuf,
}

/// By the ConfigMap's name and the key in it.
pub(crate) type ConfigMaps = BTreeMap<(String, String), String>;

pub(crate) fn given(text: &str) -> Result<Given, String> {
    let parts = text
        .split_once('=')
        .and_then(|(place, file)| Some((place.split_once('/')?, file)));
    match parts {
        Some(((name, key), file)) if !name.is_empty() && !key.is_empty() && !file.is_empty() => Ok(Given {
            name: name.to_owned(),
            key: key.to_owned(),
            file: file.into(),
        }),
        _ => Err("expected NAME/KEY=FILE, as in partner-jwks/jwks.json=keys.json".to_owned()),
    }
}

/// What the files hold; an issuer's that is not given is a mistake.
pub(crate) fn read(chain: &ValidatedChain, given: &[Given]) -> Result<ConfigMaps, Failure> {
    let mut maps = ConfigMaps::new();
    for Given { name, key, file } in given {
        let text = fs::read_to_string(file)
            .map_err(|error| Failure::BadInput(format!("{} cannot be read: {error}", file.display())))?;
        maps.insert((name.clone(), key.clone()), text);
    }
    for issuer in &chain.issuers {
        let wanted = match &issuer.kind {
            IssuerKind::Managed(_) => None,
            IssuerKind::External(external) => external.ca_bundle.as_ref(),
            IssuerKind::Static(fixed) => Some(&fixed.jwks),
        };
        if let Some(ObjectKey { name, key }) = wanted
            && !maps.contains_key(&(name.clone(), key.clone()))
        {
            return Err(Failure::BadInput(format!(
                "issuer {} needs the key {key} of ConfigMap {name}; give it with --config-map {name}/{key}=FILE",
                issuer.name
            )));
        }
    }
    Ok(maps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_map_is_given_by_name_key_and_file() {
        let found = given("partner-jwks/jwks.json=/tmp/a=b.json").unwrap();
        assert_eq!(
            (found.name.as_str(), found.key.as_str()),
            ("partner-jwks", "jwks.json")
        );
        assert_eq!(found.file, PathBuf::from("/tmp/a=b.json"));
        for wrong in [
            "",
            "name=file",
            "name/=file",
            "/key=file",
            "name/key",
            "name/key=",
        ] {
            assert!(given(wrong).is_err(), "{wrong}");
        }
    }
}
