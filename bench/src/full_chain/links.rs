//! The processes of one chain: a gateway before A, B and C, on databases that all chains of a run share, so that items
//! are there for each.

use std::env::current_exe;
use std::fs;
use std::path::Path;

use anyhow::Result;
use servicechain_fixtures::{Postgres, Redis};
use servicechain_keys::Algorithm::RS256;

use super::CACHE_TTL;
use crate::ours::{Gateway, Service};
use crate::peers::{Proxy, Setting};
use crate::settings::Settings;

pub(super) const HOPS: [&str; 3] = ["a", "b", "c"];

/// Which programs a chain is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Those that are deployed.
    Deployed,
    /// The benchmark's, with the layers that verify.
    Verifying,
    NotVerifying,
}

impl Kind {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Deployed => "servicechain",
            Self::Verifying => "verifying",
            Self::NotVerifying => "not_verifying",
        }
    }
}

/// Of A, B and C: a database and a keyspace each, as URLs.
pub(super) struct Stores([(String, String); 3]);

impl Stores {
    pub(super) fn new(postgres: &Postgres, redis: &Redis) -> Result<Self> {
        let store = || Ok::<_, anyhow::Error>((postgres.fresh_database()?, redis.fresh_keyspace()));
        Ok(Self([store()?, store()?, store()?]))
    }
}

pub(super) struct Links {
    pub(super) kind: Kind,
    pub(super) gateway: Proxy,
    /// A, B and C.
    pub(super) services: Vec<Proxy>,
}

impl Links {
    /// Starts the last first, and waits until each is ready.
    pub(super) fn start(
        settings: &Settings,
        setting: &Setting<'_>,
        stores: &Stores,
        kind: Kind,
    ) -> Result<Self> {
        let mut services: Vec<Proxy> = Vec::new();
        for ((hop, (database, cache)), next) in
            HOPS.iter().zip(&stores.0).zip([Some("b"), Some("c"), None]).rev()
        {
            let name = format!("{}-{hop}", kind.label());
            let next_url = match services.last() {
                Some(next) => Some(format!("http://{}", next.address("main")?)),
                None => None,
            };
            let own = current_exe()?;
            let (program, arguments): (&Path, Vec<String>) = match kind {
                Kind::Deployed => {
                    let config = setting.folder.join(format!("{name}.yaml"));
                    fs::write(&config, yaml(hop, next))?;
                    let mut arguments = vec![format!("--config={}", config.display())];
                    arguments.extend(next_url.map(|url| format!("--next-hop-url={url}")));
                    (&settings.item_service, arguments)
                }
                Kind::Verifying | Kind::NotVerifying => {
                    let way = if kind == Kind::Verifying {
                        "--with-layers"
                    } else {
                        "--without-layers"
                    };
                    let issuer = &setting.chain.issuer(RS256)?.iss;
                    let mut arguments = vec!["serve-items".to_owned(), way.to_owned()];
                    arguments.extend([format!("--hop={hop}"), format!("--issuer={issuer}")]);
                    arguments.extend(next_url.map(|url| format!("--next={url}")));
                    (&own, arguments)
                }
            };
            let mut service = Service {
                name: &name,
                hop,
                program,
                arguments,
                environment: vec![("DATABASE_URL", database.clone()), ("REDIS_URL", cache.clone())],
                cached_tokens: 10_000,
                on_one_core: true,
            }
            .spawn(setting)?;
            match kind {
                Kind::Deployed => service.wait_until_ready()?,
                Kind::Verifying | Kind::NotVerifying => service.wait()?,
            }
            services.push(service);
        }
        services.reverse();
        let first = services[0].address("main")?;
        let needs = match kind {
            Kind::Deployed | Kind::Verifying => r#"scopes: ["items:read"]"#,
            Kind::NotVerifying => "authentication: None",
        };
        let route =
            format!(r#"- {{name: items, pathPrefix: /, upstream: "http://{first}", service: a, {needs}}}"#);
        let name = format!("{}-gateway", kind.label());
        let mut gateway = Gateway::new(&name, &settings.gateway, route + "\n").start(setting)?;
        gateway.wait_until_ready()?;
        Ok(Self {
            kind,
            gateway,
            services,
        })
    }

    pub(super) fn forget_logs(&self) -> Result<()> {
        let mut all = self.services.iter().chain([&self.gateway]);
        all.try_for_each(|proxy| proxy.process.forget_log())
    }
}

fn yaml(hop: &str, next: Option<&str>) -> String {
    let next = next.map(|next| format!("nextHop: {next}\n")).unwrap_or_default();
    format!(
        "hop: {{name: {hop}}}\ncacheTTL: {}ms\nauthorization:\n\
         - {{methods: [GET], pathPrefix: /, scopes: [\"items:read\"]}}\n\
         - {{methods: [PUT], pathPrefix: /, scopes: [\"items:write\"]}}\n{next}",
        CACHE_TTL.as_millis()
    )
}
