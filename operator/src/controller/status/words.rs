//! The words of others (kubelet, scheduler, API server, a container's last line), made fit for a status: one line,
//! bounded, and without what differs each time the same thing is said, since a status must not move by itself.

/// Longest quotation, in bytes.
const MAX_QUOTE: usize = 240;
/// A run of so many hexadecimal digits is a random id.
const ID_DIGITS: usize = 12;

/// Somebody's words, fit to stand within a sentence.
pub(crate) fn quote(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.trim_end_matches(['.', ';', ':', ',']).replace("; ", ", ");
    bounded(&without_ids(&without_local_port(&line)), MAX_QUOTE)
}

/// At most `max` bytes, which end in an ellipsis where something was cut off.
pub(crate) fn bounded(text: &str, max: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() <= max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max.saturating_sub(ELLIPSIS.len()));
    format!("{}{ELLIPSIS}", &text[..end])
}

/// Why an image is not pulled: the last cause, without the many layers that each repeat the image's name.
/// kubelet alternates between `ErrImagePull` and `ImagePullBackOff`, whose words must come out the same.
pub(crate) fn why_not_pulled(message: &str, image: &str) -> String {
    let mut rest = message;
    if let Some((_, cause)) = rest.split_once("ErrImagePull: ") {
        rest = cause;
    }
    if let Some((_, cause)) = rest.split_once(" desc = ") {
        rest = cause;
    }
    let causes: Vec<&str> = rest
        .split(": ")
        .filter(|cause| image.is_empty() || !cause.contains(image))
        .collect();
    match quote(&causes.join(": ")) {
        why if why.is_empty() => "no reason given".to_owned(),
        why => why,
    }
}

/// What a container said last: the message of its last line, without a time, whether the line is JSON or text.
pub(crate) fn last_line(message: &str) -> Option<String> {
    let line = message.lines().rev().find(|line| !line.trim().is_empty())?.trim();
    let said = match serde_json::from_str::<serde_json::Value>(line) {
        Ok(value) => {
            let fields = value.get("fields").unwrap_or(&value);
            let field = |name| fields.get(name).and_then(serde_json::Value::as_str);
            match (field("message").or_else(|| field("msg")), field("error")) {
                (Some(message), Some(error)) => format!("{message}: {error}"),
                (Some(one), None) | (None, Some(one)) => one.to_owned(),
                (None, None) => return None,
            }
        }
        Err(_) => without_time(line).to_owned(),
    };
    Some(quote(&said)).filter(|said| !said.is_empty())
}

/// A log line begins with a time more often than not: `2026-01-01T00:00:00Z` or `2026-01-01 00:00:00.123 UTC [1]`.
fn without_time(line: &str) -> &str {
    let is_of_time = |word: &str| {
        word == "UTC"
            || (word.starts_with(['[', '2'])
                && !word.contains(|c: char| c.is_alphabetic() && c != 'T' && c != 'Z'))
            || (word.contains(':') && word.starts_with(|c: char| c.is_ascii_digit()))
    };
    let mut rest = line;
    while let Some((word, after)) = rest.split_once(' ') {
        if !is_of_time(word) {
            break;
        }
        rest = after.trim_start();
    }
    rest
}

/// `read tcp 10.0.0.1:41234->10.0.0.2:443` names a port that is another each time.
fn without_local_port(text: &str) -> String {
    let Some((before, after)) = text.split_once("->") else {
        return text.to_owned();
    };
    let start = before.rfind(' ').map_or(0, |space| space + 1);
    let is_address = before[start..]
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if is_address {
        format!("{}{after}", &before[..start])
    } else {
        text.to_owned()
    }
}

fn without_ids(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let (before, run) = rest.split_at(start);
        let length = run
            .find(|c: char| !c.is_ascii_hexdigit() && c != '-')
            .unwrap_or(run.len());
        let (run, after) = run.split_at(length);
        let digits = run.bytes().filter(u8::is_ascii_hexdigit).count();
        let is_id = digits >= ID_DIGITS && run.bytes().any(|byte| byte.is_ascii_digit());
        kept.push_str(before);
        kept.push_str(if is_id { "…" } else { run });
        rest = after;
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_states_of_a_failing_pull_say_the_same() {
        let image = "registry.example/b:4";
        let cause = r#"rpc error: code = NotFound desc = failed to pull and unpack image "registry.example/b:4": failed to resolve reference "registry.example/b:4": registry.example/b:4: not found"#;
        let back_off = format!(r#"Back-off pulling image "registry.example/b:4": ErrImagePull: {cause}"#);
        assert_eq!(why_not_pulled(cause, image), "not found");
        assert_eq!(why_not_pulled(&back_off, image), "not found");
        let no_host = r#"rpc error: code = Unknown desc = failed to pull and unpack image "registry.example/b:4": failed to resolve reference "registry.example/b:4": failed to do request: Head "https://registry.example/v2/b/manifests/4": dial tcp: lookup registry.example: no such host"#;
        assert!(why_not_pulled(no_host, image).ends_with("dial tcp: lookup registry.example: no such host"));
        let throttled = r#"Back-off pulling image "registry.example/b:4": ErrImagePull: pull QPS exceeded"#;
        assert_eq!(why_not_pulled(throttled, image), "pull QPS exceeded");
        assert_eq!(why_not_pulled("", image), "no reason given");
    }

    #[test]
    fn the_last_line_is_found_in_json_and_in_text() {
        let json = r#"{"timestamp":"2026-01-01T00:00:00Z","level":"INFO","message":"hello"}
{"timestamp":"2026-01-01T00:00:01Z","level":"ERROR","fields":{"message":"cannot start","error":"no file /etc/x"}}
"#;
        assert_eq!(last_line(json).unwrap(), "cannot start: no file /etc/x");
        let text = "2026-01-01 00:00:01.123 UTC [1] FATAL:  data directory \"/x\" has wrong ownership";
        assert_eq!(
            last_line(text).unwrap(),
            "FATAL: data directory \"/x\" has wrong ownership"
        );
        assert_eq!(
            last_line("error: no such flag --x\n\n").unwrap(),
            "error: no such flag --x"
        );
        assert_eq!(last_line("\n"), None);
    }

    #[test]
    fn what_differs_each_time_is_left_out() {
        let sandbox = |id: &str| {
            format!(
                r#"Failed to create pod sandbox: failed to setup network for sandbox "{id}": plugin type="x" failed"#
            )
        };
        let (one, two) = ("0af1".repeat(16), "77b2".repeat(16));
        assert_eq!(quote(&sandbox(&one)), quote(&sandbox(&two)));
        let reset = |port: u16| format!("read tcp 10.244.0.3:{port}->1.2.3.4:443: connection reset by peer");
        assert_eq!(quote(&reset(41_234)), quote(&reset(50_001)));
        assert_eq!(quote(&reset(1)), "read tcp 1.2.3.4:443: connection reset by peer");
        assert_eq!(quote("decade facade 0/1 nodes"), "decade facade 0/1 nodes");
    }

    #[test]
    fn quotations_are_bounded_at_a_character() {
        let long = "ä".repeat(1_000);
        assert!(quote(&long).len() <= MAX_QUOTE);
        assert!(bounded(&long, 10).ends_with('…'));
        assert_eq!(bounded("short", 10), "short");
    }
}
