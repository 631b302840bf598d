//! What keys are changed for, while clients fetch tokens and use them all the time: ten rotations, each ordered before the
//! keys of the last are gone, revocations, and all that goes wrong meanwhile. No valid token is refused, none that was
//! revoked is accepted, and hops do not disagree.
#![cfg(test)]

mod counts;
mod partner;
mod revocations;
mod rotations;
mod soak;

use soak::Soak;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_overlapping_rotations_and_all_that_goes_wrong_meanwhile_refuse_no_valid_token() {
    let mut soak = Soak::begin().await;
    for _ in 0..2 {
        soak.rotate("nothing else happens").await;
    }
    soak.revoke_a_subject().await;
    soak.rotate_while_b_grows().await;
    soak.rotate_while_an_issuer_pod_is_replaced().await;
    soak.revoke_a_session().await;
    soak.rotate_and_kill_b_once_it_has_acknowledged().await;
    soak.rotate_while_a_gateway_pod_is_drained().await;
    soak.revoke_a_token().await;
    soak.rotate_and_kill_the_operator().await;
    soak.rotate_and_revoke_while_the_leader_sleeps().await;
    soak.rotate("nothing else happens").await;
    soak.end().await;
}
