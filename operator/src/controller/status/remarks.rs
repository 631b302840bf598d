//! Verifiers of which something is to be said, one by one, and whether their clocks are in step. Figures stay for as long
//! as they may be true, whoever leads, so that a status does not move by itself.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use servicechain_crds::duration;
use servicechain_crds::service_chain::status::{KeysStatus, RemarkStatus};

use super::reason::{Reason, Trouble};
use super::words::bounded;
use crate::key_controller::{KeyState, PodKeys};

/// Bounds of the schema.
const MAX_REMARKS: usize = 32;
const MAX_REFUSALS: usize = 16;
const MAX_ANCHORS: usize = 2;
const MAX_KID: usize = 64;
/// Another leader may measure another whole second, and the next one for half a round trip.
const SAME_SECONDS: u64 = 2;
/// Between two machines so much is nothing.
const LEAST_LIMIT: Duration = Duration::from_secs(1);

/// How the verifiers' clocks stand to the operator's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClocksStanding {
    /// Somebody was not heard yet: as it was said before, whatever that was.
    #[default]
    Unheard,
    InStep,
    Trouble(Trouble),
}

/// What is said of pods, those in trouble first, and of how many something is to be said.
pub(crate) fn remarks(keys: &KeyState, said: Option<&KeysStatus>) -> (Vec<RemarkStatus>, usize) {
    let lags: BTreeMap<_, _> = keys.laggards.iter().map(|lag| (&lag.pod, lag.word())).collect();
    let signed_by = keys.signed_by.as_deref().unwrap_or_default();
    let mut remarks: Vec<RemarkStatus> = keys
        .pods
        .iter()
        .map(|pod| {
            let is_trusted = pod.anchors.iter().any(|kid| kid == signed_by);
            let untrusting = pod.anchors.iter().filter(|_| !is_trusted);
            RemarkStatus {
                pod: pod.name.clone(),
                generation: pod
                    .generation
                    .map(|generation| i64::try_from(generation.number()).unwrap_or(i64::MAX)),
                lags: lags.get(&pod.pod).map(|word| (*word).to_owned()),
                refused: pod
                    .refused
                    .iter()
                    .map(|reason| reason.word().to_owned())
                    .take(MAX_REFUSALS)
                    .collect(),
                falsehood: pod.falsehood.map(|falsehood| falsehood.word().to_owned()),
                unconfirmed: pod.unconfirmed,
                clock_offset_seconds: offset(pod, said).filter(|offset| *offset != 0),
                anchors: untrusting
                    .map(|kid| bounded(kid, MAX_KID))
                    .take(MAX_ANCHORS)
                    .collect(),
            }
        })
        .filter(says_something)
        .collect();
    remarks.sort_by(|one, other| urgency(one).cmp(&urgency(other)));
    remarks.dedup_by(|one, other| one.pod == other.pod);
    let count = remarks.len();
    remarks.truncate(MAX_REMARKS);
    (remarks, count)
}

fn says_something(remark: &RemarkStatus) -> bool {
    let plain = RemarkStatus {
        pod: remark.pod.clone(),
        generation: remark.generation,
        ..RemarkStatus::default()
    };
    *remark != plain
}

fn urgency(remark: &RemarkStatus) -> (bool, bool, bool, &str) {
    (
        remark.lags.is_none() && remark.falsehood.is_none(),
        remark.clock_offset_seconds.is_none() && remark.anchors.is_empty(),
        !remark.unconfirmed,
        &remark.pod,
    )
}

/// Tokens are refused by clocks that are apart by more than the skew. Two that are each within half of it of the
/// operator's are not, so half is what a clock may be off.
pub(crate) fn clocks(keys: &KeyState, said: Option<&KeysStatus>, skew: Duration) -> ClocksStanding {
    let limit = (skew / 2).max(LEAST_LIMIT).as_secs();
    let verifiers: Vec<&PodKeys> = keys.pods.iter().filter(|pod| pod.is_counted).collect();
    let offsets = verifiers.iter().map(|pod| Some((offset(pod, said)?, &pod.name)));
    let heard: Vec<(i64, &String)> = offsets.flatten().collect();
    let mut off: Vec<_> = heard
        .iter()
        .filter(|(offset, _)| offset.unsigned_abs() > limit)
        .collect();
    off.sort_by_key(|(offset, name)| (Reverse(offset.unsigned_abs()), *name));
    let Some((worst, name)) = off.first() else {
        let all_heard = heard.len() == verifiers.len() && !heard.is_empty();
        return if all_heard {
            ClocksStanding::InStep
        } else {
            ClocksStanding::Unheard
        };
    };
    let direction = if *worst > 0 { "ahead of" } else { "behind" };
    let seconds = worst.unsigned_abs();
    let others = match off.len() - 1 {
        0 => String::new(),
        others if off.len() * 2 > heard.len() => {
            format!(", and {others} of the other {} are off as well", heard.len() - 1)
        }
        others => format!(", and those of {others} other pods are off as well"),
    };
    let whose = if off.len() * 2 > heard.len() && heard.len() > 1 {
        "compare the operator's clock with others first, since most differ from it"
    } else {
        "synchronise the clock of its node"
    };
    let skew = duration::format(skew);
    ClocksStanding::Trouble(Trouble::new(
        Reason::ClockOff,
        format_args!(
            "the clock of {name} is {seconds} s {direction} the operator's{others}: more than {limit} s with tokenPolicy.clockSkew {skew}, so good tokens may be refused"
        ),
        whose,
    ))
}

/// What was said stays while it may be so.
fn offset(pod: &PodKeys, said: Option<&KeysStatus>) -> Option<i64> {
    let now = pod.clock_offset?;
    let mut remarks = said.into_iter().flat_map(|said| &said.remarks);
    let said = remarks.find(|remark| remark.pod == pod.name);
    let said = said.and_then(|remark| remark.clock_offset_seconds);
    Some(
        said.filter(|said| said.abs_diff(now) <= SAME_SECONDS)
            .unwrap_or(now),
    )
}
