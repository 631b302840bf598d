//! What a verifier is told when its process starts: who it is, whom it trusts, where bundles come from. One definition
//! of flags and environment for every binary; it starts nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Uri;
use servicechain_keys::{AckKey, ChainId, PodId, Trust, TrustAnchor, Workload};
use zeroize::Zeroizing;

use crate::hop::Hop;
use crate::verified_cache::CacheLimits;

/// How long a starting verifier waits for the operator's word before it serves unconfirmed.
const STARTUP_WAIT: Duration = Duration::from_secs(3);

/// Reads the time of day. Tests move it.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Everything [`Verifier::start`](super::Verifier::start) needs.
#[derive(Clone)]
pub struct VerifierConfig {
    /// The chain, and the one or two keys that may sign its bundles.
    pub trust: Trust,
    /// Who answers and knocks.
    pub pod: PodId,
    /// Under whose key it does: the hop's or the issuer's own.
    pub workload: Workload,
    /// What this hop asks of a token beyond the chain's policy.
    pub hop: Hop,
    /// Authenticates answers and knocks; without it the keys endpoint answers 503 and nothing knocks.
    pub ack_key: Option<AckKey>,
    /// A bundle that somebody else keeps up to date (a mounted `ConfigMap`); read again every 10 seconds.
    pub bundle_file: Option<PathBuf>,
    /// Where an accepted bundle is made durable as `bundle.jws` (an `emptyDir`).
    pub state_dir: Option<PathBuf>,
    /// Where to knock, for example `http://servicechain-operator.servicechain:9443`. Without it the file is the
    /// authority.
    pub operator_url: Option<Uri>,
    /// By the name of a managed issuer: the keys port of its Service, for example
    /// `http://shop-issuer-platform.shop:9091`.
    pub issuer_urls: BTreeMap<String, Uri>,
    /// How long to wait for the operator's first word.
    pub startup_wait: Duration,
    /// What to do without that word.
    pub unconfirmed_start: UnconfirmedStart,
    /// Zero means for ever; otherwise 503 once the operator has confirmed nothing for so long.
    pub max_staleness: Duration,
    /// How many verdicts are kept.
    pub cache: CacheLimits,
    /// Tokens are judged by it.
    pub clock: Clock,
}

/// What a verifier does that heard nothing from the operator within `startupWait`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum UnconfirmedStart {
    /// It becomes ready with the bundle it has.
    #[default]
    Serve,
    /// It does not become ready.
    Wait,
}

impl VerifierConfig {
    /// The least a verifier needs; everything else as if no flag were given.
    #[must_use]
    pub fn new(trust: Trust, pod: PodId, workload: Workload, hop: Hop, clock: Clock) -> Self {
        Self {
            trust,
            pod,
            workload,
            hop,
            ack_key: None,
            bundle_file: None,
            state_dir: None,
            operator_url: None,
            issuer_urls: BTreeMap::new(),
            startup_wait: STARTUP_WAIT,
            unconfirmed_start: UnconfirmedStart::default(),
            max_staleness: Duration::ZERO,
            cache: CacheLimits::default(),
            clock,
        }
    }
}

impl fmt::Debug for VerifierConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("VerifierConfig")
            .field("chain", &self.trust.chain)
            .field("pod", &self.pod)
            .field("workload", &self.workload)
            .field("hop", &self.hop)
            .finish_non_exhaustive()
    }
}

/// Flags and environment of a process that verifies tokens.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Verification")]
pub struct VerifierArgs {
    /// Uid of the `ServiceChain` this pod belongs to.
    #[arg(long, env = "CHAIN_UID")]
    pub chain_uid: ChainId,
    /// Uid of this pod.
    #[arg(long, env = "POD_UID")]
    pub pod_uid: PodId,
    /// What this pod runs: `gateway`, or a service's or an issuer's name.
    #[arg(long, env = "WORKLOAD")]
    pub workload: Workload,
    /// Ed25519 public key that may sign key bundles, 32 bytes in base64url; two while it is being replaced.
    #[arg(long = "trust-anchor", env = "TRUST_ANCHORS", value_delimiter = ',', required = true, num_args = 1..=2)]
    pub trust_anchors: Vec<TrustAnchor>,
    /// File with this workload's acknowledgement key.
    #[arg(long, env = "ACK_KEY_FILE")]
    pub ack_key_file: Option<PathBuf>,
    /// File with the newest key bundle, kept up to date by somebody else.
    #[arg(long, env = "BUNDLE_FILE")]
    pub bundle_file: Option<PathBuf>,
    /// Directory of this pod's own where accepted bundles are kept.
    #[arg(long, env = "STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where to knock; without it the bundle file is the authority on keys.
    #[arg(long, env = "OPERATOR_URL", value_parser = http_url)]
    pub operator_url: Option<Uri>,
    /// Keys port of a managed issuer, as NAME=URL; may be repeated.
    #[arg(long = "issuer-keys-url", env = "ISSUER_KEYS_URLS", value_delimiter = ',', value_parser = named_url)]
    pub issuer_urls: Vec<(String, Uri)>,
    /// How long to wait for the operator's word at the start.
    #[arg(long, env = "STARTUP_WAIT", default_value = "3s", value_parser = duration)]
    pub startup_wait: Duration,
    /// What to do at the start when the operator says nothing.
    #[arg(long, env = "UNCONFIRMED_START", default_value = "serve", ignore_case = true)]
    pub unconfirmed_start: UnconfirmedStart,
    /// Refuse with 503 once the operator has confirmed nothing for so long; 0s never does.
    #[arg(long, env = "MAX_STALENESS", default_value = "0s", value_parser = duration)]
    pub max_staleness: Duration,
    /// Most verified tokens kept.
    #[arg(long, env = "TOKEN_CACHE_TOKENS", default_value_t = CacheLimits::default().tokens)]
    pub token_cache_tokens: u32,
    /// Most memory for verified tokens, in bytes.
    #[arg(long, env = "TOKEN_CACHE_BYTES", default_value_t = CacheLimits::default().bytes)]
    pub token_cache_bytes: u64,
}

/// Why flags do not make a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    #[error("{} cannot be read; check that the Secret is mounted", path.display())]
    AckKeyFile { path: PathBuf, source: std::io::Error },
    #[error("{} does not hold an acknowledgement key: 32 bytes in base64url", path.display())]
    AckKey { path: PathBuf },
}

impl VerifierArgs {
    /// Reads the acknowledgement key's file; everything else clap has checked.
    pub fn into_config(self, hop: Hop, clock: Clock) -> Result<VerifierConfig, ArgsError> {
        let ack_key = self.ack_key_file.map(read_ack_key).transpose()?;
        Ok(VerifierConfig {
            trust: Trust::new(self.chain_uid, self.trust_anchors),
            pod: self.pod_uid,
            workload: self.workload,
            hop,
            ack_key,
            bundle_file: self.bundle_file,
            state_dir: self.state_dir,
            operator_url: self.operator_url,
            issuer_urls: self.issuer_urls.into_iter().collect(),
            startup_wait: self.startup_wait,
            unconfirmed_start: self.unconfirmed_start,
            max_staleness: self.max_staleness,
            cache: CacheLimits {
                tokens: self.token_cache_tokens,
                bytes: self.token_cache_bytes,
            },
            clock,
        })
    }
}

fn read_ack_key(path: PathBuf) -> Result<AckKey, ArgsError> {
    match fs::read_to_string(&path).map(Zeroizing::new) {
        Ok(text) => text.parse().map_err(|_| ArgsError::AckKey { path }),
        Err(source) => Err(ArgsError::AckKeyFile { path, source }),
    }
}

fn named_url(text: &str) -> Result<(String, Uri), String> {
    match text.split_once('=') {
        Some((name, url)) if !name.is_empty() => Ok((name.to_owned(), http_url(url)?)),
        _ => Err("expected NAME=URL".to_owned()),
    }
}

fn http_url(text: &str) -> Result<Uri, String> {
    let url = text.parse::<Uri>().ok();
    url.filter(|url| url.scheme_str() == Some("http") && url.authority().is_some())
        .ok_or_else(|| "expected a URL that begins with http://".to_owned())
}

/// A duration such as `3s` or `1h30m`: what the Gateway API allows (GEP-2257), and the other spellings that jiff reads.
fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "expected a duration such as 3s or 1h30m".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use clap::Parser;
    use servicechain_keys::RootSecret;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        verifier: VerifierArgs,
    }

    fn args(more: &[&str]) -> Result<VerifierArgs, clap::Error> {
        let anchor = servicechain_keys::TrustKey::from_seed(&[1; 32])
            .unwrap()
            .anchor()
            .to_string();
        let base = [
            "x",
            "--chain-uid",
            "c",
            "--pod-uid",
            "p",
            "--workload",
            "gateway",
            "--trust-anchor",
            &anchor,
        ];
        Cli::try_parse_from(base.iter().chain(more)).map(|cli| cli.verifier)
    }

    #[test]
    fn flags_become_a_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ack-key");
        let args_of = |file: &std::path::Path| {
            let given = [
                "--issuer-keys-url=platform=http://issuer:9091",
                "--startup-wait=1m30s",
                "--unconfirmed-start=Wait",
                "--ack-key-file",
                file.to_str().unwrap(),
            ];
            args(&given)
                .unwrap()
                .into_config(Hop::new("gateway"), Arc::new(|| UNIX_EPOCH))
        };
        assert!(matches!(args_of(&file), Err(ArgsError::AckKeyFile { .. })));
        fs::write(&file, "short").unwrap();
        assert!(matches!(args_of(&file), Err(ArgsError::AckKey { .. })));
        let key =
            RootSecret::new([7; 32]).ack_key(&ChainId::new("c").unwrap(), &Workload::new("gateway").unwrap());
        fs::write(&file, key.to_text().as_bytes()).unwrap();

        let config = args_of(&file).unwrap();
        assert_eq!(config.ack_key.unwrap().to_text(), key.to_text());
        assert_eq!(config.startup_wait, Duration::from_secs(90));
        assert_eq!(config.unconfirmed_start, UnconfirmedStart::Wait);
        assert_eq!(config.issuer_urls["platform"], "http://issuer:9091");
    }

    #[test]
    fn wrong_flags_are_refused() {
        for wrong in [
            "--issuer-keys-url=platform",
            "--issuer-keys-url=a=ftp://x",
            "--operator-url=https://operator",
            "--operator-url=operator:9443",
            "--startup-wait=-3s",
            "--startup-wait=3",
        ] {
            assert!(args(&[wrong]).is_err(), "{wrong}");
        }
    }
}
