//! One GET of a document of a few kilobytes from somebody who is not trusted: the address is judged when it is called,
//! redirects are not followed, the answer is bounded in size and time. Nothing of what is answered is in an error.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG, HOST, HeaderName, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED, RETRY_AFTER, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::rules::{FetchRules, NotPublic};

/// Largest document, in bytes.
const MAX_BYTES: usize = 64 * 1024;
/// Largest head of an answer, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// From the question for the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);
/// For one address of several.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 4;

/// Where a document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    is_https: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// As the Host header has it.
    authority: String,
    path: String,
}

/// By what a document is recognised that did not change (RFC 9110 section 13.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Validators {
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Document {
    /// None: it is still the one with those validators.
    pub bytes: Option<Bytes>,
    pub validators: Validators,
    /// How long it says that it may be kept.
    pub max_age: Option<Duration>,
}

/// Why there is no document. Each is the end of a sentence about the issuer.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("its URL leads nowhere")]
    Url,
    #[error("its keys would come in clear text; use https, or run the operator with --allow-http-issuers")]
    ClearText,
    #[error("its name is not found")]
    Name,
    #[error(
        "its name leads to {0}, which the operator does not call; add its network to the operator's --issuer-networks if it belongs there"
    )]
    Address(NotPublic),
    #[error("nobody listens at its address")]
    Connect(#[source] io::Error),
    #[error("{}", of_handshake(.0))]
    Tls(#[source] io::Error),
    #[error("it did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("it redirects elsewhere, which is not followed; give the URL that it leads to")]
    Redirect,
    #[error("it answers with status {}", status.as_u16())]
    Status {
        status: StatusCode,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    #[error("its answer has more than {} KiB", MAX_BYTES / 1024)]
    TooLarge,
    #[error("its answer is compressed, which was not asked for")]
    Compressed,
    #[error("its answer breaks off, or is no HTTP")]
    Broken(#[source] hyper::Error),
}

impl Place {
    pub(super) fn parse(url: &str, rules: &FetchRules) -> Result<Self, FetchError> {
        let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if rules.allow_http => false,
            Some("http") => return Err(FetchError::ClearText),
            _ => return Err(FetchError::Url),
        };
        let authority = uri.authority().ok_or(FetchError::Url)?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(FetchError::Url);
        }
        let default = if is_https { 443 } else { 80 };
        Ok(Self {
            is_https,
            host: authority
                .host()
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: authority.port_u16().unwrap_or(default),
            authority: authority.as_str().to_owned(),
            path: uri
                .path_and_query()
                .map_or("/", http::uri::PathAndQuery::as_str)
                .to_owned(),
        })
    }
}

/// Fetches the document at `place` with what `tls` trusts, if it changed since it had `known`. `now` is the time of day.
pub(super) async fn fetch(
    place: &Place,
    rules: &FetchRules,
    tls: &TlsConnector,
    known: &Validators,
    now: SystemTime,
) -> Result<Document, FetchError> {
    let exchange = async {
        let stream = connect(place, rules).await?;
        let response = if place.is_https {
            let name = ServerName::try_from(place.host.clone()).map_err(|_| FetchError::Url)?;
            let stream = tls.connect(name, stream).await.map_err(FetchError::Tls)?;
            ask(place, known, stream).await?
        } else {
            ask(place, known, stream).await?
        };
        read(response, known, now).await
    };
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .map_err(|_| FetchError::Timeout)?
}

/// Whatever a name meant a moment ago: what is called is what was judged.
async fn connect(place: &Place, rules: &FetchRules) -> Result<TcpStream, FetchError> {
    let found = tokio::net::lookup_host((place.host.as_str(), place.port)).await;
    let found: Vec<SocketAddr> = found.map_err(|_| FetchError::Name)?.collect();
    let mut error = FetchError::Name;
    let mut tried = 0;
    for address in found {
        if let Err(why) = rules.permit(address.ip()) {
            tracing::warn!(host = place.host, %address, "not called: it is {why}");
            error = FetchError::Address(why);
            continue;
        }
        tried += 1;
        if tried > MOST_ADDRESSES {
            break;
        }
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(source)) => error = FetchError::Connect(source),
            Err(_) => error = FetchError::Timeout,
        }
    }
    Err(error)
}

async fn ask(
    place: &Place,
    known: &Validators,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Response<Incoming>, FetchError> {
    let handshake = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = handshake.map_err(FetchError::Broken)?;
    let mut request = Request::get(&place.path)
        .header(HOST, &place.authority)
        .header(ACCEPT, "application/json, application/jwk-set+json")
        .header(ACCEPT_ENCODING, "identity")
        .header(
            USER_AGENT,
            concat!("servicechain-operator/", env!("CARGO_PKG_VERSION")),
        );
    let conditions = [
        (IF_NONE_MATCH, &known.etag),
        (IF_MODIFIED_SINCE, &known.last_modified),
    ];
    for (name, value) in conditions {
        if let Some(value) = value {
            request = request.header(name, value);
        }
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| FetchError::Url)?;
    // It ends with the answer that is read from it, or when that is dropped.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(FetchError::Broken)
}

async fn read(
    response: Response<Incoming>,
    known: &Validators,
    now: SystemTime,
) -> Result<Document, FetchError> {
    let (head, body) = response.into_parts();
    let max_age = max_age(&head.headers);
    let status = head.status;
    if status == StatusCode::NOT_MODIFIED && *known != Validators::default() {
        return Ok(Document {
            bytes: None,
            validators: known.clone(),
            max_age,
        });
    }
    if status.is_redirection() {
        return Err(FetchError::Redirect);
    }
    if status != StatusCode::OK {
        let retry_after = retry_after(&head.headers, now);
        return Err(FetchError::Status { status, retry_after });
    }
    if head.headers.contains_key(CONTENT_ENCODING) {
        return Err(FetchError::Compressed);
    }
    let read = Limited::new(body, MAX_BYTES).collect().await;
    let bytes = read.map_err(|error| {
        if error.is::<LengthLimitError>() {
            return FetchError::TooLarge;
        }
        match error.downcast() {
            Ok(error) => FetchError::Broken(*error),
            Err(_) => FetchError::TooLarge,
        }
    })?;
    Ok(Document {
        bytes: Some(bytes.to_bytes()),
        validators: Validators {
            etag: head.headers.get(ETAG).cloned(),
            last_modified: head.headers.get(LAST_MODIFIED).cloned(),
        },
        max_age,
    })
}

/// None where the answer does not say, or says that it may not be kept at all.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives: Vec<String> = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|directive| directive.trim().to_ascii_lowercase())
        .collect();
    if directives
        .iter()
        .any(|directive| directive == "no-cache" || directive == "no-store")
    {
        return None;
    }
    let mut ages = directives
        .iter()
        .filter_map(|directive| directive.strip_prefix("max-age="));
    seconds(ages.next()?.trim_matches('"'))
}

/// Seconds, or a time of day.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = text(headers, RETRY_AFTER)?;
    seconds(text).or_else(|| {
        let then = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        let wait = SystemTime::from(then).duration_since(now);
        Some(wait.unwrap_or_default())
    })
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// RFC 9110 section 5.6.1 has no sign; what is too large for a number is as good as for ever.
fn seconds(digits: &str) -> Option<Duration> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Duration::from_secs(digits.parse().unwrap_or(u64::from(u32::MAX))))
}

/// In words of our own: what a server shows before it is known to be the issuer's is nothing to pass on.
fn of_handshake(error: &io::Error) -> &'static str {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
        UnknownIssuer,
    };

    let source = error.get_ref().and_then(|source| source.downcast_ref());
    let Some(rustls::Error::InvalidCertificate(refusal)) = source else {
        return "its certificate is not accepted, or it speaks no TLS";
    };
    match refusal {
        Expired | ExpiredContext { .. } => "its certificate has expired; renew it",
        NotValidYet | NotValidYetContext { .. } => "its certificate is not valid yet; look at both clocks",
        NotValidForName | NotValidForNameContext { .. } => {
            "its certificate is not for the host of its URL; use the name that is in the certificate"
        }
        UnknownIssuer => {
            "its certificate is signed by an authority that is not trusted; give the issuer that authority as caBundle"
        }
        _ => "its certificate is not accepted",
    }
}

/// What a fetch trusts: the certificates in `given` (PEM), or else the public ones.
pub(super) fn tls(given: Option<&str>) -> Result<TlsConnector, NoRoots> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    let mut roots = rustls::RootCertStore::empty();
    match given {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|_| NoRoots::Unreadable)?;
                roots.add(certificate).map_err(|_| NoRoots::Unreadable)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(if given.is_some() {
            NoRoots::Empty
        } else {
            NoRoots::NoneHere
        });
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| NoRoots::Unreadable)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Why nothing is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoRoots {
    #[error("its caBundle cannot be read; it must hold certificates in PEM")]
    Unreadable,
    #[error("its caBundle holds no certificate in PEM")]
    Empty,
    #[error("the operator has no public certificates; give the issuer a caBundle")]
    NoneHere,
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn headers(given: &[(HeaderName, &str)]) -> HeaderMap {
        let pairs = given.iter();
        pairs
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn urls_are_https_and_name_nobody_but_a_host() {
        let strict = FetchRules::default();
        let place = Place::parse("https://idp.example.com/realms/corp?x=1", &strict).unwrap();
        assert_eq!((place.port, place.path.as_str()), (443, "/realms/corp?x=1"));
        let literal = Place::parse("https://[2606:4700::1111]:8443", &strict).unwrap();
        assert_eq!((literal.host.as_str(), literal.port), ("2606:4700::1111", 8443));
        assert_eq!(
            (literal.authority.as_str(), literal.path.as_str()),
            ("[2606:4700::1111]:8443", "/")
        );
        assert!(matches!(
            Place::parse("http://idp.example.com", &strict),
            Err(FetchError::ClearText)
        ));
        for wrong in [
            "https://user@idp.example.com",
            "ftp://x",
            "/keys",
            "https://",
            "https://a b/",
        ] {
            assert!(
                matches!(Place::parse(wrong, &strict), Err(FetchError::Url)),
                "{wrong}"
            );
        }
        let lax = FetchRules::unrestricted();
        assert_eq!(Place::parse("http://127.0.0.1/", &lax).unwrap().port, 80);
    }

    #[tokio::test]
    async fn an_address_is_judged_when_it_is_called_and_one_that_is_not_public_never_is() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = TlsConnector::from(Arc::new(
            rustls::ClientConfig::builder_with_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth(),
        ));
        let rules = FetchRules {
            allow_http: true,
            networks: Vec::new(),
        };
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            let place = Place::parse(&format!("http://{host}:{port}/"), &rules).unwrap();
            let fetched = fetch(&place, &rules, &tls, &Validators::default(), UNIX_EPOCH).await;
            assert!(
                matches!(fetched, Err(FetchError::Address(NotPublic::Loopback))),
                "{host}: {fetched:?}"
            );
        }
        let called = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
        assert!(called.is_err(), "nobody was called");
    }

    #[test]
    fn an_answers_life_is_what_it_says() {
        for (says, age) in [
            ("max-age=600", Some(600)),
            ("public, Max-Age=600, must-revalidate", Some(600)),
            ("max-age=\"60\"", Some(60)),
            ("max-age=99999999999999999999999", Some(u64::from(u32::MAX))),
            ("no-cache", None),
            ("no-store, max-age=600", None),
            ("max-age=-1", None),
            ("s-maxage=600", None),
        ] {
            let found = max_age(&headers(&[(CACHE_CONTROL, says)]));
            assert_eq!(found, age.map(Duration::from_secs), "{says}");
        }
        assert_eq!(max_age(&HeaderMap::new()), None);
    }

    #[test]
    fn how_long_to_stay_away_is_a_number_or_a_time() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (says, wait) in [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let found = retry_after(&headers(&[(RETRY_AFTER, says)]), now);
            assert_eq!(found, wait.map(Duration::from_secs), "{says:?}");
        }
    }

    #[test]
    fn a_bundle_of_certificates_is_one_or_is_named() {
        assert_eq!(tls(Some("")).err(), Some(NoRoots::Empty));
        assert_eq!(tls(Some("not PEM")).err(), Some(NoRoots::Empty));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(tls(Some(broken)).err(), Some(NoRoots::Unreadable));
    }
}
