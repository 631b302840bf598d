//! What requests are forwarded to: its URL, the addresses behind its name, and the choice of one for a request.
//!
//! Connections and pools belong to whoever forwards; a snapshot of the addresses is shared by all threads.

pub mod pick;
pub mod resolve;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

pub use pick::pick;
pub use resolve::Resolver;

/// An address that refused a connection is passed over for so long while there are others.
const SUSPECT_FOR: Duration = Duration::from_secs(2);

/// `http://host:port`, without a path.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UpstreamUrl {
    host: Arc<str>,
    port: u16,
}

/// Why a text is no upstream URL, as the end of a sentence that begins with the field's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUpstreamUrl {
    #[error("must be a URL such as http://shop-a.shop.svc:8080")]
    NoUrl,
    #[error("must begin with http://: TLS to upstreams is not supported yet")]
    NotSupportedYet,
    #[error("must end after host and port: paths are forwarded as they come")]
    HasPath,
    #[error("must not contain a user name or password")]
    HasCredentials,
}

impl UpstreamUrl {
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, as in a Host header.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == 80 {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl std::str::FromStr for UpstreamUrl {
    type Err = BadUpstreamUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: http::Uri = text.parse().map_err(|_| BadUpstreamUrl::NoUrl)?;
        let authority = uri.authority().ok_or(BadUpstreamUrl::NoUrl)?;
        match uri.scheme_str() {
            Some("http") => (),
            Some("https") => return Err(BadUpstreamUrl::NotSupportedYet),
            _ => return Err(BadUpstreamUrl::NoUrl),
        }
        if authority.as_str().contains('@') {
            return Err(BadUpstreamUrl::HasCredentials);
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(BadUpstreamUrl::HasPath);
        }
        // `http` takes a port that is no number for none at all, so what follows the host is looked at here.
        let port = match authority
            .as_str()
            .strip_prefix(authority.host())
            .and_then(|rest| rest.strip_prefix(':'))
        {
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or(BadUpstreamUrl::NoUrl)?,
            None => 80,
        };
        Ok(Self {
            host: authority.host().into(),
            port,
        })
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The addresses behind an upstream's name at one moment.
#[derive(Clone, Debug, Default)]
pub struct Endpoints(Vec<Arc<Endpoint>>);

impl Endpoints {
    #[must_use]
    pub fn as_slice(&self) -> &[Arc<Endpoint>] {
        &self.0
    }

    #[must_use]
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|endpoint| endpoint.address == address)
    }
}

impl FromIterator<Arc<Endpoint>> for Endpoints {
    fn from_iter<I: IntoIterator<Item = Arc<Endpoint>>>(endpoints: I) -> Self {
        Self(endpoints.into_iter().collect())
    }
}

/// One address, and how busy it is with our requests. It lives on while the name resolves to it.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    in_flight: AtomicUsize,
    known_since: Instant,
    /// Milliseconds after `known_since` until which it is suspect; 0 = never was.
    suspect_until: AtomicU64,
}

impl Endpoint {
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            in_flight: AtomicUsize::new(0),
            known_since: Instant::now(),
            suspect_until: AtomicU64::new(0),
        }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request to this address until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// It did not take a connection: others are preferred for two seconds.
    pub fn refused(&self) {
        let until = self.known_since.elapsed() + SUSPECT_FOR;
        self.suspect_until.store(
            u64::try_from(until.as_millis()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    #[must_use]
    pub fn is_suspect(&self) -> bool {
        match self.suspect_until.load(Ordering::Relaxed) {
            0 => false,
            until => self.known_since.elapsed() < Duration::from_millis(until),
        }
    }
}

/// A request that is on its way to an [`Endpoint`].
#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_urls_are_host_and_port_over_http() {
        let url: UpstreamUrl = "http://shop-a.shop.svc:8080".parse().unwrap();
        assert_eq!((url.host(), url.port()), ("shop-a.shop.svc", 8080));
        assert_eq!(url.authority(), "shop-a.shop.svc:8080");
        assert_eq!("http://a/".parse::<UpstreamUrl>().unwrap().port(), 80);
        assert_eq!("http://[::1]:81".parse::<UpstreamUrl>().unwrap().host(), "[::1]");
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        let refusal = |text: &str| text.parse::<UpstreamUrl>().unwrap_err();
        assert_eq!(refusal("https://a"), BadUpstreamUrl::NotSupportedYet);
        assert_eq!(refusal("http://a/items"), BadUpstreamUrl::HasPath);
        assert_eq!(refusal("http://a?x"), BadUpstreamUrl::HasPath);
        assert_eq!(refusal("http://me:secret@a"), BadUpstreamUrl::HasCredentials);
        for odd in [
            "",
            "a",
            "a:80",
            "ftp://a",
            "http://",
            "http://a:99999",
            "http://a:0",
            "http://a:",
        ] {
            assert_eq!(refusal(odd), BadUpstreamUrl::NoUrl, "{odd:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_suspect_for_two_seconds_after_it_refused() {
        let endpoint = Endpoint::new(([127, 0, 0, 1], 1).into());
        assert!(!endpoint.is_suspect());
        endpoint.refused();
        assert!(endpoint.is_suspect());
        tokio::time::advance(SUSPECT_FOR).await;
        assert!(!endpoint.is_suspect());
    }
}
