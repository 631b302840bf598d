//! How the kubelet asks whether a container is well. Every number is written, as the API server would.

use k8s_openapi::api::core::v1::{ExecAction, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata::{some_list, some_text};

/// Whatever is slower than this when asked over the node's own network is not well.
const TIMEOUT_SECONDS: i32 = 2;

/// Asks `path` of the port with that name.
pub(super) fn http(path: &str, port: &str, every_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(port.to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        ..every(every_seconds, failures)
    }
}

/// Connects to the port with that name.
pub(super) fn tcp(port: &str, every_seconds: i32, failures: i32) -> Probe {
    Probe {
        tcp_socket: Some(TCPSocketAction {
            port: IntOrString::String(port.to_owned()),
            ..TCPSocketAction::default()
        }),
        ..every(every_seconds, failures)
    }
}

pub(super) fn command(words: &[&str], every_seconds: i32, failures: i32) -> Probe {
    Probe {
        exec: Some(ExecAction {
            command: Some(words.iter().map(|&word| word.to_owned()).collect()),
        }),
        ..every(every_seconds, failures)
    }
}

/// What a user gave over what is the default: with a handler of its own, or with other numbers.
pub(super) fn over(default: Probe, given: Option<&Probe>) -> Probe {
    let Some(mut probe) = given.cloned() else {
        return default;
    };
    let has_handler = probe.exec.is_some()
        || probe.grpc.is_some()
        || probe.http_get.is_some()
        || probe.tcp_socket.is_some();
    if !has_handler {
        probe.http_get = default.http_get;
        probe.tcp_socket = default.tcp_socket;
        probe.exec = default.exec;
    }
    if let Some(get) = &mut probe.http_get {
        get.path = some_text(get.path.take()).or_else(|| Some("/".to_owned()));
        get.scheme = some_text(get.scheme.take()).or_else(|| Some("HTTP".to_owned()));
        get.host = some_text(get.host.take());
        get.http_headers = get.http_headers.take().and_then(some_list);
    }
    if let Some(connect) = &mut probe.tcp_socket {
        connect.host = some_text(connect.host.take());
    }
    if let Some(run) = &mut probe.exec {
        run.command = run.command.take().and_then(some_list);
    }
    if let Some(ask) = &mut probe.grpc {
        ask.service.get_or_insert_default();
    }
    Probe {
        initial_delay_seconds: probe.initial_delay_seconds.filter(|seconds| *seconds != 0),
        period_seconds: number(probe.period_seconds, default.period_seconds),
        timeout_seconds: number(probe.timeout_seconds, default.timeout_seconds),
        success_threshold: number(probe.success_threshold, default.success_threshold),
        failure_threshold: number(probe.failure_threshold, default.failure_threshold),
        ..probe
    }
}

fn every(seconds: i32, failures: i32) -> Probe {
    Probe {
        period_seconds: Some(seconds),
        timeout_seconds: Some(TIMEOUT_SECONDS),
        success_threshold: Some(1),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// Zero means the default, to the API server too.
fn number(given: Option<i32>, default: Option<i32>) -> Option<i32> {
    given.filter(|number| *number != 0).or(default)
}
