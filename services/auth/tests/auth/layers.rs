//! The layers around services: what goes in, what comes out, what is sent on.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use servicechain_auth::second_opinion::VERDICT;
use servicechain_auth::specimen::{Specimen, bearing};
use servicechain_auth::verifier::VerifierConfig;
use servicechain_auth::{
    AuthorizationRules, Caller, Hop, PropagateTokenLayer, Rejected, RequireTokenLayer, Verifier,
};
use tower::{ServiceBuilder, ServiceExt};

fn request(path: &str, headers: HeaderMap) -> Request<Body> {
    let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
    *request.headers_mut() = headers;
    request
}

fn app(verifier: Arc<Verifier>, rules: &str) -> Router {
    let layer = RequireTokenLayer::new(verifier)
        .with_rules(serde_json::from_str::<AuthorizationRules>(rules).unwrap());
    Router::new()
        .route(
            "/{*path}",
            get(|caller: Caller| async move { caller.to_string() }),
        )
        .layer(layer)
}

const READERS: &str = r#"[{"methods":["GET"],"pathPrefix":"/items","scopes":["items:read"]},
                          {"methods":["GET"],"pathPrefix":"/admin","scopes":["admin"]}]"#;

#[tokio::test]
async fn a_handler_is_given_the_caller_and_logs_find_it_in_the_response() {
    let chain = Specimen::new();
    let response = app(chain.verifier(), READERS)
        .oneshot(request("/items/1", bearing(&chain.token())))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.extensions().get::<Caller>().unwrap().subject(), "alice");
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "user:alice"
    );
}

#[tokio::test]
async fn a_request_without_a_token_is_challenged() {
    let chain = Specimen::new();
    let response = app(chain.verifier(), READERS)
        .oneshot(request("/items/1", HeaderMap::new()))
        .await
        .unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.extensions().get::<Rejected>(), Some(&Rejected::NoToken));
}

#[tokio::test]
async fn only_the_layers_own_verdict_is_marked_as_one() {
    let chain = Specimen::new();
    let verifier = chain.verifier();
    // A service that passes on what the hop behind it answered.
    let passes_on = get(|| async { (StatusCode::UNAUTHORIZED, [(VERDICT, "1")]) });
    let app = Router::new()
        .route("/", passes_on)
        .layer(RequireTokenLayer::new(verifier));
    let answer = |token: String| app.clone().oneshot(request("/", bearing(&token)));
    let handed_on = answer(chain.token()).await.unwrap();
    assert_eq!(handed_on.status(), 401);
    assert!(!handed_on.headers().contains_key(VERDICT));
    let refused = answer(format!("{}x", chain.token())).await.unwrap();
    assert!(refused.headers().contains_key(VERDICT), "{refused:?}");
}

#[tokio::test]
async fn a_caller_without_the_scope_is_refused_with_the_scope_it_needs() {
    let chain = Specimen::new();
    let response = app(chain.verifier(), READERS)
        .oneshot(request("/admin/1", bearing(&chain.token())))
        .await
        .unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(
        response.headers()["www-authenticate"],
        r#"Bearer error="insufficient_scope", scope="admin""#
    );
    let unruled = request("/elsewhere", bearing(&chain.token()));
    let response = app(chain.verifier(), READERS).oneshot(unruled).await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(
        response.headers()["www-authenticate"],
        r#"Bearer error="insufficient_scope""#
    );
}

#[tokio::test]
async fn without_a_bundle_the_answer_is_503_and_not_401() {
    let chain = Specimen::new();
    let config: VerifierConfig = chain.config(Hop::new("a"));
    let response = app(Verifier::new(config), READERS)
        .oneshot(request("/items/1", bearing(&chain.token())))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    assert!(!response.headers().contains_key("www-authenticate"));
}

#[tokio::test]
async fn a_caller_put_into_a_request_by_somebody_else_does_not_pass() {
    let chain = Specimen::new();
    let verifier = chain.verifier();
    let servicechain_auth::Judged::Verified(caller) = verifier.judge(&bearing(&chain.token())) else {
        panic!()
    };
    let mut forged = request("/items/1", HeaderMap::new());
    forged.extensions_mut().insert(caller);
    assert_eq!(
        app(verifier, READERS).oneshot(forged).await.unwrap().status(),
        401
    );
}

#[tokio::test]
async fn the_callers_token_is_sent_on_byte_for_byte_and_nothing_else_ever() {
    let chain = Specimen::new();
    let token = chain.token();
    let servicechain_auth::Judged::Verified(caller) = chain.verifier().judge(&bearing(&token)) else {
        panic!()
    };
    let client =
        ServiceBuilder::new()
            .layer(PropagateTokenLayer)
            .service_fn(|sent: Request<()>| async move {
                Ok::<_, Infallible>(Response::new(sent.headers().clone()))
            });
    let mut with_caller = Request::new(());
    with_caller.extensions_mut().insert(caller);
    // What was there before is replaced, however often it was there.
    with_caller
        .headers_mut()
        .append(AUTHORIZATION, "Bearer forged".parse().unwrap());
    with_caller
        .headers_mut()
        .append(AUTHORIZATION, "Basic forged".parse().unwrap());
    let sent = client.oneshot(with_caller).await.unwrap().into_body();
    let values: Vec<_> = sent.get_all(AUTHORIZATION).iter().collect();
    assert_eq!(values, [&format!("Bearer {token}")]);

    let mut without_caller = Request::new(());
    without_caller
        .headers_mut()
        .append(AUTHORIZATION, "Bearer forged".parse().unwrap());
    without_caller
        .headers_mut()
        .append(AUTHORIZATION, "Basic forged".parse().unwrap());
    let sent = client.oneshot(without_caller).await.unwrap().into_body();
    assert!(!sent.contains_key(AUTHORIZATION));
}
