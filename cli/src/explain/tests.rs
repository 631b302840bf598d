//! What a token meets at every hop, in words: over bundles and tokens that verify for real.

use http::Method;
use serde_json::{Value, json};
use servicechain_auth::specimen::Specimen;
use servicechain_crds::ValidatedChain;

use super::explanation::Explanation;
use super::judge::{Request, explain};
use super::render::render;
use crate::paint::Paint;

/// The chain of the specimen: its only issuer, and three services of which b wants another audience.
fn chain() -> ValidatedChain {
    let chain = json!({
        "apiVersion": "servicechain.dev/v1alpha1",
        "kind": "ServiceChain",
        "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {
            "audiences": ["shop", "billing"],
            "issuers": [{"name": "platform", "managed": {}}],
            "gateway": {"routes": [{"name": "items", "service": "a"}]},
            "services": [
                {
                    "name": "a",
                    "authorization": [
                        {"methods": ["GET"], "scopes": ["items:read"]},
                        {"methods": ["PUT"], "scopes": ["items:admin"]},
                    ],
                    "database": {"managed": {}},
                },
                {"name": "b", "audiences": ["billing"], "database": {"managed": {}}},
                {"name": "c", "database": {"managed": {}}},
            ],
        },
    });
    servicechain_crds::read(&chain.to_string()).unwrap()
}

fn explained(specimen: &Specimen, token: &str, method: Method) -> Explanation {
    let request = Request {
        method,
        host: String::new(),
        path: "/items/1".to_owned(),
    };
    let mut bundle = specimen.bundle();
    bundle.issuers[0].audiences.push("billing".to_owned());
    explain(token, &specimen.sign(&bundle), &chain(), &request, specimen.now())
}

fn rendered(specimen: &Specimen, token: &str, method: Method) -> String {
    let text = render(&explained(specimen, token, method), Paint::Plain);
    // The key's name is the thumbprint of a key made for this run.
    let kid = specimen
        .key
        .public_jwk()
        .kid()
        .unwrap_or_default()
        .chars()
        .take(4)
        .collect::<String>();
    text.replace(&format!("key {kid}…"), "key KEY…")
}

fn with(specimen: &Specimen, changes: &[(&str, Value)]) -> String {
    let mut claims = specimen.claims();
    for (name, value) in changes {
        claims.insert((*name).to_owned(), value.clone());
    }
    specimen.token_with(&claims)
}

#[test]
fn every_hop_says_whether_and_why_it_would_let_the_token_pass() {
    let specimen = Specimen::new();
    let token = with(
        &specimen,
        &[("aud", json!(["shop", "billing"])), ("jti", json!("1"))],
    );
    assert_eq!(
        rendered(&specimen, &token, Method::GET),
        format!(
            "\
subject alice of http://shop-issuer-platform.shop.svc · expires in 15 m · {} bytes \
(largest claim: iss, 38 bytes)
gateway  ✓ key KEY… (ES256)  audience shop, billing
a        ✓ key KEY… (ES256)  may GET /items/1 (scope items:read items:write)
b        ✓ key KEY… (ES256)  any verified caller may
c        ✓ key KEY… (ES256)  any verified caller may
",
            token.len()
        )
    );
    assert!(explained(&specimen, &token, Method::GET).passes());
}

#[test]
fn a_hop_that_refuses_says_what_to_change_and_later_ones_are_not_reached() {
    let specimen = Specimen::new();
    let text = rendered(&specimen, &specimen.token(), Method::GET);
    let lines: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(
        lines[2..],
        [
            "b        ✗ audience: wants billing, token has shop  -> spec.services[1].audiences",
            "c        - not reached"
        ]
    );
    let text = rendered(&specimen, &specimen.token(), Method::PUT);
    let a = "a        ✗ scope: wants items:admin, token has items:read items:write  -> spec.services[0].authorization";
    assert_eq!(text.lines().nth(2), Some(a));
    let text = rendered(&specimen, &specimen.token(), Method::DELETE);
    let a = "a        ✗ nobody may DELETE /items/1  -> spec.services[0].authorization";
    assert_eq!(text.lines().nth(2), Some(a));
}

#[test]
fn what_is_wrong_with_a_token_is_said_at_the_gateway() {
    let specimen = Specimen::new();
    let expired = with(
        &specimen,
        &[("iat", json!(1_799_990_000)), ("exp", json!(1_799_999_928))],
    );
    let foreign = with(&specimen, &[("iss", json!("https://else.example.com"))]);
    // The first character of the signature: the last one could decode to the same bytes.
    let token = specimen.token();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{signed}.{other}{}", &signature[1..]);
    for (token, says) in [
        (expired.as_str(), "gateway  ✗ expired 1 m 12 s ago"),
        (
            &foreign,
            "gateway  ✗ issuer is not trusted; trusted: http://shop-issuer-platform.shop.svc  -> spec.issuers",
        ),
        (&forged, "gateway  ✗ signature does not verify"),
        ("not-a-token", "gateway  ✗ token has not three parts"),
        (
            &Specimen::new().token(),
            "gateway  ✗ its key is not among those of its issuer",
        ),
    ] {
        let text = rendered(&specimen, token, Method::GET);
        assert_eq!(text.lines().nth(1), Some(says));
        assert!(!explained(&specimen, token, Method::GET).passes());
    }
}

#[test]
fn neither_the_token_nor_a_part_of_it_is_printed() {
    let specimen = Specimen::new();
    for token in [specimen.token(), with(&specimen, &[("aud", json!("else"))])] {
        let explanation = explained(&specimen, &token, Method::GET);
        let said = [
            render(&explanation, Paint::Plain),
            serde_json::to_string(&explanation).unwrap(),
        ]
        .concat();
        for part in token.split('.') {
            assert!(!said.contains(part), "{said}");
        }
    }
}

#[test]
fn an_audience_that_no_token_of_the_issuer_can_have_is_named() {
    let specimen = Specimen::new();
    let request = Request {
        method: Method::GET,
        host: String::new(),
        path: "/items/1".to_owned(),
    };
    let bundle = specimen.sign(&specimen.bundle());
    let explanation = explain(&specimen.token(), &bundle, &chain(), &request, specimen.now());
    assert_eq!(
        explanation.hops[2].because,
        "audience: its issuer has none of billing"
    );
}

#[test]
fn a_request_without_a_route_never_enters() {
    let specimen = Specimen::new();
    let mut chain = chain();
    "/shop".clone_into(&mut chain.gateway.routes[0].path_prefix);
    let request = Request {
        method: Method::GET,
        host: String::new(),
        path: "/items/1".to_owned(),
    };
    let explanation = explain(
        &specimen.token(),
        &specimen.sign(&specimen.bundle()),
        &chain,
        &request,
        specimen.now(),
    );
    assert_eq!(explanation.hops[0].because, "no route for /items/1");
}

#[test]
fn a_route_for_some_hosts_is_taken_only_by_their_requests() {
    let specimen = Specimen::new();
    let mut chain = chain();
    chain.gateway.routes[0].hosts = vec!["*.example.com".to_owned()];
    let because = |host: &str, path: &str| {
        let request = Request {
            method: Method::GET,
            host: host.to_owned(),
            path: path.to_owned(),
        };
        let bundle = specimen.sign(&specimen.bundle());
        let explanation = explain(&specimen.token(), &bundle, &chain, &request, specimen.now());
        explanation.hops[0].because.clone()
    };
    assert_eq!(because("shop.example.com", "/items/1"), "audience shop");
    assert_eq!(
        because("", "/items/1"),
        "no route for /items/1 of any host: say --host, such as *.example.com"
    );
    assert_eq!(
        because("else.org", "/items/1"),
        "no route for /items/1 of host else.org"
    );
    assert_eq!(
        because("shop.example.com", "/items/..;/1"),
        "400: the path has parameters, which begin with a semicolon"
    );
}

#[test]
fn a_route_asks_for_what_the_gateway_would_ask_for() {
    let specimen = Specimen::new();
    let mut chain = chain();
    chain.gateway.routes[0].scopes = vec!["items:read".to_owned(), "admin".to_owned()];
    let request = Request {
        method: Method::GET,
        host: String::new(),
        path: "/items/1?x=1".to_owned(),
    };
    let bundle = specimen.sign(&specimen.bundle());
    let explanation = explain(&specimen.token(), &bundle, &chain, &request, specimen.now());
    let gateway = &explanation.hops[0];
    assert_eq!(
        gateway.because,
        "scope: wants items:read admin, token has items:read items:write"
    );
    assert_eq!(gateway.look_at.as_deref(), Some("spec.gateway.routes[0].scopes"));
}
