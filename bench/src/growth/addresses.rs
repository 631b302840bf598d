//! Addresses of an upstream: a name with so many of them, in a hosts file that only the gateway sees, in a mount
//! namespace of its own.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::Result;

use super::{compare, contender};
use crate::load::Load;
use crate::ours::Gateway;
use crate::peers::{Proxy, Setting};
use crate::report::Findings;
use crate::settings::{Budget, Settings};

const NUMBERS: [u16; 4] = [1, 10, 100, 1000];
const NAME: &str = "upstream.bench";

pub(super) fn measure(
    settings: &Settings,
    setting: &Setting<'_>,
    load: &mut Load,
    texts: &[Vec<u8>],
    budget: Budget,
    findings: &mut Findings,
) -> Result<()> {
    let numbers = &NUMBERS[..settings.amount(4, 2)];
    let addresses: Vec<Ipv4Addr> = (1..=numbers[numbers.len() - 1])
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            Ipv4Addr::new(127, 1, high, low)
        })
        .collect();
    for address in &addresses {
        load.listen_on(*address)?;
    }
    let mut gateways = Vec::new();
    for number in numbers {
        let program = resolving(settings, setting, &addresses[..usize::from(*number)])?;
        let route = format!(
            r#"- {{name: items, pathPrefix: /, upstream: "http://{NAME}:{}", service: a, scopes: ["items:read"]}}"#,
            setting.upstream.port()
        );
        let name = format!("addresses-{number}");
        match Gateway::new(&name, &program, route + "\n").start(setting) {
            Ok(gateway) => gateways.push(gateway),
            Err(error) => {
                findings.notes.push(format!(
                    "upstream_addresses: left out, since a program cannot be given a hosts file of its own here ({error})"
                ));
                return Ok(());
            }
        }
    }
    let mut contenders = Vec::new();
    for (number, gateway) in numbers.iter().zip(&gateways) {
        let contender = contender("upstream_addresses", gateway, texts.to_vec())?;
        contenders.push((usize::from(*number), contender));
    }
    let all: Vec<&Proxy> = gateways.iter().collect();
    compare(settings, load, contenders, &all, budget, findings)
}

/// A program that becomes the gateway, once the name has these addresses for it.
fn resolving(settings: &Settings, setting: &Setting<'_>, addresses: &[Ipv4Addr]) -> Result<PathBuf> {
    let folder = setting.folder;
    let hosts = folder.join(format!("hosts-{}", addresses.len()));
    let mut text = "127.0.0.1 localhost\n".to_owned();
    for address in addresses {
        let _ = writeln!(text, "{address} {NAME}");
    }
    fs::write(&hosts, text)?;
    let program = folder.join(format!("gateway-with-{}", addresses.len()));
    let own_user = if rustix::process::geteuid().is_root() {
        ""
    } else {
        "--map-root-user "
    };
    let script = format!(
        "#!/bin/sh\nexec unshare --mount {own_user}sh -c 'mount --bind \"$0\" /etc/hosts && exec \"$@\"' '{}' '{}' \"$@\"\n",
        hosts.display(),
        settings.gateway.display()
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700))?;
    Ok(program)
}
