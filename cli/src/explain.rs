//! `servicechain explain`: whether a token would pass each hop of a chain, and why not. The chain's verifiers are
//! asked nothing; the very function they use judges here, over the very bundle they hold.
//! It must never print the token or its signature.

mod judge;
mod peek;
mod render;

use serde::Serialize;

pub(crate) use judge::{Request, explain};
pub(crate) use render::render;

/// What a token would meet on its way.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explanation {
    pub token: About,
    pub hops: Vec<HopStanding>,
}

/// What the token says of itself; nothing of it is believed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct About {
    pub bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Seconds until `exp`; negative when it has passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_claim: Option<Claim>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// A claim by its weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Claim {
    pub name: String,
    pub bytes: usize,
}

/// How a token stands at one hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HopStanding {
    pub hop: String,
    pub standing: Standing,
    /// Why, in a few words.
    pub because: String,
    /// The key it was verified with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// Where in the chain to look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look_at: Option<String>,
}

/// A key by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Key {
    pub kid: String,
    pub algorithm: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Standing {
    Passes,
    Refused,
    NotReached,
}

impl Explanation {
    /// Whether the token would pass the whole way.
    pub(crate) fn passes(&self) -> bool {
        self.hops.iter().all(|hop| hop.standing == Standing::Passes)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};
    use servicechain_auth::specimen::Specimen;
    use servicechain_crds::ValidatedChain;

    use super::*;
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
}
