//! The authorization rules: the first match decides, on segment borders, and what is ambiguous matches nothing.

use http::Method;
use proptest::prelude::*;
use servicechain_auth::rejected::Forbidden;
use servicechain_auth::specimen::{Specimen, bearing};
use servicechain_auth::{AuthorizationRules, Caller, Judged, Rejected};

fn caller(scope: &str) -> Caller {
    let chain = Specimen::new();
    let mut claims = chain.claims();
    claims.insert("scope".into(), scope.into());
    let Judged::Verified(caller) = chain.verifier().judge(&bearing(&chain.token_with(&claims))) else {
        panic!()
    };
    caller
}

fn rules(json: &str) -> AuthorizationRules {
    serde_json::from_str(json).unwrap()
}

const RULES: &str = r#"[
    {"methods": ["GET", "HEAD"], "pathPrefix": "/items/public"},
    {"methods": ["GET", "HEAD"], "pathPrefix": "/items/", "scopes": ["items:read"]},
    {"methods": ["PUT"], "pathPrefix": "/items", "scopes": ["items:read", "items:write"]}
]"#;

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = rules(RULES);
    let (nobody, reader, writer) = (caller(""), caller("items:read"), caller("items:write items:read"));
    let lacks = |scopes: &str| Err(Rejected::Forbidden(Forbidden::Scopes(scopes.into())));
    let no_rule = Err(Rejected::Forbidden(Forbidden::NoRule));
    assert_eq!(rules.decide(&Method::GET, "/items/public/1", &nobody), Ok(()));
    assert_eq!(
        rules.decide(&Method::GET, "/items/1", &nobody),
        lacks("items:read")
    );
    assert_eq!(rules.decide(&Method::GET, "/items/1", &reader), Ok(()));
    assert_eq!(rules.decide(&Method::GET, "/items", &reader), Ok(()));
    assert_eq!(
        rules.decide(&Method::PUT, "/items/1", &reader),
        lacks("items:read items:write")
    );
    assert_eq!(rules.decide(&Method::PUT, "/items/1", &writer), Ok(()));
    assert_eq!(rules.decide(&Method::DELETE, "/items/1", &writer), no_rule);
    assert_eq!(rules.decide(&Method::GET, "/", &writer), no_rule);
}

#[test]
fn an_empty_list_allows_nothing() {
    let refused = rules("[]").decide(&Method::GET, "/", &caller("items:read"));
    assert_eq!(refused, Err(Rejected::Forbidden(Forbidden::NoRule)));
}

#[test]
fn a_prefix_ends_at_a_segment_border() {
    let rules = rules(r#"[{"pathPrefix": "/a/b"}]"#);
    let caller = caller("");
    for inside in ["/a/b", "/a/b/", "/a/b/c", "/a/%62", "/%61/b/c%20d"] {
        assert_eq!(rules.decide(&Method::GET, inside, &caller), Ok(()), "{inside}");
    }
    for outside in ["/", "/a", "/a/bc", "/a/b.json", "/A/b", "/x/a/b"] {
        assert!(rules.decide(&Method::GET, outside, &caller).is_err(), "{outside}");
    }
}

#[test]
fn a_path_that_two_programs_could_read_differently_matches_nothing() {
    let rules = rules(r#"[{"pathPrefix": "/"}]"#);
    let caller = caller("");
    for odd in [
        "",
        "a",
        "*",
        "//",
        "//a",
        "/a//b",
        "/./a",
        "/a/.",
        "/a/..",
        "/a/../b",
        "/%2e%2e/a",
        "/.%2E/a",
        "/a%2Fb",
        "/a%2fb",
        "/a%5Cb",
        "/a\\b",
        "/a;x",
        "/a;/b",
        "/a%3Bx",
        "/a%00",
        "/a%0a",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a%252e",
        "/a%ff",
        "/a%23b",
        "/a%3Fb",
    ] {
        assert!(rules.decide(&Method::GET, odd, &caller).is_err(), "{odd}");
    }
    for plain in [
        "/", "/a", "/a/", "/a.b", "/...", "/a%20b", "/%C3%BC", "/a+b", "/a:b@c", "/~a",
    ] {
        assert_eq!(rules.decide(&Method::GET, plain, &caller), Ok(()), "{plain}");
    }
}

#[test]
fn a_rule_that_could_never_mean_what_it_says_is_refused() {
    for wrong in [
        r#"[{"methods": ["get"], "pathPrefix": "/"}]"#,
        r#"[{"methods": ["G T"], "pathPrefix": "/"}]"#,
        r#"[{"pathPrefix": "items"}]"#,
        r#"[{"pathPrefix": ""}]"#,
        r#"[{"pathPrefix": "//items"}]"#,
        r#"[{"pathPrefix": "/a/../b"}]"#,
        r#"[{"pathPrefix": "/%69tems"}]"#,
        r#"[{"pathPrefix": "/", "scopes": ["a b"]}]"#,
        r#"[{"pathPrefix": "/", "scopes": ["a\""]}]"#,
        r#"[{"pathPrefix": "/", "scope": ["a"]}]"#,
        r#"[{"methods": ["GET"]}]"#,
    ] {
        assert!(
            serde_json::from_str::<AuthorizationRules>(wrong).is_err(),
            "{wrong}"
        );
    }
}

proptest! {
    #[test]
    fn no_path_panics(path in any::<String>()) {
        let _ = rules(RULES).decide(&Method::GET, &path, &caller("items:read"));
    }
}
