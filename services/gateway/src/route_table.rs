//! Which route a request takes: the longest host, then the longest path prefix on a segment's border. The order
//! of the routes means nothing, and a look-up costs the segments of the path, however many routes there are.
//!
//! It knows nothing of what a route does.

use std::borrow::Cow;
use std::collections::HashMap;

/// The position of a route in the configuration's list.
pub(crate) type RouteIndex = usize;

/// Hosts and prefixes, to be looked up. Both must be in their normal form (see `config`).
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    exact: HashMap<Box<str>, PrefixTree>,
    /// By the suffix behind the star, with its dot: `.example.com` for `*.example.com`.
    wildcard: HashMap<Box<str>, PrefixTree>,
    any: PrefixTree,
}

/// Another route already has this host and prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) by: RouteIndex,
}

impl RouteTable {
    /// Adds a route; without a host it takes every host's requests. `host` is lower-case without a port, or
    /// `*.` and such a suffix.
    ///
    /// # Errors
    /// [`Taken`] when host and prefix belong to another route.
    pub(crate) fn insert(
        &mut self,
        host: Option<&str>,
        prefix: &str,
        route: RouteIndex,
    ) -> Result<(), Taken> {
        let tree = match host {
            None => &mut self.any,
            Some(host) => match host.strip_prefix('*') {
                Some(suffix) => self.wildcard.entry(suffix.into()).or_default(),
                None => self.exact.entry(host.into()).or_default(),
            },
        };
        tree.insert(prefix, route)
    }

    /// The route for a `Host` (with or without a port, in any case) and a normalised path.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<RouteIndex> {
        if self.exact.is_empty() && self.wildcard.is_empty() {
            return self.any.find(path);
        }
        let host = comparable(host);
        self.exact
            .get(&*host)
            .and_then(|tree| tree.find(path))
            .or_else(|| self.find_wildcard(&host, path))
            .or_else(|| self.any.find(path))
    }

    /// The longest suffix first; a star stands for at least one label.
    fn find_wildcard(&self, host: &str, path: &str) -> Option<RouteIndex> {
        if self.wildcard.is_empty() {
            return None;
        }
        let dots = host.match_indices('.').map(|(dot, _)| dot).filter(|dot| *dot > 0);
        dots.filter_map(|dot| self.wildcard.get(&host[dot..]))
            .find_map(|tree| tree.find(path))
    }
}

/// Without its port and the root's dot, in lower case.
fn comparable(host: &str) -> Cow<'_, str> {
    let without_port = match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    let name = without_port.strip_suffix('.').unwrap_or(without_port);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// Prefixes as a tree of segments. Nodes live in one list and name their children by position in it.
#[derive(Debug)]
struct PrefixTree {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    route: Option<RouteIndex>,
    children: HashMap<Box<str>, usize>,
}

impl Default for PrefixTree {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }
}

impl PrefixTree {
    fn insert(&mut self, prefix: &str, route: RouteIndex) -> Result<(), Taken> {
        let mut at = 0;
        for segment in prefix.split('/').filter(|segment| !segment.is_empty()) {
            let next = self.nodes.len();
            let child = *self.nodes[at].children.entry(segment.into()).or_insert(next);
            if child == next {
                self.nodes.push(Node::default());
            }
            at = child;
        }
        if let Some(by) = self.nodes[at].route {
            return Err(Taken { by });
        }
        self.nodes[at].route = Some(route);
        Ok(())
    }

    fn find(&self, path: &str) -> Option<RouteIndex> {
        let mut node = &self.nodes[0];
        let mut longest = node.route;
        for segment in path[1..].split('/') {
            let Some(child) = node.children.get(segment) else {
                break;
            };
            node = &self.nodes[*child];
            longest = node.route.or(longest);
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(routes: &[(Option<&str>, &str)]) -> RouteTable {
        let mut table = RouteTable::default();
        for (index, (host, prefix)) in routes.iter().enumerate() {
            table.insert(*host, prefix, index).unwrap();
        }
        table
    }

    #[test]
    fn the_longest_prefix_on_a_segment_border_wins() {
        let table = table(&[(None, "/items"), (None, "/"), (None, "/items/special")]);
        for (path, route) in [
            ("/", 1),
            ("/items", 0),
            ("/items/", 0),
            ("/items/1", 0),
            ("/itemsx", 1),
            ("/items/special/x", 2),
            ("/items/specials", 0),
            ("/ITEMS", 1),
        ] {
            assert_eq!(table.find("h", path), Some(route), "{path}");
        }
    }

    #[test]
    fn nothing_matches_without_a_route_for_the_rest() {
        let table = table(&[(None, "/items"), (Some("a.example"), "/")]);
        assert_eq!(table.find("b.example", "/other"), None);
        assert_eq!(table.find("a.example", "/other"), Some(1));
    }

    #[test]
    fn the_longest_host_wins_and_falls_back_where_its_prefixes_do_not_match() {
        let table = table(&[
            (Some("*.example.com"), "/"),
            (Some("shop.example.com"), "/items"),
            (Some("*.eu.example.com"), "/"),
            (None, "/"),
        ]);
        for (host, path, route) in [
            ("shop.example.com", "/items/1", 1),
            ("SHOP.example.com.:8080", "/items", 1),
            ("shop.example.com", "/other", 0),
            ("a.eu.example.com:80", "/", 2),
            ("eu.example.com", "/", 0),
            ("example.com", "/", 3),
            ("evilexample.com", "/", 3),
            ("[::1]:8080", "/", 3),
        ] {
            assert_eq!(table.find(host, path), Some(route), "{host}{path}");
        }
    }

    #[test]
    fn the_same_host_and_prefix_twice_is_refused() {
        let mut table = table(&[(None, "/items")]);
        assert_eq!(table.insert(None, "/items/", 1), Err(Taken { by: 0 }));
        assert_eq!(table.insert(Some("a"), "/items", 1), Ok(()));
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_comparing_every_prefix_finds_in_any_order(
            prefixes in prop::collection::hash_set("(/[ab]{1,2}){0,3}", 1..12)
                .prop_map(|prefixes| prefixes.into_iter().collect::<Vec<_>>())
                .prop_shuffle(),
            path in "(/[abc]{1,2}){1,4}/?",
        ) {
            let table = table(&prefixes.iter().map(|prefix| (None, prefix.as_str())).collect::<Vec<_>>());
            let on_border = |prefix: &&String| path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            let expected = prefixes.iter().filter(on_border).max_by_key(|prefix| prefix.len());
            prop_assert_eq!(table.find("h", &path).map(|index| &prefixes[index]), expected);
        }
    }
}
