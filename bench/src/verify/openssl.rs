//! What OpenSSL of this machine says a signature check takes, for who doubts the raw one. It takes its turn by itself, so
//! it is compared with nothing.

use std::process::Command;

use servicechain_keys::Algorithm::{ES256, EdDSA, RS256};

use super::{BENCH, openssl_name};
use crate::report::{Findings, Row};
use crate::rounds::Series;
use crate::settings::Settings;

pub(super) fn measure(settings: &Settings, findings: &mut Findings) {
    let all = [RS256, ES256, EdDSA];
    let algorithms = if settings.smoke { &all[2..] } else { &all[..] };
    for algorithm in algorithms {
        let name = openssl_name(*algorithm);
        let mut times = Series::default();
        for _ in 0..settings.amount(3, 1) {
            let said = Command::new("openssl")
                .args(["speed", "-mr", "-seconds", "1", name])
                .output();
            let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            if let Some(per_second) = said.ok().as_deref().and_then(verifications) {
                times.push(1e6 / per_second);
            }
        }
        if times.rounds() == 0 {
            findings.notes.push(format!(
                "openssl speed {name}: left out, since there is no `openssl` on the PATH that does it"
            ));
            continue;
        }
        let case = format!("signature_{}", algorithm.name().to_ascii_lowercase());
        findings
            .rows
            .push(Row::new(BENCH, case, "openssl speed").micros(&times));
    }
}

/// The last field of a line such as `+F2:2:2048:4538.1:73573.9`: key and sizes, signatures a second, verifications a
/// second.
fn verifications(said: &str) -> Option<f64> {
    let line = said.lines().rev().find(|line| line.starts_with("+F"))?;
    let per_second: f64 = line.rsplit(':').next()?.trim().parse().ok()?;
    (per_second > 0.0).then_some(per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifications_a_second_are_found_in_what_openssl_says() {
        let said = "+DTP:253:verify:Ed25519:1\n+F6:0:253:Ed25519:41829.166667:15231.250000\n";
        assert_eq!(verifications(said), Some(15231.25));
        assert_eq!(verifications("speed: unknown algorithm"), None);
    }
}
