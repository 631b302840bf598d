//! Authentic bundles in two makes: really signed and opened, or, so that ten thousand cases run in seconds, taken at
//! their word by a stand-in that keeps the order of the checks. And a pool of issuer keys, real in both.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use servicechain_keys::rotation::Base;
use servicechain_keys::{
    Algorithm, Bundle, BundleRefusal, ChainId, Digest, Generation, Held, HeldBundle, KeyState, NumericDate,
    Revocation, RevocationKind, ShortDigest, SigningKey, Taken, Trust, TrustKey, take,
};

/// More than any case uses.
const POOL: usize = 160;

pub(crate) struct KeyPool {
    pub(crate) keys: Vec<SigningKey>,
    by_kid: HashMap<String, usize>,
}

impl KeyPool {
    pub(crate) fn get() -> &'static Self {
        static KEYS: OnceLock<KeyPool> = OnceLock::new();
        KEYS.get_or_init(|| {
            let keys: Vec<_> = (0..POOL)
                .map(|_| SigningKey::generate(Algorithm::ES256).expect("a key"))
                .collect();
            let by_kid = keys
                .iter()
                .enumerate()
                .map(|(index, key)| (key.kid().to_owned(), index))
                .collect();
            Self { keys, by_kid }
        })
    }

    pub(crate) fn index(&self, kid: &str) -> Option<usize> {
        self.by_kid.get(kid).copied()
    }
}

/// A key of a bundle, for quick looks: place in the pool, state, number of the owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyView {
    pub(crate) key: usize,
    pub(crate) state: KeyState,
    pub(crate) owner: usize,
}

#[derive(Debug)]
pub(crate) struct Signed {
    pub(crate) bundle: Bundle,
    pub(crate) digest: Digest,
    pub(crate) keys: Vec<KeyView>,
    /// False for one that an attacker made.
    pub(crate) authentic: bool,
    opened: Option<Arc<HeldBundle>>,
}

impl Signed {
    fn new(bundle: Bundle, digest: Digest, authentic: bool, opened: Option<Arc<HeldBundle>>) -> Self {
        let pool = KeyPool::get();
        let view = |key: &servicechain_keys::IssuerKey| {
            let owner = key.owner.as_ref().map_or(usize::MAX, number_of);
            let key_index = key
                .jwk
                .kid()
                .and_then(|kid| pool.index(kid))
                .expect("a key of the pool");
            KeyView {
                key: key_index,
                state: key.state,
                owner,
            }
        };
        let keys = bundle
            .issuers
            .iter()
            .flat_map(|issuer| &issuer.keys)
            .map(view)
            .collect();
        Self {
            bundle,
            digest,
            keys,
            authentic,
            opened,
        }
    }

    pub(crate) fn generation(&self) -> Generation {
        self.bundle.generation
    }

    pub(crate) fn held(&self) -> Held {
        Held {
            generation: self.generation(),
            digest: self.digest,
        }
    }

    pub(crate) fn key(&self, key: usize) -> Option<&KeyView> {
        self.keys.iter().find(|view| view.key == key)
    }

    /// As a verifier that holds it says: by the crate's own index where it was really signed.
    pub(crate) fn revokes(&self, kind: RevocationKind, value: &str, issued: u64) -> bool {
        let issued = NumericDate::from_seconds(issued);
        if let Some(opened) = &self.opened {
            return opened.issuers()[0].revokes(kind, value, Some(issued));
        }
        let digest = ShortDigest::of(value);
        let matches = |revocation: &Revocation| {
            (revocation.kind, revocation.digest) == (kind, digest) && issued <= revocation.issued_before
        };
        self.bundle.revocations.iter().any(matches)
    }

    pub(crate) fn base(&self) -> Base<'_> {
        Base {
            bundle: &self.bundle,
            digest: self.digest,
            in_config_map: false,
            forked: false,
        }
    }
}

pub(crate) fn number_of(pod: &servicechain_keys::PodId) -> usize {
    pod.as_str()
        .trim_start_matches("pod-")
        .parse()
        .unwrap_or(usize::MAX)
}

pub(crate) enum Signer {
    Real { key: Box<TrustKey>, trust: Trust },
    StandIn,
}

impl Signer {
    pub(crate) fn real(chain: &ChainId, seed: u64) -> Self {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let key = TrustKey::from_seed(&bytes).expect("any 32 bytes are a seed");
        let trust = Trust::new(chain.clone(), vec![key.anchor().clone()]);
        Self::Real {
            key: Box::new(key),
            trust,
        }
    }

    pub(crate) fn sign(&self, bundle: Bundle) -> Arc<Signed> {
        match self {
            Self::Real { key, .. } => {
                let opened = bundle.sign(key).expect("verifiers take what rotation makes");
                Arc::new(Signed::new(bundle, opened.digest(), true, Some(Arc::new(opened))))
            }
            Self::StandIn => {
                let digest = Digest::of(&serde_json::to_vec(&bundle).expect("JSON"));
                Arc::new(Signed::new(bundle, digest, true, None))
            }
        }
    }

    /// What nobody may take: a higher generation without revocations, signed by somebody without the trust key, or by the
    /// key itself for another chain.
    pub(crate) fn forge(&self, like: &Signed, for_another_chain: bool) -> Arc<Signed> {
        let mut bundle = like.bundle.clone();
        bundle.generation = bundle.generation.next().next();
        bundle.revocations.clear();
        let mut forged = match self {
            Self::Real { key, .. } => {
                let other = TrustKey::from_seed(&[9; 32]).expect("any 32 bytes are a seed");
                let signs = if for_another_chain {
                    bundle.chain = ChainId::new("another").expect("a chain id");
                    key
                } else {
                    &other
                };
                let opened = bundle.sign(signs).expect("well formed");
                Signed::new(bundle, opened.digest(), false, Some(Arc::new(opened)))
            }
            Self::StandIn => Signed::new(bundle, Digest::of(b"forged"), false, None),
        };
        forged.authentic = false;
        Arc::new(forged)
    }

    /// What a pod does with delivered bytes; none where it holds them already.
    pub(crate) fn take(
        &self,
        held: Option<&Arc<Signed>>,
        delivered: &Arc<Signed>,
    ) -> Result<Option<Arc<Signed>>, BundleRefusal> {
        match self {
            Self::Real { trust, .. } => {
                let opened = delivered.opened.as_ref().expect("really signed");
                let held = held.and_then(|held| held.opened.as_deref());
                match take(held, opened.bytes(), trust) {
                    Taken::Accepted(taken) => {
                        let digest = taken.digest();
                        Ok(Some(Arc::new(Signed::new(
                            taken.bundle().clone(),
                            digest,
                            true,
                            Some(taken),
                        ))))
                    }
                    Taken::Unchanged => Ok(None),
                    Taken::Refused(refusal) => Err(refusal),
                }
            }
            Self::StandIn => {
                let generation = held.map(|held| held.generation());
                if generation > Some(delivered.generation()) {
                    return Err(BundleRefusal::Lower);
                }
                if !delivered.authentic {
                    return Err(BundleRefusal::Signature);
                }
                match held {
                    Some(held) if held.generation() == delivered.generation() => {
                        if held.digest == delivered.digest {
                            Ok(None)
                        } else {
                            Err(BundleRefusal::Fork)
                        }
                    }
                    _ => Ok(Some(Arc::clone(delivered))),
                }
            }
        }
    }
}
