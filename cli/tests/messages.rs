//! What people are told when something is wrong: exit codes and sentences of the real program.
#![cfg(test)]

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const SHOP: &str = include_str!("../../examples/shop.yaml");

/// The program, with nothing of the caller's environment that could change its answer.
fn servicechain(state: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_servicechain"));
    command
        .args(args)
        .env_clear()
        .env("SERVICECHAIN_STATE_DIR", state)
        .stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    let state = tempfile::tempdir().unwrap();
    servicechain(state.path(), args).output().unwrap()
}

#[track_caller]
fn assert_ends(output: &Output, code: i32, message: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr, message);
    assert!(
        output.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn a_wrong_chain_is_told_every_mistake_and_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chain.yaml");
    let wrong = SHOP
        .replace("- {name: b,", "- {name: Gateway,")
        .replace(
            "    managed:   ",
            "    managed:\n      rotationPeriod: 10m\n     ",
        )
        .replace("service: a}", "servce: a}");
    fs::write(&file, wrong).unwrap();
    let path = file.to_str().unwrap();
    let expected = format!(
        "error: {path} has 3 mistakes
  spec.gateway.routes[0].servce: there is no such field; did you mean \"service\"?
  spec.services[1].name: \"Gateway\" is reserved and must be a lower-case DNS label of at most 15 characters; try \"b\"
  spec.issuers[0].managed.rotationPeriod: rotationPeriod must be at least twice tokenLifetime: 10m is shorter than \
         twice 15m; use 30m or more
"
    );
    assert_ends(&run(&["local", "-f", path]), 2, &expected);
}

#[test]
fn what_this_version_cannot_do_is_refused_and_never_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chain.yaml");
    fs::write(
        &file,
        SHOP.replace("  gateway:\n", "  gateway:\n    tls: {secretName: x}\n"),
    )
    .unwrap();
    let path = file.to_str().unwrap();
    let expected = format!(
        "error: {path} has a mistake
  spec.gateway.tls: NotSupportedYet: TLS at the gateway cannot be done by this version; terminate it in front of \
         the gateway
"
    );
    assert_ends(&run(&["local", "-f", path]), 2, &expected);
}

#[test]
fn a_file_that_cannot_be_read_is_one_sentence() {
    let message = "error: /no/such/chain.yaml cannot be read: No such file or directory (os error 2); name a chain \
                   with -f\n";
    assert_ends(&run(&["local", "-f", "/no/such/chain.yaml"]), 2, message);
}

#[test]
fn a_busy_port_is_one_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let message = format!(
        "error: 127.0.0.1:{port} is in use by another process: stop that one or choose another port (0 picks a free \
         one)\n"
    );
    assert_ends(&run(&["local", "--port", &port.to_string()]), 1, &message);
}

#[test]
fn a_database_that_cannot_be_reached_is_one_sentence_without_its_password() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (flag, url, server) in [
        (
            "--postgres",
            format!("postgres://me:hunter2@{closed}/"),
            "PostgreSQL",
        ),
        ("--redis", format!("redis://:hunter2@{closed}"), "Redis"),
    ] {
        let output = run(&["local", flag, &url]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let start = format!("error: the {server} server at {closed} cannot be used ({flag}): ");
        assert!(stderr.starts_with(&start), "{stderr}");
        assert!(
            stderr.contains("refused") && stderr.lines().count() == 1,
            "{stderr}"
        );
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}

#[test]
fn without_a_running_chain_commands_say_how_to_start_one() {
    let message = "error: no local chain is running; start one with `servicechain local`, or name a chain in the \
                   cluster\n";
    assert_ends(&run(&["token"]), 1, message);
    let state = tempfile::tempdir().unwrap();
    let mut explain = servicechain(state.path(), &["explain"]);
    let mut child = explain
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"x.y.z").unwrap();
    assert_ends(&child.wait_with_output().unwrap(), 1, message);
}

#[test]
fn no_token_is_bad_input() {
    let message =
        "error: there is no token; pipe one in, as in `servicechain token | servicechain explain`\n";
    assert_ends(&run(&["explain"]), 2, message);
}

#[test]
fn without_a_cluster_verbs_about_one_say_what_to_do() {
    let message = "error: there is no cluster to ask: no kubeconfig in $KUBECONFIG or ~/.kube/config, and this is no \
                   pod; name one with --kubeconfig, or run a chain without a cluster: `servicechain local`\n";
    for verb in ["status", "wait", "keys", "token"] {
        assert_ends(&run(&[verb, "shop"]), 2, message);
    }
    let missing = run(&["status", "shop", "--kubeconfig", "/no/such/file"]);
    assert_ends(
        &missing,
        2,
        "error: the kubeconfig cannot be used: No such file or directory (os error 2); name another with \
         --kubeconfig\n",
    );
}

#[test]
fn as_a_plugin_of_kubectl_it_speaks_of_kubectl_chain() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-chain");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_servicechain"), &plugin).unwrap();
    let run = |args: &[&str]| Command::new(&plugin).args(args).env_clear().output().unwrap();
    let help = String::from_utf8(run(&["wait", "--help"]).stdout).unwrap();
    assert!(help.contains("Usage: kubectl chain wait "), "{help}");
    assert!(help.contains("&& kubectl chain wait -n shop shop"), "{help}");
    assert!(!help.contains("servicechain wait"), "{help}");
    let state = folder.path().join("state");
    let alone = run(&["token", "--state-dir", state.to_str().unwrap()]);
    assert_ends(
        &alone,
        1,
        "error: no local chain is running; start one with `kubectl chain local`, or name a chain in the cluster\n",
    );
}

#[test]
fn help_is_no_wider_than_a_hundred_columns_and_teaches_by_examples() {
    for verb in ["local", "status", "wait", "token", "explain", "keys"] {
        let help = String::from_utf8(run(&[verb, "--help"]).stdout).unwrap();
        let longest = help.lines().max_by_key(|line| line.chars().count()).unwrap();
        assert!(longest.chars().count() <= 100, "{longest}");
        assert!(help.contains(&format!("servicechain {verb}")), "{help}");
        assert!(help.contains("Example"), "{help}");
    }
}

#[test]
fn what_listens_and_is_no_redis_is_said_at_the_start() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let output = run(&["local", "--redis", &format!("redis://:hunter2@{address}")]);
    answers.join().unwrap();
    let message = format!(
        "error: the Redis server at {address} cannot be used (--redis): what answers there is no Redis server\n"
    );
    assert_ends(&output, 1, &message);
}

#[test]
fn a_file_that_is_no_yaml_is_told_with_its_place_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chain.yaml");
    fs::write(&file, "apiVersion: x\nkind: [a\nb: }\n").unwrap();
    let output = run(&["local", "-f", file.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.matches("line 3, column 2").count(), 1, "{stderr}");
}

#[test]
fn a_token_is_never_an_argument() {
    let output = run(&["explain", "--token", "x.y.z"]);
    assert_eq!(output.status.code(), Some(2));
}
