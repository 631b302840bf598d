//! The token endpoint: one request becomes one access token (RFC 6749 section 4.4, RFC 9068), or one rejection.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde::Serialize;
use servicechain_auth::authorization::is_scope;
use servicechain_keys::NumericDate;
use uuid::Uuid;

use crate::client_credentials::Credentials;
use crate::clients::{Client, Clients, Grant};
use crate::config::Issuer;
use crate::form::Parameters;
use crate::rejection::{Rejection, forbid_storing};
use crate::signing_keys::SigningKeys;

/// The `typ` of RFC 9068 section 2.1.
const TYP: &str = "at+jwt";

/// RFC 9068 section 2.2.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    client_id: &'a str,
    aud: &'a [&'a str],
    iat: NumericDate,
    exp: NumericDate,
    jti: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    scope: &'a str,
}

/// RFC 6749 section 5.1.
#[derive(Debug, Serialize)]
pub(crate) struct TokenResponse {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
}

/// What the client is entitled to and asked for.
struct Granted<'a> {
    client: &'a Client,
    scope: String,
    audiences: Vec<&'a str>,
}

/// The client, once it is known, and what it gets.
pub(crate) struct Outcome<'a> {
    pub(crate) client: Option<&'a str>,
    pub(crate) answer: Result<TokenResponse, Rejection>,
}

pub(crate) fn answer<'a>(
    clients: &'a Clients,
    issuer: &Issuer,
    keys: &SigningKeys,
    headers: &HeaderMap,
    form: &Parameters,
) -> Outcome<'a> {
    match authenticate(clients, headers, form) {
        Err(rejection) => Outcome {
            client: None,
            answer: Err(rejection),
        },
        Ok(client) => {
            let answer = grant(client, form).and_then(|granted| issue(&granted, issuer, keys));
            Outcome {
                client: Some(&client.id),
                answer,
            }
        }
    }
}

fn authenticate<'a>(
    clients: &'a Clients,
    headers: &HeaderMap,
    form: &Parameters,
) -> Result<&'a Client, Rejection> {
    let credentials = Credentials::of(headers, form)?;
    let client = clients.authenticate(&credentials.id, &credentials.secret);
    client.ok_or(Rejection::InvalidClient(credentials.method))
}

fn grant<'a>(client: &'a Client, form: &Parameters) -> Result<Granted<'a>, Rejection> {
    match form.get("grant_type").map(|grant| grant.as_str()) {
        Some("client_credentials") => {}
        Some(_) => return Err(Rejection::UnsupportedGrantType),
        None => return Err(Rejection::InvalidRequest("grant_type is missing")),
    }
    if !client.grants.contains(&Grant::ClientCredentials) {
        return Err(Rejection::UnauthorizedClient);
    }
    Ok(Granted {
        client,
        scope: scope(client, form)?,
        audiences: audiences(client, form)?,
    })
}

/// A subset of the client's, each once, in the order asked for; all of them where none is asked for.
fn scope(client: &Client, form: &Parameters) -> Result<String, Rejection> {
    let Some(asked) = form.get("scope") else {
        return Ok(client.scopes.join(" "));
    };
    let mut granted: Vec<&str> = Vec::new();
    for scope in asked.split(' ') {
        if !is_scope(scope) || !client.scopes.iter().any(|allowed| allowed == scope) {
            return Err(Rejection::InvalidScope);
        }
        if !granted.contains(&scope) {
            granted.push(scope);
        }
    }
    Ok(granted.join(" "))
}

/// One of the client's by `audience`, or by `resource` (RFC 8707); all of them where none is asked for.
fn audiences<'a>(client: &'a Client, form: &Parameters) -> Result<Vec<&'a str>, Rejection> {
    let asked = match (form.get("audience"), form.get("resource")) {
        (Some(_), Some(_)) => return Err(Rejection::InvalidRequest("send audience or resource, not both")),
        (Some(asked), None) | (None, Some(asked)) => asked,
        (None, None) => return Ok(client.audiences.iter().map(String::as_str).collect()),
    };
    let allowed = client.audiences.iter().find(|allowed| *allowed == asked.as_str());
    allowed
        .map(|audience| vec![audience.as_str()])
        .ok_or(Rejection::InvalidTarget)
}

fn issue(granted: &Granted<'_>, issuer: &Issuer, keys: &SigningKeys) -> Result<TokenResponse, Rejection> {
    let claims = |iat, exp| Claims {
        iss: &issuer.url,
        sub: &granted.client.id,
        client_id: &granted.client.id,
        aud: &granted.audiences,
        iat,
        exp,
        jti: Uuid::new_v4().to_string(),
        scope: &granted.scope,
    };
    let signed = keys.sign(TYP, &granted.client.id, |iat, exp| {
        serde_json::to_vec(&claims(iat, exp)).unwrap_or_default()
    })?;
    Ok(TokenResponse {
        access_token: signed.token,
        token_type: "Bearer",
        expires_in: signed.lifetime.as_secs(),
        scope: granted.scope.clone(),
    })
}

impl IntoResponse for TokenResponse {
    fn into_response(self) -> Response {
        let mut response = Json(self).into_response();
        forbid_storing(&mut response);
        response
    }
}
