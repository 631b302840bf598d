//! The section `keys`: how long a change of keys takes to be held, durably and confirmed, by thousands of verifiers.

pub(crate) mod pods;
mod publisher;

use std::fs;

use anyhow::Result;
use servicechain_keys::bundle::MAX_REVOCATIONS;

use crate::process::open_many_files;
use crate::report::{Findings, Row};
use crate::rounds::quantile;
use crate::settings::{Budget, Settings};
use pods::Pods;
use publisher::{Measured, Publisher};

pub(crate) const ABOUT: &str = "\
The operator's key controller (its file store in place of a ConfigMap, its list of pods given) in this process, and the verifier's
real end at the other: `Verifier` with its keys endpoint on a loopback address of its own (127.x.y.z) for each pod, bundles pushed
over HTTP, checked, swapped in, written with fsync, acknowledged under the workload's key. Thousands of pods share a few processes,
and all of it shares this machine's cores, where in a cluster each pod has its own: `verifiers_cpu` says how much of the time is
theirs. Pods keep bundles in memory-backed files where there are any (`/dev/shm`), so a disk's time is not in it.
`order_to_last_ack` is from the moment at which one more revocation is asked for until every pod has acknowledged a bundle with it,
the 200 ms in which changes are gathered included; `full` begins with a list that is full but for the orders to come.
`first_bundle` is from all pods being listed until all hold the first bundle.";

const BENCH: &str = "keys";
const OURS: &str = "servicechain";
/// Verifiers, and the goal of an order in seconds.
const SIZES: [(usize, f64); 2] = [(1000, 1.0), (10_000, 2.0)];
const SIZES_IN_SMOKE: [(usize, f64); 1] = [(20, 1.0)];
/// A row of 1,000 and one of 10,000 have about as many acknowledgements.
const ORDERS: [usize; 2] = [30, 10];
/// Of each process of pods: they listen and are connected to.
const PODS_IN_A_PROCESS: usize = 2500;

pub(crate) fn run(settings: &Settings, budget: Budget) -> Result<Findings> {
    let mut findings = Findings::default();
    let files = usize::try_from(open_many_files()?)?;
    let sizes: &[_] = if settings.smoke { &SIZES_IN_SMOKE } else { &SIZES };
    let mut parts = sizes.len() * 2;
    for ((count, goal), orders) in sizes.iter().zip(ORDERS) {
        let orders = settings.amount(orders, 2);
        if files < count + PODS_IN_A_PROCESS {
            findings.notes.push(format!(
                "{count} verifiers: left out, since a process may not open as many files here (`ulimit -n`)"
            ));
            parts -= 2;
            continue;
        }
        for (list, revocations) in [
            ("empty", 0),
            ("full", settings.amount(MAX_REVOCATIONS, 60) - orders),
        ] {
            if let Some(why) = too_large(*count, revocations)? {
                findings
                    .notes
                    .push(format!("{count} verifiers, {list} list: left out, {why}"));
            } else {
                let measured = measure(*count, revocations, orders, budget.share(parts))?;
                findings
                    .rows
                    .extend(rows(&format!("{count}_{list}"), *goal, &measured));
                findings.notes.extend(measured.notes);
            }
            parts -= 1;
        }
    }
    Ok(findings)
}

fn measure(count: usize, revocations: usize, orders: usize, budget: Budget) -> Result<Measured> {
    let pods = Pods::start(count, PODS_IN_A_PROCESS)?;
    Publisher::start(&pods)?.measure(&pods, revocations, orders, budget)
}

fn rows(case: &str, goal: f64, measured: &Measured) -> Vec<Row> {
    let mut seconds = measured.seconds.clone();
    seconds.sort_by(f64::total_cmp);
    let of = |name: &str| Row {
        rounds: measured.seconds.len(),
        errors: measured.errors,
        ..Row::new(BENCH, format!("{name}_{case}"), OURS)
    };
    let figure = |name: &str, unit: &'static str, figure: Option<f64>| Row {
        figure,
        unit,
        spread: figure.map_or([0.0; 2], |figure| [figure; 2]),
        ..of(name)
    };
    let spread = [seconds.first(), seconds.last()].map(|end| end.copied().unwrap_or_default());
    vec![
        Row {
            spread,
            ..figure("order_to_last_ack_p50", "s", quantile(&seconds, 0.5))
        },
        Row {
            spread,
            ..figure("order_to_last_ack_p99", "s", quantile(&seconds, 0.99)).aim(goal, None)
        },
        figure("first_bundle", "s", measured.first_bundle),
        of("operator_cpu_of_an_order").figure("ms", &measured.operator_millis),
        of("verifiers_cpu_of_an_order").figure("ms", &measured.pods_millis),
        figure("operator_memory", "MB", measured.operator_megabytes),
        figure("bundle", "KiB", measured.bundle_kib),
    ]
}

/// Why so many verifiers with such a list do not fit into this machine's memory, if they do not.
fn too_large(count: usize, revocations: usize) -> Result<Option<String>> {
    // As JSON, and again as what is looked up, and again in the file.
    const BYTES_OF_A_REVOCATION: usize = 400;
    const BYTES_OF_A_POD: usize = 100_000;
    let needed = count * (BYTES_OF_A_POD + revocations * BYTES_OF_A_REVOCATION);
    let text = fs::read_to_string("/proc/meminfo")?;
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available =
        available.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<usize>().ok());
    let available = available.unwrap_or_default() * 1024;
    Ok((needed > available / 10 * 8).then(|| {
        let gigabytes = |bytes: usize| bytes / 1_000_000_000;
        format!(
            "since that takes about {} GB of memory for all verifiers on one machine, and {} GB are free",
            gigabytes(needed),
            gigabytes(available)
        )
    }))
}
