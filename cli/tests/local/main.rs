//! The whole chain in one process: what the README promises, over real sockets, against the real program.
#![cfg(test)]

mod foreign;
mod program;
#[path = "../../../operator/tests/external/provider.rs"]
#[expect(dead_code, reason = "shared with the tests of fetches, which ask more of it")]
mod provider;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use program::{Http, Local, of_hops, output, servicechain, text};

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_requests_work_through_four_verifications() {
    let state = tempfile::tempdir().unwrap();
    let mut local = Local::start(
        state.path(),
        &[
            "-f",
            concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shop.yaml"),
            "--json",
        ],
    );
    let ready: Value = serde_json::from_str(&local.line()).unwrap();
    let (gateway, token) = (text(&ready, "/gateway"), text(&ready, "/token"));
    let http = Http::new();
    let url = format!("{gateway}/items/1");

    let (answer, body) = http
        .send(Method::PUT, &url, Some(token), Some(json!({"name": "lamp"})))
        .await;
    assert!(
        matches!(answer.status(), StatusCode::OK | StatusCode::CREATED),
        "{answer:?} {body}"
    );
    let (answer, body) = http.get(&url, Some(token)).await;
    assert_eq!(answer.status(), StatusCode::OK, "{body}");
    assert_eq!(of_hops(&body, "service"), ["a", "b", "c"]);
    assert_eq!(body["hops"][0]["item"], json!({"name": "lamp"}));
    let (_, body) = http.get(&url, Some(token)).await;
    assert_eq!(of_hops(&body, "source"), ["cache", "cache", "cache"]);

    let services = ready["services"]
        .as_object()
        .unwrap()
        .values()
        .map(|url| url.as_str().unwrap());
    let each: Vec<&str> = std::iter::once(gateway).chain(services).collect();
    assert_eq!(each.len(), 4);
    for url in each {
        let (answer, _) = http.get(&format!("{url}/items/1"), None).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{url}");
        assert_eq!(answer.headers()[header::WWW_AUTHENTICATE], "Bearer", "{url}");
        // The gateway and A have the item; B and C let the caller in and have none.
        let (answer, body) = http.get(&format!("{url}/items/1"), Some(token)).await;
        assert!(
            matches!(answer.status(), StatusCode::OK | StatusCode::NOT_FOUND),
            "{url} {body}"
        );
        assert!(!of_hops(&body, "service").is_empty());
    }
    for (name, url) in ready["admin"].as_object().unwrap() {
        let (answer, _) = http.get(&format!("{}/readyz", url.as_str().unwrap()), None).await;
        assert_eq!(answer.status(), StatusCode::OK, "{name}");
    }
    let (answer, keys) = http.get(&format!("{gateway}/jwks.json"), None).await;
    assert_eq!(
        answer.status(),
        StatusCode::OK,
        "the issuer's keys are exposed by a route"
    );
    assert!(
        keys["keys"].as_array().is_some_and(|keys| !keys.is_empty()),
        "{keys}"
    );

    local.signal("-INT");
    let (status, _) = local.ends();
    assert_eq!(
        (status.code(), local.rest()),
        (Some(0), String::new()),
        "one line, and nothing else"
    );
}

#[test]
fn the_printed_commands_work_as_they_are_printed() {
    let state = tempfile::tempdir().unwrap();
    let mut local = Local::start(state.path(), &[]);
    let banner = local.lines_until(|line| line.starts_with("ready in "));
    let commands: Vec<&str> = banner
        .iter()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| !line.starts_with(' '))
        .map(str::trim_end)
        .collect();
    let script = format!("set -e\n{}", commands.join("\necho\n"));
    let mut shell = Command::new("bash");
    shell
        .args(["-c", &script])
        .env("SERVICECHAIN_STATE_DIR", state.path());
    let shell = output(shell);
    let said = String::from_utf8_lossy(&shell.stdout).into_owned();
    assert!(shell.status.success(), "{script}\n{shell:?}");
    assert_eq!(said.matches(r#""item":{"name":"lamp"}"#).count(), 2, "{said}");
    assert!(said.contains("c        ✓ key "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_each_requests_path() {
    let state = tempfile::tempdir().unwrap();
    let mut local = Local::start(state.path(), &[]);
    let banner = local.lines_until(|line| line.starts_with("ready in ")).concat();
    let gateway = banner
        .split_whitespace()
        .skip_while(|word| *word != "gateway")
        .nth(1)
        .unwrap()
        .to_owned();
    for said in [
        "chain shop · 3 services · embedded stores",
        "  issuer   http://127.0.0.1:",
        "/  ->  a -> b -> c",
        "ES256, key ",
    ] {
        assert!(banner.contains(said), "{said:?} is not in\n{banner}");
    }

    let token = output(servicechain(state.path(), &["token"]));
    assert!(token.status.success(), "{token:?}");
    let token = String::from_utf8(token.stdout).unwrap();
    assert_eq!(
        token.matches('\n').count(),
        1,
        "the token stands alone on its line"
    );
    let token = token.trim();

    let http = Http::new();
    let url = format!("{gateway}/items/1");
    http.send(Method::PUT, &url, Some(token), Some(json!({"name": "lamp"})))
        .await;
    let (answer, _) = http.get(&url, Some(token)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    http.get(&url, None).await;
    let seen = local.lines_until(|line| line.contains("401"));
    let lines: Vec<&String> = seen.iter().filter(|line| line.contains("GET /items/1")).collect();
    assert_eq!(lines.len(), 2, "{seen:?}");
    for said in [
        "  200  ",
        "gateway ✓",
        "a ✓ cache ",
        "b ✓ database ",
        "c ✓ database ",
        "client:demo",
    ] {
        assert!(lines[0].contains(said), "{said:?} is not in {}", lines[0]);
    }
    assert!(lines[1].contains("gateway ✗ no token"), "{}", lines[1]);
    assert!(!seen.concat().contains(token), "a token in a log");

    let file = state.path().join("token.txt");
    std::fs::write(&file, token).unwrap();
    let explained = output(servicechain(
        state.path(),
        &["explain", "--token-file", file.to_str().unwrap()],
    ));
    let said = String::from_utf8(explained.stdout).unwrap();
    assert!(
        explained.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&explained.stderr)
    );
    assert!(
        said.contains("gateway  ✓ key ") && said.contains("a        ✓ key "),
        "{said}"
    );
    let refused = output(servicechain(
        state.path(),
        &[
            "explain",
            "--token-file",
            file.to_str().unwrap(),
            "--method",
            "DELETE",
            "-o",
            "json",
        ],
    ));
    assert_eq!(refused.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(text(&said, "/hops/1/standing"), "refused");
    let scoped = output(servicechain(state.path(), &["token", "--scope", "items:read"]));
    assert!(scoped.status.success());
    let unknown = output(servicechain(state.path(), &["token", "--client", "nobody"]));
    assert_eq!(unknown.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&unknown.stderr),
        "error: chain shop has no client \"nobody\"; it has demo\n"
    );

    local.signal("-TERM");
    let (status, took) = local.ends();
    assert!(
        status.success() && took < Duration::from_secs(3),
        "{status} {took:?}"
    );
    let gone = output(servicechain(state.path(), &["token"]));
    assert_eq!(gone.status.code(), Some(1), "its record is gone with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_chains_run_beside_each_other_and_trust_only_their_own_tokens() {
    let state = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (
        Local::start(state.path(), &["--json"]),
        Local::start(state.path(), &["--json"]),
    );
    let ready: Vec<Value> = [&mut one, &mut two]
        .into_iter()
        .map(|local| serde_json::from_str(&local.line()).unwrap())
        .collect();
    let http = Http::new();
    // Where the token is good there is no such item yet.
    for (at, of, expected) in [(0, 0, 404), (1, 1, 404), (0, 1, 401), (1, 0, 401)] {
        let url = format!("{}/items/1", text(&ready[at], "/gateway"));
        let (answer, body) = http.get(&url, Some(text(&ready[of], "/token"))).await;
        assert_eq!(answer.status(), expected, "token of {of} at {at}: {body}");
    }

    let which = output(servicechain(state.path(), &["token"]));
    assert_eq!(which.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&which.stderr).contains("choose one with --port"),
        "{which:?}"
    );
    let port = text(&ready[1], "/gateway").rsplit(':').next().unwrap();
    assert!(
        output(servicechain(state.path(), &["token", "--port", port]))
            .status
            .success()
    );
    for local in [&mut one, &mut two] {
        local.signal("-INT");
        assert!(local.ends().0.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_stays_where_it_is_told_to() {
    let state = tempfile::tempdir().unwrap();
    let data = state.path().join("data");
    let arguments = ["--json", "--data", data.to_str().unwrap()];
    let http = Http::new();
    let mut items = Vec::new();
    for write in [true, false] {
        let mut local = Local::start(state.path(), &arguments);
        let ready: Value = serde_json::from_str(&local.line()).unwrap();
        let (url, token) = (
            format!("{}/items/1", text(&ready, "/gateway")),
            text(&ready, "/token"),
        );
        if write {
            http.send(Method::PUT, &url, Some(token), Some(json!({"name": "lamp"})))
                .await;
        }
        let (_, body) = http.get(&url, Some(token)).await;
        items.push(body["hops"][0]["item"].clone());
        let second = output(servicechain(state.path(), &[&["local"], &arguments[..]].concat()));
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert_eq!(second.status.code(), Some(1), "{said}");
        assert!(said.contains("choose another --data"), "{said}");
        // As when the terminal is closed.
        local.signal("-HUP");
        assert!(local.ends().0.success());
    }
    assert_eq!(items, [json!({"name": "lamp"}), json!({"name": "lamp"})]);
    assert!(data.join("shop-a.sqlite").exists());
    let mode = std::fs::metadata(&data).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "items are nobody's business but the user's");
}

#[tokio::test(flavor = "multi_thread")]
async fn given_servers_hold_the_items() {
    let (postgres, redis) = (
        servicechain_fixtures::Postgres::start().unwrap(),
        servicechain_fixtures::Redis::start().unwrap(),
    );
    let state = tempfile::tempdir().unwrap();
    let postgres_url = postgres.database("servicechain").unwrap();
    let arguments = ["--json", "--postgres", &postgres_url, "--redis", &redis.url()];
    let mut local = Local::start(state.path(), &arguments);
    let ready: Value = serde_json::from_str(&local.line()).unwrap();
    let (url, token) = (
        format!("{}/items/1", text(&ready, "/gateway")),
        text(&ready, "/token"),
    );
    let http = Http::new();
    let (answer, body) = http
        .send(Method::PUT, &url, Some(token), Some(json!({"name": "lamp"})))
        .await;
    assert!(answer.status().is_success(), "{body}");
    http.get(&url, Some(token)).await;
    let (_, body) = http.get(&url, Some(token)).await;
    assert_eq!(of_hops(&body, "source"), ["cache", "cache", "cache"]);
    local.signal("-INT");
    assert!(local.ends().0.success());
}

#[test]
fn what_a_chain_keeps_on_disk_is_for_its_user_alone() {
    let state = tempfile::tempdir().unwrap();
    let mut local = Local::start(state.path(), &["--json"]);
    local.line();
    let record = state.path().read_dir().unwrap().next().unwrap().unwrap().path();
    let record: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    let folder = Path::new(text(&record, "/bundleFile")).parent().unwrap();
    let mode = folder.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
    local.signal("-TERM");
    local.ends();
}
