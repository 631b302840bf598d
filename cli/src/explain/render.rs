//! An explanation for people. Pure.

use std::fmt::Write as _;

use super::explanation::{About, Explanation, HopStanding, Standing};
use crate::paint::{Paint, short_key};
use crate::wording::in_words;

/// The lines, each ended.
pub(crate) fn render(explanation: &Explanation, paint: Paint) -> String {
    let mut text = format!("{}\n", heading(&explanation.token));
    if let Some(warning) = &explanation.token.warning {
        let _ = writeln!(text, "{}", paint.yellow(&format!("warning: {warning}")));
    }
    let width = explanation
        .hops
        .iter()
        .map(|hop| hop.hop.chars().count())
        .max()
        .unwrap_or_default();
    for hop in &explanation.hops {
        let _ = writeln!(text, "{:width$}  {}", hop.hop, line(hop, paint));
    }
    text
}

fn heading(about: &About) -> String {
    let who = match (&about.subject, &about.issuer) {
        (Some(subject), Some(issuer)) => format!("subject {subject} of {issuer}"),
        (Some(subject), None) => format!("subject {subject} of no issuer"),
        (None, Some(issuer)) => format!("no subject, of {issuer}"),
        (None, None) => "no token that can be read".to_owned(),
    };
    let expires = about
        .expires_in_seconds
        .map(|seconds| match u64::try_from(seconds) {
            Ok(left) => format!("expires in {}", in_words(left)),
            Err(_) => format!("expired {} ago", in_words(seconds.unsigned_abs())),
        });
    let largest = about
        .largest_claim
        .as_ref()
        .map(|claim| format!(" (largest claim: {}, {})", claim.name, size(claim.bytes)))
        .unwrap_or_default();
    let size = format!("{}{largest}", size(about.bytes));
    [Some(who), expires, Some(size)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" · ")
}

fn line(hop: &HopStanding, paint: Paint) -> String {
    match hop.standing {
        Standing::Passes => {
            let key = hop
                .key
                .as_ref()
                .map(|key| format!("key {} ({})  ", short_key(&key.kid), key.algorithm))
                .unwrap_or_default();
            format!("{} {key}{}", paint.green("✓"), hop.because)
        }
        Standing::Refused => {
            let look_at = hop
                .look_at
                .as_ref()
                .map(|field| format!("  -> {field}"))
                .unwrap_or_default();
            format!("{} {}{look_at}", paint.red("✗"), hop.because)
        }
        Standing::NotReached => paint.dim(&format!("- {}", hop.because)),
    }
}

/// Bytes as people read them.
fn size(bytes: usize) -> String {
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let tenths = bytes * 10 / 1024;
    format!("{}.{} KiB", tenths / 10, tenths % 10)
}
