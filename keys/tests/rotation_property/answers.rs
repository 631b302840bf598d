//! What pods answer, honest and hostile, and what is answered in their place.

use std::sync::Arc;

use servicechain_keys::rotation::Heard;
use servicechain_keys::{Algorithm, Answer, Generation, Held, Nonce, Offer, OfferRefusal, Outcome};

use super::flaw::Flaw;
use super::pod::{Hostility, Word};
use super::signed::{KeyPool, Signed};
use super::world::{World, date, workload};

impl World {
    pub(crate) fn answer(&mut self, number: usize, word: &Word, push: Option<&Arc<Signed>>) -> Option<Heard> {
        let pool = KeyPool::get();
        let real = self.ack_keys.is_some();
        let nonce = Nonce::new([self.random.byte(); 16]);
        let pod = &self.pods[number];
        let mut answer = Answer {
            pod: pod.id.clone(),
            workload: workload(pod.is_issuer),
            held: word.held.as_ref().map(|held| held.held()),
            outcome: match (word.refusal, word.unchanged) {
                (Some(_), _) => Outcome::Refused,
                (None, true) => Outcome::Unchanged,
                (None, false) => Outcome::Accepted,
            },
            reason: word.refusal,
            durable: word.durable,
            now: date(pod.clock(self.time)),
            versions: vec![1],
            anchors: Vec::new(),
            offers: Vec::new(),
            refused: std::collections::BTreeSet::new(),
            unconfirmed: false,
            stopped: pod
                .keys
                .iter()
                .filter(|own| own.stopped)
                .map(|own| (pool.keys[own.key].kid().to_owned(), date(own.last_expiry)))
                .collect(),
        };
        let living = pod.keys.iter().filter(|own| !own.stopped).map(|own| own.key);
        let mut offers: Vec<(usize, bool)> = living.map(|key| (key, true)).collect();
        let mut claim_refuted = false;
        match pod.hostility {
            Hostility::None => {}
            Hostility::Offers if pod.is_issuer => {
                let others = self.pods.iter().filter(|other| other.number != number);
                let key = others
                    .flat_map(|other| &other.keys)
                    .map(|own| own.key)
                    .next_back();
                offers.extend(key.map(|key| (key, false)));
            }
            Hostility::Offers => offers.push((pool.keys.len() - 1, true)),
            Hostility::ClaimsHigh => {
                let held = answer.held.unwrap_or(Held {
                    generation: Generation::new(1),
                    digest: servicechain_keys::Digest::of(b""),
                });
                answer.held = Some(Held {
                    generation: Generation::new(9999),
                    ..held
                });
                claim_refuted = true;
            }
            Hostility::ClaimsHeld => {
                answer.held = push.map(|bundle| bundle.held()).or(answer.held);
                answer.durable = true;
            }
            Hostility::LateClock => answer.now = date(0),
        }
        let offers = offers.into_iter().map(|(key, proven)| (&pool.keys[key], proven));
        if real {
            // A pod without the private half can at best replay a proof, which is over another nonce.
            let chain = self.chain.clone();
            answer.offers = offers
                .map(|(key, proven)| {
                    let nonce = if proven { nonce } else { Nonce::new([0xff; 16]) };
                    Offer::new(key, &nonce, &chain, &answer.pod).expect("signed")
                })
                .collect();
            let key = self.ack_key(pod.is_issuer);
            let sealed = answer.seal(key, &nonce).expect("JSON");
            let opened = Answer::open(&sealed.body, &sealed.mac, key, &nonce, &answer.pod).ok()?;
            let algorithm = pod.is_issuer.then_some(Algorithm::ES256);
            let heard = Heard::new(opened, algorithm, &nonce, &chain);
            return Some(Heard {
                claim_refuted,
                ..heard
            });
        }
        let offers = offers
            .map(|(key, proven)| {
                let believed = proven || self.flaw == Flaw::ProofsNotChecked;
                if believed {
                    Ok(key.public_jwk().clone())
                } else {
                    Err(OfferRefusal::Proof)
                }
            })
            .collect();
        Some(Heard {
            answer,
            offers,
            claim_refuted,
        })
    }

    /// Whoever sits at the pod's address without its key says what the leader would like to hear, and offers a key.
    pub(crate) fn forged_answer(&self, number: usize, config_map: Option<&Signed>) -> Option<Heard> {
        let pod = &self.pods[number];
        let pool = KeyPool::get();
        let answer = Answer {
            pod: pod.id.clone(),
            workload: workload(pod.is_issuer),
            held: config_map.map(Signed::held),
            outcome: Outcome::Accepted,
            reason: None,
            durable: true,
            now: date(self.time),
            versions: vec![1],
            anchors: Vec::new(),
            offers: Vec::new(),
            stopped: std::collections::BTreeMap::new(),
            refused: std::collections::BTreeSet::new(),
            unconfirmed: false,
        };
        let nonce = Nonce::new([1; 16]);
        let offers = vec![Ok(pool.keys[pool.keys.len() - 2].public_jwk().clone())];
        if self.flaw == Flaw::ForgedAnswersBelieved {
            return Some(Heard {
                answer,
                offers,
                claim_refuted: false,
            });
        }
        if self.ack_keys.is_some() {
            let sealed = answer.seal(self.ack_key(!pod.is_issuer), &nonce).expect("JSON");
            let key = self.ack_key(pod.is_issuer);
            let opened = Answer::open(&sealed.body, &sealed.mac, key, &nonce, &pod.id);
            assert!(opened.is_err(), "a MAC by another workload's key was accepted");
        }
        None
    }
}
