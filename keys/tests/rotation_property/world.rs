//! The world around the protocol: etcd with compare-and-swap and restores, leaders, pods that come, die and come back,
//! clocks that jump, messages that are lost or late. One call of [`World::step`] is one thing that happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use servicechain_keys::rotation::{Desired, DesiredIssuer, KeySource, ListedPod};
use servicechain_keys::{
    AckKey, Algorithm, ChainId, Digest, Generation, NumericDate, PodId, Policy, Revocation, RootSecret,
    Workload,
};

use super::flaw::Flaw;
use super::leader::Leader;
use super::pod::{Hostility, Life, Pod};
use super::random::Random;
use super::signed::{KeyPool, Signed, Signer};

pub(crate) const ISSUER: &str = "platform";
pub(crate) const TOKEN_LIFETIME: u64 = 900;
const MOST_PODS: usize = 14;

pub(crate) struct Etcd {
    pub(crate) version: u64,
    pub(crate) config_map: Option<Arc<Signed>>,
}

pub(crate) struct InFlight {
    pub(crate) address: usize,
    pub(crate) pod: usize,
    pub(crate) bundle: Arc<Signed>,
    pub(crate) expires: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub(crate) key: usize,
    /// Its `sub` and, as an issuer of ours has it, its `client_id`.
    pub(crate) subject: usize,
    pub(crate) issued: u64,
    pub(crate) expiry: u64,
}

#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) flaw: Flaw,
    pub(crate) signer: Signer,
    pub(crate) ack_keys: Option<[AckKey; 2]>,
    pub(crate) chain: ChainId,
    /// True seconds; every monotonic clock follows it.
    pub(crate) time: u64,
    pub(crate) etcd: Etcd,
    pub(crate) history: Vec<Arc<Signed>>,
    pub(crate) leaders: Vec<Leader>,
    /// Of the first bundle.
    pub(crate) first_version: Option<u64>,
    pub(crate) lease: usize,
    pub(crate) pods: Vec<Pod>,
    /// By pool index: the pod that made the key.
    pub(crate) makers: Vec<Option<usize>>,
    pub(crate) next_key: usize,
    pub(crate) in_flight: Vec<InFlight>,
    pub(crate) tokens: Vec<Token>,
    /// Answers that are still being streamed: the pod, and the token that was good when it began.
    pub(crate) streams: Vec<(usize, Token)>,
    /// By pool index: when the last token signed by the key expires.
    pub(crate) last_expiry: Vec<u64>,
    pub(crate) removed: BTreeMap<usize, Generation>,
    pub(crate) revoked_keys: Vec<usize>,
    pub(crate) revocations: Vec<Revocation>,
    pub(crate) enforced: usize,
    pub(crate) rotate_before: Option<u64>,
    pub(crate) stale_revocations: usize,
    publish_ahead: u64,
    pub(crate) contents: BTreeMap<u64, Digest>,
    pub(crate) highest: Option<Arc<Signed>>,
    /// No faults: what is promised to happen in the end is awaited.
    pub(crate) calm: bool,
    pub(crate) violation: Option<Violation>,
    pub(crate) happened: Option<Vec<String>>,
    pub(crate) wild_issuers: Vec<usize>,
}

pub(crate) fn date(seconds: u64) -> NumericDate {
    NumericDate::from_seconds(seconds)
}

impl World {
    pub(crate) fn new(seed: u64, flaw: Flaw, real: bool, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let chain = ChainId::new("7f3c").expect("a chain id");
        let root = RootSecret::new([3; 32]);
        let key = |workload: &str| root.ack_key(&chain, &Workload::new(workload).expect("a workload"));
        let ack_keys = real.then(|| [key("gateway"), key(ISSUER)]);
        let signer = if real {
            Signer::real(&chain, seed)
        } else {
            Signer::StandIn
        };
        let pool = KeyPool::get().keys.len();
        let leaders = (0..=random.below(3)).map(|_| Leader::default()).collect();
        let publish_ahead = [0, 0, 45][random.below(3)];
        Self {
            flaw,
            signer,
            ack_keys,
            chain,
            time: 1_000_000,
            etcd: Etcd {
                version: 1,
                config_map: None,
            },
            history: Vec::new(),
            leaders,
            first_version: None,
            lease: 0,
            pods: Vec::new(),
            makers: vec![None; pool],
            next_key: 0,
            in_flight: Vec::new(),
            tokens: Vec::new(),
            streams: Vec::new(),
            last_expiry: vec![0; pool],
            removed: BTreeMap::new(),
            revoked_keys: Vec::new(),
            revocations: Vec::new(),
            enforced: 0,
            rotate_before: None,
            stale_revocations: 0,
            publish_ahead,
            contents: BTreeMap::new(),
            highest: None,
            calm: false,
            violation: None,
            happened: traced.then(Vec::new),
            wild_issuers: Vec::new(),
            random,
        }
    }

    pub(crate) fn trace(&mut self, what: impl FnOnce() -> String) {
        let time = self.time - 1_000_000;
        if let Some(happened) = &mut self.happened {
            happened.push(format!("{time:>8} {}", what()));
        }
    }

    pub(crate) fn violate(&mut self, invariant: &'static str, what: String) {
        self.trace(|| format!("{invariant} VIOLATED: {what}"));
        self.violation.get_or_insert(Violation { invariant, what });
    }

    /// One thing that happens, by its weight.
    pub(crate) fn step(&mut self) {
        match self.random.below(200) {
            0..=109 => self.burst(),
            110..=124 => self.pass_time(),
            125..=136 => self.sign_token(),
            137..=146 => self.judge_token(),
            147..=152 => self.create_pod(),
            153..=162 => self.start_or_knock(),
            163..=166 => self.refresh_file(),
            167..=170 => self.end_pod(),
            171..=173 => self.crash_container(),
            174..=177 => self.cut_or_heal(),
            178..=180 => self.break_or_mend_disk(),
            181..=183 => self.jump_clock(),
            184..=185 => self.kill_leader(),
            186..=187 => self.put_leader_to_sleep(),
            188 => self.lease = self.random.below(self.leaders.len()),
            189..=191 => self.restore_etcd(),
            192..=194 => self.order_rotation(),
            195..=196 => self.revoke(),
            197..=198 => self.deliver_late(),
            _ if self.random.percent(50) => self.deliver_replayed(),
            _ => self.deliver_forged(),
        }
        for leader in &mut self.leaders {
            leader.asleep = leader.asleep.saturating_sub(1);
        }
        self.check_pods();
    }

    /// A leader gets some way, or all the way round.
    fn burst(&mut self) {
        let leader = self.random.below(self.leaders.len());
        if self.leaders[leader].asleep > 0 {
            return;
        }
        for _ in 0..=self.random.below(16) {
            self.leader_step(leader);
        }
    }

    /// In the midst of whatever it was doing.
    fn put_leader_to_sleep(&mut self) {
        let leader = self.random.below(self.leaders.len());
        self.leaders[leader].asleep = 10 + self.random.below(60);
        self.trace(|| format!("leader {leader} falls asleep"));
    }

    pub(crate) fn pass_time(&mut self) {
        let seconds = match self.random.below(20) {
            0..=11 => 1 + self.random.below(5) as u64,
            12..=17 => 10 + self.random.below(30) as u64,
            18 => 60 + self.random.below(600) as u64,
            _ => 900 + self.random.below(1200) as u64,
        };
        self.advance(seconds);
    }

    pub(crate) fn advance(&mut self, seconds: u64) {
        self.time += seconds;
        let time = self.time;
        self.in_flight.retain(|message| time <= message.expires);
        for pod in &mut self.pods {
            pod.expire_confirmation(time);
            if matches!(pod.life, Life::Zombie { until } if time >= until) {
                pod.life = Life::Gone;
            }
        }
    }

    pub(crate) fn desired_as_read(&mut self) -> Desired {
        let seen = if self.flaw == Flaw::StaleDesired && self.random.percent(50) {
            self.stale_revocations
        } else {
            self.revocations.len()
        };
        Desired {
            chain: self.chain.clone(),
            policy: Policy {
                clock_skew: Duration::from_secs(30),
                max_token_bytes: 8192,
                max_token_lifetime: Duration::from_hours(24),
                required_claims: Vec::new(),
            },
            issuers: vec![DesiredIssuer {
                name: ISSUER.to_owned(),
                iss: "http://shop-issuer-platform.shop.svc".to_owned(),
                audiences: vec!["shop".to_owned()],
                token_types: vec!["at+jwt".to_owned()],
                scopes_claim: "scope".to_owned(),
                max_token_lifetime: None,
                keys: KeySource::Managed {
                    algorithm: Algorithm::ES256,
                    token_lifetime: Duration::from_secs(TOKEN_LIFETIME),
                    rotation_period: Duration::from_hours(2),
                    publish_ahead: Duration::from_secs(self.publish_ahead),
                },
            }],
            revocations: self.revocations[..seen].to_vec(),
            rotate_keys_before: self.rotate_before.map(date),
        }
    }

    pub(crate) fn ack_key(&self, is_issuer: bool) -> &AckKey {
        &self.ack_keys.as_ref().expect("real keys")[usize::from(is_issuer)]
    }

    pub(crate) fn list(&self) -> Vec<ListedPod> {
        let listed = self.pods.iter().filter(|pod| pod.is_listed());
        listed
            .map(|pod| ListedPod {
                pod: pod.id.clone(),
                issuer: pod.is_issuer.then(|| ISSUER.to_owned()),
                addressed: pod.life != Life::Pending,
                runs: pod.life == Life::Running,
                ready: pod.api_ready,
                ended: pod.life == Life::Ended,
            })
            .collect()
    }

    pub(crate) fn pod_at(&self, address: usize) -> Option<usize> {
        let there = |pod: &&Pod| pod.address == address && pod.is_running() && pod.reachable;
        self.pods.iter().find(there).map(|pod| pod.number)
    }

    pub(crate) fn pick(&mut self, wanted: impl Fn(&Pod) -> bool) -> Option<usize> {
        let fitting: Vec<_> = self
            .pods
            .iter()
            .filter(|pod| wanted(pod))
            .map(|pod| pod.number)
            .collect();
        (!fitting.is_empty()).then(|| fitting[self.random.below(fitting.len())])
    }

    pub(crate) fn create_pod(&mut self) {
        let alive = self.pods.iter().filter(|pod| pod.is_listed()).count();
        if alive >= 7 || self.pods.len() >= MOST_PODS {
            return;
        }
        let number = self.pods.len();
        let is_issuer = self.random.percent(45);
        let hostility = match self.random.below(40) {
            _ if self.calm => Hostility::None,
            0 => Hostility::Offers,
            1 => Hostility::ClaimsHigh,
            2 if !is_issuer => Hostility::ClaimsHeld,
            3 if !is_issuer => Hostility::LateClock,
            _ => Hostility::None,
        };
        // The address of a pod that is gone is given again.
        let free = self.pods.iter().find(|pod| {
            pod.life == Life::Gone
                && !self
                    .pods
                    .iter()
                    .any(|other| other.address == pod.address && other.life != Life::Gone)
        });
        let address = free.map_or(number, |pod| pod.address);
        let stale = self.random.percent(35) && !self.calm && !self.history.is_empty();
        let file = if stale {
            Some(Arc::clone(&self.history[self.random.below(self.history.len())]))
        } else {
            self.etcd.config_map.clone()
        };
        self.trace(|| {
            format!(
                "pod-{number} created at address {address}, issuer {is_issuer}, {hostility:?}, file {:?}",
                file.as_ref().map(|file| file.generation().number())
            )
        });
        self.pods.push(Pod {
            id: PodId::new(format!("pod-{number}")).expect("a pod id"),
            number,
            is_issuer,
            hostility,
            address,
            life: Life::Pending,
            api_ready: false,
            reachable: true,
            quiet_until: 0,
            clock_offset: 0,
            held: None,
            disk: None,
            file,
            disk_broken: false,
            confirmed: false,
            last_asked: self.time,
            incarnation: 0,
            keys: Vec::new(),
            acknowledged: None,
        });
    }

    pub(crate) fn start_or_knock(&mut self) {
        let Some(number) = self.pick(|pod| {
            pod.life == Life::Pending || pod.life == Life::Running && (!pod.confirmed || !pod.api_ready)
        }) else {
            return;
        };
        self.advance_pod(number);
    }

    pub(crate) fn advance_pod(&mut self, number: usize) {
        if self.pods[number].life == Life::Pending {
            self.pods[number].life = Life::Running;
            self.restart_container(number);
        } else if self.pods[number].confirmed {
            self.pods[number].api_ready = self.pods[number].reachable;
        } else if !self.knock(number) && self.random.percent(30) && !self.calm {
            // startupWait is over: it serves unconfirmed.
            self.pods[number].api_ready = self.pods[number].reachable && self.pods[number].held.is_some();
        }
    }

    pub(crate) fn restart_container(&mut self, number: usize) {
        let time = self.time;
        self.pods[number].start_container(time);
        if self.pods[number].is_issuer {
            let before = self.next_key;
            self.pods[number].make_keys(&mut self.next_key);
            self.makers[before..self.next_key].fill(Some(number));
        }
        self.trace(|| format!("pod-{number} starts"));
        self.check_start(number);
    }

    /// The leader reads the `ConfigMap` for every knock, and answers only when no newer bundle can be at the pods.
    fn knock(&mut self, number: usize) -> bool {
        let pod = &self.pods[number];
        if !pod.reachable || !pod.is_listed() || self.random.percent(5) && !self.calm {
            return false;
        }
        let from_memory = self.flaw == Flaw::KnocksAnsweredFromMemory && !self.calm;
        let leader = if from_memory {
            self.random.below(self.leaders.len())
        } else {
            self.lease
        };
        let leader = &self.leaders[leader];
        let Some(in_config_map) = &self.etcd.config_map else {
            return false;
        };
        if !from_memory && !leader.memory.is_settled_at(&self.etcd.version.to_string()) {
            return false;
        }
        let newest = if from_memory {
            leader.newest
        } else {
            in_config_map.generation()
        };
        let time = self.time;
        let pod = &mut self.pods[number];
        pod.confirmed = newest > Generation::default() && pod.held_generation() >= Some(newest);
        pod.last_asked = time;
        let confirmed = pod.confirmed;
        self.trace(|| format!("pod-{number} knocks, newest is {newest}: confirmed {confirmed}"));
        confirmed
    }

    pub(crate) fn refresh_file(&mut self) {
        let Some(number) = self.pick(Pod::is_running) else {
            return;
        };
        let pod = &mut self.pods[number];
        if let Some(config_map) = &self.etcd.config_map
            && pod.is_listed()
        {
            pod.file = Some(Arc::clone(config_map));
        }
        let Some(file) = pod.file.clone() else { return };
        let asked = pod.last_asked;
        self.deliver(number, Some(&file));
        // Nobody asked: the file speaks for the past.
        self.pods[number].last_asked = asked;
    }

    pub(crate) fn push_to_all(&mut self, bundle: &Arc<Signed>) {
        for number in 0..self.pods.len() {
            if self.pods[number].is_running() && self.pods[number].reachable && self.random.percent(70) {
                self.deliver(number, Some(bundle));
            }
        }
    }
}

pub(crate) fn subject_of(subject: usize) -> String {
    format!("sub-{subject}")
}

pub(crate) fn workload(is_issuer: bool) -> Workload {
    Workload::new(if is_issuer { ISSUER } else { "gateway" }).expect("a workload")
}
