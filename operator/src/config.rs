//! What the operator is told once, when it starts: flags and environment become [`Settings`] and the facts of its own pod.
//! It must not know a chain.

use std::collections::BTreeMap;
use std::net::IpAddr;

use clap::Parser;
use ipnet::IpNet;
use servicechain_runtime::telemetry::ProcessTelemetryArgs;

use crate::key_controller::external::FetchRules;

/// PostgreSQL's major for a chain that names none; recorded with its volume, so that a later default changes no old one.
const DEFAULT_POSTGRES_MAJOR: &str = "17";

/// What the objects of every chain are built with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub images: Images,
    /// A key of [`Images::postgres`].
    pub default_postgres_major: String,
    /// Base URL where verifiers knock, without a trailing slash.
    pub knock_url: String,
    pub operator_namespace: String,
    /// What names of Services end in, such as `cluster.local`.
    pub cluster_domain: String,
    /// Where clients reach a NodePort, by port: known to whoever made the cluster, not to Kubernetes.
    pub node_port_urls: BTreeMap<u16, String>,
    /// Where keys of external issuers may be fetched.
    pub fetch_rules: FetchRules,
}

/// The images of the pods that the operator makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    pub gateway: String,
    pub item_service: String,
    pub token_issuer: String,
    /// By major version, such as `17`.
    pub postgres: BTreeMap<String, String>,
    pub redis: String,
}

/// The operator of ServiceChains: makes the objects of every chain, and brings every verifier the same keys
///
/// Every setting is a flag or an environment variable; the Helm chart sets them all. Several replicas elect a leader,
/// which alone writes; the others wait, and tell who knocks where the leader is.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "servicechain-operator",
    version,
    after_long_help = PORTS,
    max_term_width = 100
)]
pub struct Args {
    /// Namespace that the operator runs in, with its lease and its roots of trust
    #[arg(long, env = "OPERATOR_NAMESPACE")]
    pub operator_namespace: String,
    /// This pod's name (downward API)
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// This pod's address (downward API)
    #[arg(long, env = "POD_IP")]
    pub pod_ip: IpAddr,
    /// The one namespace whose chains are looked after; absent = all
    #[arg(long, env = "WATCH_NAMESPACE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub watch_namespace: Option<String>,
    /// Base URL where verifiers knock; absent = the Service `servicechain-operator` of the operator's namespace
    #[arg(long, env = "KNOCK_URL", value_parser = base_url)]
    pub knock_url: Option<String>,
    /// Domain of the cluster: with the whole name of a Service, pods ask for it once and never outside the cluster
    #[arg(long, env = "CLUSTER_DOMAIN", default_value = "cluster.local", value_parser = domain)]
    pub cluster_domain: String,
    /// Image of gateways
    #[arg(long, env = "GATEWAY_IMAGE", value_parser = image)]
    pub gateway_image: String,
    /// Image of services that bring none of their own
    #[arg(long, env = "ITEM_SERVICE_IMAGE", value_parser = image)]
    pub item_service_image: String,
    /// Image of managed issuers
    #[arg(long, env = "TOKEN_ISSUER_IMAGE", value_parser = image)]
    pub token_issuer_image: String,
    /// Images of PostgreSQL by major version, `15=image,17=image`
    #[arg(long, env = "POSTGRES_IMAGES", value_parser = postgres_images)]
    pub postgres_images: Pairs<String>,
    /// Major version of PostgreSQL for services that name none
    #[arg(long, env = "DEFAULT_POSTGRES_MAJOR", default_value = DEFAULT_POSTGRES_MAJOR)]
    pub default_postgres_major: String,
    /// Image of Redis
    #[arg(long, env = "REDIS_IMAGE", value_parser = image)]
    pub redis_image: String,
    /// Where clients reach a NodePort, `30080=http://127.0.0.1:8080,…`; shown in status
    #[arg(long, env = "NODE_PORT_URLS", default_value = "", value_parser = node_port_urls)]
    pub node_port_urls: Pairs<u16>,
    /// Fetch keys of external issuers in clear text too, where a chain says http; whoever is on the way can change them
    #[arg(long, env = "ALLOW_HTTP_ISSUERS")]
    pub allow_http_issuers: bool,
    /// Address ranges that are not public and where external issuers are all the same, `10.20.0.0/16,…`. Without it only
    /// public addresses are called: chains' authors write the URLs, and pods, nodes and the cloud's metadata have addresses too
    #[arg(long, env = "ISSUER_NETWORKS", default_value = "", value_parser = networks)]
    pub issuer_networks: Networks,
    /// Make a trust key or root secret that is gone anew although chains run; all of their pods must be replaced then. Take
    /// it away again afterwards
    #[arg(long, env = "REPLACE_LOST_ROOTS")]
    pub replace_lost_roots: bool,
    /// Port of `/livez`, `/readyz` and `/metrics`
    #[arg(long, env = "ADMIN_PORT", default_value_t = 9090)]
    pub admin_port: u16,
    /// Port where verifiers knock
    #[arg(long, env = "KNOCK_PORT", default_value_t = 9091)]
    pub knock_port: u16,
    #[command(flatten)]
    pub telemetry: ProcessTelemetryArgs,
}

const PORTS: &str =
    "Ports: health and metrics (--admin-port: /livez /readyz /metrics), knocks (--knock-port).
SIGTERM ends what is being done, gives up the lease and exits; losing the lease ends the process at once.
Exit codes: 0 after SIGTERM, 1 when it cannot go on (the reason is said), 2 for wrong flags.";

/// `key=value,key=value`, as one value: clap would take a plain map for a flag of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs<K: Ord>(pub BTreeMap<K, String>);

/// `10.20.0.0/16,fd12::/32`, as one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks(pub Vec<IpNet>);

/// Why the flags, each fine alone, do not go together.
#[derive(Debug, thiserror::Error)]
#[error(
    "--default-postgres-major {major} has no image; --postgres-images has {known}. Add `{major}=image` or name another default"
)]
pub struct UnknownDefaultMajor {
    major: String,
    known: String,
}

impl Args {
    /// What chains are built with.
    pub fn settings(&self) -> Result<Settings, UnknownDefaultMajor> {
        let postgres = self.postgres_images.0.clone();
        if !postgres.contains_key(&self.default_postgres_major) {
            return Err(UnknownDefaultMajor {
                major: self.default_postgres_major.clone(),
                known: postgres.into_keys().collect::<Vec<_>>().join(", "),
            });
        }
        let namespace = &self.operator_namespace;
        let knock_url = self.knock_url.clone();
        Ok(Settings {
            images: Images {
                gateway: self.gateway_image.clone(),
                item_service: self.item_service_image.clone(),
                token_issuer: self.token_issuer_image.clone(),
                postgres,
                redis: self.redis_image.clone(),
            },
            default_postgres_major: self.default_postgres_major.clone(),
            knock_url: knock_url
                .unwrap_or_else(|| format!("http://servicechain-operator.{namespace}.svc:9091")),
            operator_namespace: namespace.clone(),
            cluster_domain: self.cluster_domain.clone(),
            node_port_urls: self.node_port_urls.0.clone(),
            fetch_rules: FetchRules {
                allow_http: self.allow_http_issuers,
                networks: self.issuer_networks.0.clone(),
            },
        })
    }
}

fn image(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err("must be the name of an image, such as registry.example.com/gateway:1.2.3".to_owned());
    }
    Ok(text.to_owned())
}

fn networks(text: &str) -> Result<Networks, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let parsed = parts.map(|part| {
        part.parse()
            .map_err(|_| format!("{part:?} is no address range, such as 10.20.0.0/16"))
    });
    parsed.collect::<Result<_, _>>().map(Networks)
}

fn domain(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if !text.split('.').all(is_label) {
        return Err("must be the domain of the cluster's DNS, such as cluster.local".to_owned());
    }
    Ok(text.to_owned())
}

fn base_url(text: &str) -> Result<String, String> {
    let is_base = text
        .parse::<http::Uri>()
        .is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.authority().is_some());
    if !is_base {
        return Err(
            "must be a URL such as http://servicechain-operator.servicechain-system.svc:9091".to_owned(),
        );
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn postgres_images(text: &str) -> Result<Pairs<String>, String> {
    let images = pairs(text, |major| {
        major
            .parse::<u16>()
            .map(|_| major.to_owned())
            .map_err(|_| format!("{major:?} is no major version of PostgreSQL, such as 17"))
    })?;
    for name in images.0.values() {
        image(name)?;
    }
    if images.0.is_empty() {
        return Err("must name an image for at least one major version, such as 17=image".to_owned());
    }
    Ok(images)
}

fn node_port_urls(text: &str) -> Result<Pairs<u16>, String> {
    pairs(text, |port| {
        port.parse()
            .map_err(|_| format!("{port:?} is no port, such as 30080"))
    })
}

fn pairs<K: Ord>(text: &str, key: impl Fn(&str) -> Result<K, String>) -> Result<Pairs<K>, String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let read = |item: &str| match item.split_once('=') {
        Some((name, value)) if !value.trim().is_empty() => Ok((key(name.trim())?, value.trim().to_owned())),
        _ => Err(format!("{item:?} must be key=value")),
    };
    items.map(read).collect::<Result<_, _>>().map(Pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDED: [&str; 17] = [
        "servicechain-operator",
        "--operator-namespace",
        "system",
        "--pod-name",
        "operator-0",
        "--pod-ip",
        "10.0.0.7",
        "--gateway-image",
        "gateway:1",
        "--item-service-image",
        "item-service:1",
        "--token-issuer-image",
        "token-issuer:1",
        "--redis-image",
        "redis:1",
        "--postgres-images",
        "15=postgres:15, 17=postgres:17",
    ];

    fn parse(more: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(NEEDED.iter().chain(more))
    }

    #[test]
    fn settings_come_from_flags_with_their_defaults() {
        let settings = parse(&[]).unwrap().settings().unwrap();
        assert_eq!(settings.knock_url, "http://servicechain-operator.system.svc:9091");
        assert_eq!(settings.default_postgres_major, "17");
        assert_eq!(settings.images.postgres["15"], "postgres:15");
        assert!(settings.node_port_urls.is_empty());
        let settings = parse(&["--node-port-urls", "30080=http://127.0.0.1:8080"])
            .unwrap()
            .settings()
            .unwrap();
        assert_eq!(settings.node_port_urls[&30080], "http://127.0.0.1:8080");
    }

    #[test]
    fn bad_flags_are_refused() {
        for flags in [
            ["--pod-ip", "nowhere"],
            ["--knock-url", "operator:9091"],
            ["--node-port-urls", "http=x"],
            ["--node-port-urls", "30080"],
            ["--redis-image", ""],
            ["--cluster-domain", "cluster.local."],
            ["--otlp-endpoint", "https://collector:4318"],
        ] {
            assert!(parse(&flags).is_err(), "{flags:?}");
        }
        assert!(postgres_images("seventeen=postgres").is_err());
        assert!(postgres_images("").is_err());
    }

    #[test]
    fn a_default_major_without_an_image_is_refused_with_the_majors_there_are() {
        let error = parse(&["--default-postgres-major", "18"])
            .unwrap()
            .settings()
            .unwrap_err();
        assert!(error.to_string().contains("has 15, 17"), "{error}");
    }
}
