//! The pod's private keys and what the bundle says of them: two alive, one of them signing while it is Active, each
//! stopped for good once the bundle has moved past it. It must not know what is signed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use servicechain_auth::Verifier;
use servicechain_auth::keys_endpoint::Offers;
use servicechain_keys::signing_key::NotASigningKey;
use servicechain_keys::{
    HeldBundle, IssuerKey, KeyState, Nonce, NumericDate, Offer, RevocationKind, SigningKey, TrustedIssuer,
};

use crate::config::Issuer;
use crate::keys_directory::{KeysDirectory, KeysDirectoryError};

/// The current key and the next, so that a rotation or a revocation never waits for a key to be made and published.
const LIVING: usize = 2;

/// Why this pod signs nothing at the moment. Display is a sentence's beginning, for whoever asked for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotSign {
    #[error("this issuer has no key bundle yet")]
    NoBundle,
    #[error("the key bundle does not know this issuer")]
    NotInBundle,
    #[error("no signing key of this issuer is active yet")]
    NoActiveKey,
    #[error("the signing key of this issuer has passed its end, and no other is active yet")]
    PastSignUntil,
    #[error("signing failed")]
    Failed,
    /// Every verifier would refuse it: a revocation reaches beyond this moment, for so many seconds.
    #[error("tokens of this client that are issued now are revoked")]
    ClientRevoked { seconds: u64 },
    /// The same for whatever this issuer issues.
    #[error("all tokens that this issuer issues now are revoked")]
    AllRevoked { seconds: u64 },
}

/// Why the issuer does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Directory(#[from] KeysDirectoryError),
    #[error("no signing key could be made")]
    Generation(#[from] NotASigningKey),
}

/// Shared by the token endpoint, which signs, and the keys endpoint, which says what was signed.
#[derive(Debug)]
pub struct SigningKeys {
    issuer: Issuer,
    verifier: Arc<Verifier>,
    directory: Option<KeysDirectory>,
    started: NumericDate,
    keys: RwLock<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    living: Vec<LivingKey>,
    /// By kid: when the last token expires that the key can have signed.
    stopped: BTreeMap<String, NumericDate>,
}

#[derive(Debug)]
struct LivingKey {
    key: SigningKey,
    /// The latest `exp` signed, in seconds; 0 before the first.
    last_expiry: AtomicU64,
    /// Made by an earlier run of this container, which may have signed with it.
    inherited: bool,
    /// A bundle has named it: once it is named no more, it was removed or revoked.
    was_published: bool,
}

impl LivingKey {
    fn new(key: SigningKey, inherited: bool) -> Self {
        Self {
            key,
            last_expiry: AtomicU64::new(0),
            inherited,
            was_published: false,
        }
    }
}

/// A token, and how long it lives.
#[derive(Debug)]
pub(crate) struct Signed {
    pub(crate) token: String,
    pub(crate) lifetime: Duration,
}

impl SigningKeys {
    /// Goes on with the keys of the directory, and makes what is missing. Takes up to seconds for RSA.
    pub fn start(
        issuer: Issuer,
        verifier: Arc<Verifier>,
        directory: Option<PathBuf>,
    ) -> Result<Arc<Self>, StartError> {
        let directory = directory.map(KeysDirectory::open).transpose()?;
        let loaded = match &directory {
            Some(directory) => directory.load(issuer.algorithm)?,
            None => Vec::new(),
        };
        let living = loaded.into_iter().map(|key| LivingKey::new(key, true)).collect();
        let started = verifier.now();
        let keys = RwLock::new(Keys {
            living,
            stopped: BTreeMap::new(),
        });
        let this = Arc::new(Self {
            issuer,
            verifier,
            directory,
            started,
            keys,
        });
        this.follow();
        this.leave_out_surplus();
        this.replenish()?;
        Ok(this)
    }

    /// What a new bundle asks for: stops what it has moved past, makes what is missing. Takes up to seconds for RSA.
    pub fn keep_up(&self) -> Result<(), NotASigningKey> {
        self.follow();
        self.replenish()
    }

    /// Signs what `payload` makes of (`iat`, `exp`), with this pod's Active key and for at most the life that bundle
    /// and configuration allow. The token is about `client` (`sub` and `client_id`); one that is revoked from its birth
    /// is not made.
    pub(crate) fn sign(
        &self,
        typ: &str,
        client: &str,
        payload: impl FnOnce(NumericDate, NumericDate) -> Vec<u8>,
    ) -> Result<Signed, CannotSign> {
        // The bundle is read under the lock: whoever stops a key afterwards waits for this signature, and reports its exp.
        // So does whoever acknowledges a newer bundle, since the answer says which keys are stopped.
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let held = self.verifier.held().ok_or(CannotSign::NoBundle)?;
        let now = self.verifier.now();
        let (trusted, entry, living) = self.active(&keys, &held, now)?;
        check_not_revoked(trusted, client, now)?;
        let lifetime = self
            .issuer
            .token_lifetime
            .min(entry.max_lifetime)
            .min(trusted.max_token_lifetime);
        let expiry = now.plus(lifetime);
        living
            .last_expiry
            .fetch_max(expiry.as_seconds(), Ordering::SeqCst);
        let token = living
            .key
            .sign_compact(typ, &payload(now, expiry))
            .map_err(|_| CannotSign::Failed)?;
        Ok(Signed { token, lifetime })
    }

    /// Whether a token could be signed now.
    pub fn can_sign(&self) -> Result<(), CannotSign> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let held = self.verifier.held().ok_or(CannotSign::NoBundle)?;
        self.active(&keys, &held, self.verifier.now()).map(drop)
    }

    fn active<'a>(
        &'a self,
        keys: &'a Keys,
        held: &'a HeldBundle,
        now: NumericDate,
    ) -> Result<(&'a TrustedIssuer, &'a IssuerKey, &'a LivingKey), CannotSign> {
        let trusted = held.issuer(&self.issuer.url).ok_or(CannotSign::NotInBundle)?;
        let mut refusal = CannotSign::NoActiveKey;
        for entry in self
            .own_entries(held)
            .filter(|entry| entry.state == KeyState::Active)
        {
            let Some(living) = keys.living.iter().find(|living| is_of(entry, &living.key)) else {
                continue;
            };
            if is_revoked(trusted, &living.key) {
                continue;
            }
            if entry.sign_until.is_none_or(|until| now < until) {
                return Ok((trusted, entry, living));
            }
            refusal = CannotSign::PastSignUntil;
        }
        Err(refusal)
    }

    /// Stops what the held bundle has moved past. From its return on no stopped key signs.
    fn follow(&self) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = self.verifier.held() else { return };
        let own: Vec<&IssuerKey> = self.own_entries(&held).collect();
        let (going_on, ending) = std::mem::take(&mut keys.living)
            .into_iter()
            .partition::<Vec<_>, _>(|living| self.goes_on(living, &own, &held));
        keys.living = going_on;
        for living in &mut keys.living {
            living.was_published |= own.iter().any(|entry| is_of(entry, &living.key));
        }
        for living in ending {
            tracing::info!(kid = living.key.kid(), "signing key stopped");
            let entry = own.iter().find(|entry| is_of(entry, &living.key));
            let inherited = entry
                .filter(|_| living.inherited)
                .map(|entry| self.inherited_expiry(entry));
            let last = NumericDate::from_seconds(living.last_expiry.load(Ordering::SeqCst));
            keys.stopped.insert(
                living.key.kid().to_owned(),
                inherited.map_or(last, |end| end.max(last)),
            );
            if let Some(Err(error)) = self
                .directory
                .as_ref()
                .map(|directory| directory.remove(living.key.kid()))
            {
                tracing::error!(%error, "a stopped key could not be removed from the keys directory");
            }
        }
        keys.stopped
            .retain(|kid, _| own.iter().any(|entry| entry.jwk.kid() == Some(kid)));
        let Keys { living, stopped } = &mut *keys;
        for entry in own {
            let Some(kid) = entry.jwk.kid() else { continue };
            if !living.iter().any(|living| living.key.kid() == kid) {
                // Its private half went with an earlier run, and so did the memory of what it signed.
                stopped
                    .entry(kid.to_owned())
                    .or_insert_with(|| self.inherited_expiry(entry));
            }
        }
    }

    fn goes_on(&self, living: &LivingKey, own: &[&IssuerKey], held: &HeldBundle) -> bool {
        if held
            .issuer(&self.issuer.url)
            .is_some_and(|trusted| is_revoked(trusted, &living.key))
        {
            return false;
        }
        match own.iter().find(|entry| is_of(entry, &living.key)) {
            Some(entry) => matches!(entry.state, KeyState::Staged | KeyState::Active),
            None => !living.was_published,
        }
    }

    /// Whatever an earlier run signed before this one started has expired by then.
    fn inherited_expiry(&self, entry: &IssuerKey) -> NumericDate {
        self.started
            .plus(entry.max_lifetime.max(self.issuer.token_lifetime))
    }

    /// A directory may hold more keys than a pod may have; those that the bundle names come first.
    fn leave_out_surplus(&self) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.living.sort_by_key(|living| !living.was_published);
        keys.living.truncate(LIVING);
    }

    fn replenish(&self) -> Result<(), NotASigningKey> {
        while self
            .keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .living
            .len()
            < LIVING
        {
            let key = SigningKey::generate(self.issuer.algorithm)?;
            if let Some(Err(error)) = self.directory.as_ref().map(|directory| directory.save(&key)) {
                tracing::error!(%error, "a new key will not outlive this container: the keys directory cannot be written");
            }
            tracing::info!(kid = key.kid(), "signing key made");
            let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
            keys.living.push(LivingKey::new(key, false));
        }
        Ok(())
    }

    fn own_entries<'a>(&'a self, held: &'a HeldBundle) -> impl Iterator<Item = &'a IssuerKey> {
        let pod = &self.verifier.config().pod;
        let issuer = held
            .bundle()
            .issuers
            .iter()
            .find(|issuer| issuer.iss == self.issuer.url);
        issuer
            .into_iter()
            .flat_map(|issuer| &issuer.keys)
            .filter(move |entry| entry.owner.as_ref() == Some(pod))
    }
}

/// By thumbprint, since that is what the private half proves.
fn is_of(entry: &IssuerKey, key: &SigningKey) -> bool {
    entry.jwk.thumbprint() == key.public_jwk().thumbprint() && entry.jwk.kid() == Some(key.kid())
}

/// By its name and by its thumbprint, as verifiers look at it.
fn is_revoked(trusted: &TrustedIssuer, key: &SigningKey) -> bool {
    let revokes = |value: &str| trusted.revokes(RevocationKind::Key, value, None);
    revokes(key.kid()) || revokes(&key.public_jwk().thumbprint().to_string())
}

/// A token issued after the time that a revocation names is good; one issued until then never was.
fn check_not_revoked(trusted: &TrustedIssuer, client: &str, now: NumericDate) -> Result<(), CannotSign> {
    let seconds_left = |kind, value| {
        let until = trusted.revoked_until(kind, value)?;
        (now <= until).then(|| until.since(now).as_secs().saturating_add(1))
    };
    if let Some(seconds) = seconds_left(RevocationKind::Issuer, "") {
        return Err(CannotSign::AllRevoked { seconds });
    }
    let kinds = [RevocationKind::Sub, RevocationKind::ClientId];
    let of_client = kinds.into_iter().filter_map(|kind| seconds_left(kind, client));
    of_client
        .max()
        .map_or(Ok(()), |seconds| Err(CannotSign::ClientRevoked { seconds }))
}

impl Offers for SigningKeys {
    fn offers(&self, nonce: &Nonce) -> Vec<Offer> {
        self.follow();
        let config = self.verifier.config();
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let offer =
            |living: &LivingKey| Offer::new(&living.key, nonce, &config.trust.chain, &config.pod).ok();
        keys.living.iter().filter_map(offer).collect()
    }

    fn stopped(&self) -> BTreeMap<String, NumericDate> {
        self.follow();
        self.keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .stopped
            .clone()
    }
}
