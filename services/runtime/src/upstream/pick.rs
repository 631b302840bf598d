//! The choice of an address: of two random ones, the one that is busy with fewer of our requests.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Endpoint, Endpoints};

/// Power of two choices. `except` is the address that has just failed: it is taken only if there is no other.
/// `None` only if there are no addresses at all.
#[must_use]
pub fn pick(endpoints: &Endpoints, except: Option<SocketAddr>) -> Option<&Arc<Endpoint>> {
    match endpoints.as_slice() {
        [] => None,
        [only] => Some(only),
        many => {
            let random: u64 = rand::random();
            let first = index(random >> 32, many.len());
            // Any but the first, each with the same chance.
            let second = (first + 1 + index(random & 0xffff_ffff, many.len() - 1)) % many.len();
            let (one, other) = (&many[first], &many[second]);
            let preferred = if cost(other, except) < cost(one, except) {
                other
            } else {
                one
            };
            if is_poor(preferred, except) {
                return many.iter().min_by_key(|endpoint| cost(endpoint, except));
            }
            Some(preferred)
        }
    }
}

fn index(random: u64, length: usize) -> usize {
    // A multiply and a shift map 32 random bits to the range without a division.
    usize::try_from(((random & 0xffff_ffff) * length as u64) >> 32).unwrap_or(0)
}

fn is_poor(endpoint: &Endpoint, except: Option<SocketAddr>) -> bool {
    except == Some(endpoint.address()) || endpoint.is_suspect()
}

fn cost(endpoint: &Endpoint, except: Option<SocketAddr>) -> (bool, bool, usize) {
    (
        except == Some(endpoint.address()),
        endpoint.is_suspect(),
        endpoint.in_flight(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: u16) -> Endpoints {
        (1..=count)
            .map(|port| Arc::new(Endpoint::new(([127, 0, 0, 1], port).into())))
            .collect()
    }

    #[test]
    fn the_busiest_of_three_is_never_picked() {
        let endpoints = endpoints(3);
        let _busy: Vec<_> = (0..9).map(|_| endpoints.as_slice()[1].begin()).collect();
        let mut seen = [0; 3];
        for _ in 0..300 {
            let picked = pick(&endpoints, None).unwrap().address().port();
            seen[usize::from(picked) - 1] += 1;
        }
        assert_eq!(seen[1], 0);
        assert!(seen[0] > 75 && seen[2] > 75, "{seen:?}");
    }

    #[test]
    fn what_failed_or_is_suspect_is_taken_only_if_nothing_else_is_there() {
        let three = endpoints(3);
        let failed = three.as_slice()[0].address();
        three.as_slice()[1].refused();
        for _ in 0..100 {
            assert_eq!(pick(&three, Some(failed)).unwrap().address().port(), 3);
        }
        let one = endpoints(1);
        assert_eq!(pick(&one, Some(failed)).unwrap().address(), failed);
        assert!(pick(&Endpoints::default(), None).is_none());
    }

    #[test]
    fn requests_are_counted_until_their_guard_is_dropped() {
        let endpoints = endpoints(1);
        let guard = endpoints.as_slice()[0].begin();
        assert_eq!(guard.endpoint().in_flight(), 1);
        drop(guard);
        assert_eq!(endpoints.as_slice()[0].in_flight(), 0);
    }
}
