//! The connections of the knock port: anybody may open one, so their number is bounded, and so is the time that one may
//! take to say something. It must not know what is said.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Verifiers keep theirs for 30 s.
const MOST_CONNECTIONS: usize = 4096;
/// One pod needs one. Some networks hide all pods of a node behind the node's own address.
const MOST_OF_AN_ADDRESS: usize = 256;
/// From one request's end to the end of the next one's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(35);
/// After an accept that failed: too many open files pass.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until shut down; what is under way then is cut off, since whoever knocks knocks again.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let places = Places::default();
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        // One too many is hung up on, and knocks again.
        let Some(place) = places.take(peer.ip()) else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = shutdown.cancelled() => {}
                _ = connection => {}
            }
        });
    }
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct Places(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// Given back when it is dropped.
struct Place {
    places: Places,
    address: IpAddr,
}

impl Places {
    fn take(&self, address: IpAddr) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = taken.get(&address).copied().unwrap_or_default();
        if of_address >= MOST_OF_AN_ADDRESS || taken.values().sum::<usize>() >= MOST_CONNECTIONS {
            return None;
        }
        taken.insert(address, of_address + 1);
        Some(Place {
            places: self.clone(),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_places_to_others() {
        let places = Places::default();
        let [greedy, other] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let mut taken: Vec<_> = (0..MOST_CONNECTIONS)
            .filter_map(|_| places.take(greedy))
            .collect();
        assert_eq!(taken.len(), MOST_OF_AN_ADDRESS);
        let place = places.take(other);
        assert!(place.is_some());
        taken.pop();
        assert!(places.take(greedy).is_some(), "what ends gives its place back");
        drop((taken, place));
        assert!(places.0.lock().unwrap().is_empty());
    }

    #[test]
    fn all_addresses_together_have_so_many_places() {
        let places = Places::default();
        let address = |number: usize| {
            let [.., high, low] = number.to_be_bytes();
            IpAddr::from([10, 0, high, low])
        };
        let taken: Vec<_> = (0..MOST_CONNECTIONS + 10)
            .filter_map(|number| places.take(address(number)))
            .collect();
        assert_eq!(taken.len(), MOST_CONNECTIONS);
    }
}
