//! kind-config.yaml, with more nodes or another port where that is asked for. Knows its text, not YAML.

use anyhow::{Context, bail};

/// Below the workspace.
pub(super) const FILE: &str = "kind-config.yaml";

const WORKER: &str = "- role: worker\n";

/// `original` with `nodes` nodes and the gateway on `port`.
pub(super) fn with(original: &str, nodes: u8, port: u16) -> anyhow::Result<String> {
    let host_port = format!("hostPort: {}\n", super::PORT);
    if original.matches(&host_port).count() != 1 || original.contains("role: worker") {
        bail!(
            "{FILE} must have one control-plane node and one line `{}`",
            host_port.trim()
        );
    }
    let workers = nodes.checked_sub(1).context("a cluster has at least one node")?;
    let mut config = original.replace(&host_port, &format!("hostPort: {port}\n"));
    config.extend((0..workers).map(|_| WORKER));
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    fn committed() -> String {
        std::fs::read_to_string(workspace::path(FILE)).unwrap()
    }

    #[test]
    fn one_node_on_the_usual_port_is_the_committed_file() {
        assert_eq!(with(&committed(), 1, super::super::PORT).unwrap(), committed());
    }

    #[test]
    fn three_nodes_are_two_workers_more() {
        let config = with(&committed(), 3, 18_080).unwrap();
        assert_eq!(config.matches("- role: worker\n").count(), 2);
        assert!(config.contains("hostPort: 18080\n") && !config.contains("hostPort: 8080\n"));
    }

    #[test]
    fn a_file_that_was_changed_beyond_recognition_is_refused() {
        assert!(with("kind: Cluster\n", 3, 1).is_err());
    }
}
