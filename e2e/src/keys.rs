//! The keys of a chain under test: who may sign bundles, two issuers with the same audience, and tokens good and bad.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use servicechain_auth::attacks::Target;
use servicechain_auth::specimen::{AUDIENCE, Specimen, managed_issuer, new_key, sign_claims};
use servicechain_auth::{Hop, VerifierConfig};
use servicechain_keys::{Algorithm, HeldBundle, NumericDate, PodId, SigningKey, Workload};
use servicechain_runtime::clock::Clock;

/// The `iss` of the first issuer.
pub const PLATFORM: &str = "http://shop-issuer-platform.shop.svc";
/// The `iss` of the second, whose subjects may be called the same.
pub const PARTNER: &str = "http://shop-issuer-partner.shop.svc";

/// Keys and tokens by the machine's clock.
#[derive(Debug)]
pub struct Keys {
    specimen: Specimen,
    pub partner: SigningKey,
    /// Of nobody that the chain trusts.
    pub stranger: SigningKey,
    clock: Clock,
}

impl Keys {
    #[must_use]
    pub fn new() -> Self {
        Self {
            specimen: Specimen::new(),
            partner: new_key(Algorithm::ES256),
            stranger: new_key(Algorithm::ES256),
            clock: Clock::system(),
        }
    }

    /// The signing key of [`PLATFORM`].
    #[must_use]
    pub fn platform(&self) -> &SigningKey {
        &self.specimen.key
    }

    #[must_use]
    pub fn now(&self) -> NumericDate {
        self.clock.now().into()
    }

    /// Generation 1, with both issuers.
    #[must_use]
    pub fn bundle(&self) -> std::sync::Arc<HeldBundle> {
        let mut bundle = self.specimen.bundle();
        bundle.issued_at = self.now();
        bundle.issuers = vec![
            managed_issuer("platform", PLATFORM, &[self.platform()]),
            managed_issuer("partner", PARTNER, &[&self.partner]),
        ];
        self.specimen.sign(&bundle)
    }

    /// Writes the bundle where verifiers read it.
    pub fn write_bundle(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let path = folder.join("bundle.jws");
        std::fs::write(&path, self.bundle().bytes()).context("cannot write the bundle")?;
        Ok(path)
    }

    /// A verifier that takes its bundle from a file, as pods do at their start.
    pub fn verifier(&self, workload: &str, bundle: &Path) -> anyhow::Result<VerifierConfig> {
        let workload = Workload::new(workload)?;
        let pod = PodId::new(format!("pod-of-{workload}"))?;
        let hop = Hop::new(workload.to_string());
        let mut config = VerifierConfig::new(
            self.specimen.trust(),
            pod,
            workload.clone(),
            hop,
            self.clock.as_fn(),
        );
        config.ack_key = Some(self.specimen.ack_key(&workload));
        config.bundle_file = Some(bundle.to_owned());
        Ok(config)
    }

    /// Flags for a process that verifies with these keys.
    #[must_use]
    pub fn verifier_flags(&self, workload: &str, bundle: &Path) -> Vec<String> {
        let trust = self.specimen.trust();
        vec![
            format!("--chain-uid={}", trust.chain),
            format!("--pod-uid=pod-of-{workload}"),
            format!("--workload={workload}"),
            format!("--trust-anchor={}", self.specimen.trust_key.anchor()),
            format!("--bundle-file={}", bundle.display()),
        ]
    }

    /// What a good token of [`PLATFORM`] says by now.
    #[must_use]
    pub fn claims(&self, subject: &str) -> Map<String, Value> {
        let now = self.now();
        let claims = json!({
            "iss": PLATFORM, "sub": subject, "aud": AUDIENCE, "client_id": "demo", "jti": format!("jti-of-{subject}"),
            "iat": now.as_seconds(), "exp": now.plus(Duration::from_mins(10)).as_seconds(),
            "scope": "items:read items:write",
        });
        claims.as_object().cloned().unwrap_or_default()
    }

    /// A good token of [`PLATFORM`].
    #[must_use]
    pub fn token(&self, subject: &str) -> String {
        sign_claims(self.platform(), &self.claims(subject))
    }

    /// A good token of [`PARTNER`].
    #[must_use]
    pub fn partner_token(&self, subject: &str) -> String {
        let mut claims = self.claims(subject);
        claims.insert("iss".to_owned(), PARTNER.into());
        sign_claims(&self.partner, &claims)
    }

    /// A token of [`PLATFORM`] that says what `change` makes of good claims.
    #[must_use]
    pub fn token_with(&self, change: impl FnOnce(&mut Map<String, Value>)) -> String {
        let mut claims = self.claims("mallory");
        change(&mut claims);
        sign_claims(self.platform(), &claims)
    }

    /// Whom the table of attacks is aimed at.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        Target {
            key: self.platform(),
            kid: self.platform().kid(),
            iss: PLATFORM,
            audience: AUDIENCE,
            token_type: "at+jwt",
            now: self.now(),
        }
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::new()
    }
}
