//! A chain to measure with: issuers with one key each, the bundle for our gateway, the same keys for its peers, and
//! tokens, good and bad.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use servicechain_auth::specimen::{self, Specimen};
use servicechain_auth::{CacheLimits, Hop, Verifier};
use servicechain_keys::{Algorithm, Bundle, HeldBundle, NumericDate, SigningKey};
use servicechain_runtime::clock::Clock;

pub(crate) const AUDIENCE: &str = specimen::AUDIENCE;
/// Longer than any run.
const TOKEN_LIFETIME: u64 = 4 * 3600;

/// One issuer and its key.
pub(crate) struct Issuer {
    pub(crate) iss: String,
    pub(crate) key: SigningKey,
}

pub(crate) struct Chain {
    specimen: Specimen,
    issuers: Vec<Issuer>,
    now: NumericDate,
}

/// What must not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    Signature,
    Expired,
    Audience,
    Issuer,
}

impl Chain {
    pub(crate) const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

    pub(crate) fn new() -> Self {
        let issuers = Self::ALGORITHMS.map(|algorithm| Issuer {
            iss: format!("http://issuer-{}.example", algorithm.name().to_ascii_lowercase()),
            key: specimen::new_key(algorithm),
        });
        Self {
            specimen: Specimen::new(),
            issuers: issuers.into(),
            now: Clock::system().now().into(),
        }
    }

    pub(crate) fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    pub(crate) fn issuer(&self, algorithm: Algorithm) -> Result<&Issuer> {
        let of = |issuer: &&Issuer| issuer.key.algorithm() == algorithm;
        self.issuers.iter().find(of).context("no such issuer")
    }

    /// The bundle in a file.
    pub(crate) fn write_bundle(&self, file: &Path) -> Result<()> {
        let held = self.sign(&self.bundle());
        std::fs::write(file, &**held.bytes()).context("the bundle cannot be written")
    }

    /// Who signs it.
    pub(crate) fn anchor(&self) -> String {
        self.specimen.trust_key.anchor().to_string()
    }

    /// Generation 1. Change it and sign it.
    pub(crate) fn bundle(&self) -> Bundle {
        let mut bundle = self.specimen.bundle();
        bundle.issued_at = self.now;
        bundle.issuers = self
            .issuers
            .iter()
            .map(|issuer| {
                let name = issuer.key.algorithm().name().to_ascii_lowercase();
                let mut managed = specimen::managed_issuer(&name, &issuer.iss, &[&issuer.key]);
                for key in &mut managed.keys {
                    key.since = self.now;
                }
                managed
            })
            .collect();
        bundle
    }

    pub(crate) fn sign(&self, bundle: &Bundle) -> Arc<HeldBundle> {
        self.specimen.sign(bundle)
    }

    /// A verifier in this process that holds the bundle and keeps so many tokens, by the machine's clock.
    pub(crate) fn verifier(&self, cached_tokens: u32) -> Arc<Verifier> {
        let mut config = self.specimen.config(Hop::new("gateway"));
        config.clock = Clock::system().as_fn();
        config.cache = CacheLimits {
            tokens: cached_tokens,
            bytes: 1 << 30,
        };
        let verifier = Verifier::new(config);
        verifier.hold(self.sign(&self.bundle()));
        verifier
    }

    pub(crate) const fn now(&self) -> NumericDate {
        self.now
    }

    pub(crate) fn chain_uid() -> String {
        specimen::chain().to_string()
    }

    /// A good token; each number makes another one.
    pub(crate) fn token(&self, algorithm: Algorithm, number: usize) -> Result<String> {
        let issuer = self.issuer(algorithm)?;
        Ok(specimen::sign_claims(
            &issuer.key,
            &object(self.claims(issuer, number)),
        ))
    }

    /// So many good tokens, made on both cores.
    pub(crate) fn tokens(&self, algorithm: Algorithm, count: usize) -> Result<Vec<String>> {
        let half = count / 2;
        std::thread::scope(|scope| {
            let make = |range: std::ops::Range<usize>| {
                range
                    .map(|number| self.token(algorithm, number))
                    .collect::<Result<Vec<_>>>()
            };
            let second = scope.spawn(move || make(half..count));
            let mut all = make(0..half)?;
            all.extend(
                second
                    .join()
                    .map_err(|_| anyhow::anyhow!("a thread panicked"))??,
            );
            Ok(all)
        })
    }

    pub(crate) fn bad_token(&self, algorithm: Algorithm, bad: Bad) -> Result<String> {
        let issuer = self.issuer(algorithm)?;
        let mut claims = self.claims(issuer, 0);
        match bad {
            Bad::Signature => return with_bad_signature(&self.token(algorithm, 0)?),
            Bad::Expired => claims["exp"] = (self.now.as_seconds() - 600).into(),
            Bad::Audience => claims["aud"] = "elsewhere".into(),
            Bad::Issuer => claims["iss"] = "http://nobody.example".into(),
        }
        Ok(specimen::sign_claims(&issuer.key, &object(claims)))
    }

    /// A token of an issuer that is trusted, by a key that is not.
    pub(crate) fn token_of_unknown_key(&self, algorithm: Algorithm) -> Result<String> {
        let claims = object(self.claims(self.issuer(algorithm)?, 0));
        Ok(specimen::sign_claims(&specimen::new_key(algorithm), &claims))
    }

    fn claims(&self, issuer: &Issuer, number: usize) -> Value {
        let now = self.now.as_seconds();
        json!({
            "iss": issuer.iss,
            "sub": "alice",
            "aud": AUDIENCE,
            "client_id": "demo",
            "jti": format!("5f0c1f5e-6d0e-4f6b-9a3e-{number:012}"),
            "iat": now - 900,
            "exp": now + TOKEN_LIFETIME,
            "scope": "items:read items:write",
        })
    }
}

impl Issuer {
    /// For Envoy.
    pub(crate) fn jwks(&self) -> String {
        json!({"keys": [self.key.public_jwk().to_members()]}).to_string()
    }

    /// For `HAProxy`, which knows RSA and P-256 here. `None` for other keys.
    pub(crate) fn public_pem(&self) -> Result<Option<String>> {
        let private = self.key.to_pkcs8().context("the key cannot be written")?;
        let der: PublicKeyX509Der<'_> = match self.key.algorithm() {
            Algorithm::RS256 => RsaKeyPair::from_pkcs8(&private)
                .map_err(|error| anyhow::anyhow!("{error}"))?
                .public_key()
                .as_der()
                .context("no DER")?,
            Algorithm::ES256 => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &private)
                .map_err(|error| anyhow::anyhow!("{error}"))?
                .public_key()
                .as_der()
                .context("no DER")?,
            _ => return Ok(None),
        };
        let mut pem = "-----BEGIN PUBLIC KEY-----\n".to_owned();
        for line in STANDARD.encode(der.as_ref()).as_bytes().chunks(64) {
            let _ = writeln!(pem, "{}", String::from_utf8_lossy(line));
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        Ok(Some(pem))
    }
}

/// The same token, but for the first character of its signature.
pub(crate) fn with_bad_signature(token: &str) -> Result<String> {
    let at = token.rfind('.').context("a token has dots")? + 1;
    let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
    Ok(format!("{}{other}{}", &token[..at], &token[at + 1..]))
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => serde_json::Map::new(),
    }
}

impl Bad {
    pub(crate) const ALL: [Self; 4] = [Self::Signature, Self::Expired, Self::Audience, Self::Issuer];
}

/// For whoever waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
