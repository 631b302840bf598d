//! kind-config.yaml, with more nodes, more NodePorts or another port where that is asked for. Knows its text, not YAML.

use std::collections::BTreeMap;

use anyhow::{Context, bail};

/// Below the workspace.
pub(super) const FILE: &str = "kind-config.yaml";

const WORKER: &str = "- role: worker\n";

/// `original` with `nodes` nodes, and with these NodePorts on these ports of 127.0.0.1.
pub(super) fn with(original: &str, nodes: u8, node_ports: &BTreeMap<u16, u16>) -> anyhow::Result<String> {
    let committed = mapping(super::NODE_PORT, super::PORT);
    if !original.ends_with(&committed) || original.contains("role: worker") {
        bail!("{FILE} must have one control-plane node and end with its port:\n{committed}");
    }
    let workers = nodes.checked_sub(1).context("a cluster has at least one node")?;
    let mut config = original.replace(&committed, "");
    for (node_port, port) in node_ports {
        config.push_str(&mapping(*node_port, *port));
    }
    config.extend((0..workers).map(|_| WORKER));
    Ok(config)
}

fn mapping(node_port: u16, port: u16) -> String {
    format!(
        "  - containerPort: {node_port}\n    hostPort: {port}\n    listenAddress: 127.0.0.1\n    protocol: TCP\n"
    )
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
        let usual = BTreeMap::from([(30080, 8080)]);
        assert_eq!(with(&committed(), 1, &usual).unwrap(), committed());
    }

    #[test]
    fn three_nodes_are_two_workers_more_and_ports_are_all_of_the_first() {
        let config = with(
            &committed(),
            3,
            &BTreeMap::from([(30080, 18_080), (30081, 18_081)]),
        )
        .unwrap();
        let (ports, workers) = config.split_at(config.find("- role: worker").unwrap());
        assert!(ports.contains("containerPort: 30081\n    hostPort: 18081\n") && !workers.contains("Port"));
        assert_eq!(config.matches("- role: worker\n").count(), 2);
        assert!(config.contains("hostPort: 18080\n") && !config.contains("hostPort: 8080\n"));
    }

    #[test]
    fn a_file_that_was_changed_beyond_recognition_is_refused() {
        assert!(with("kind: Cluster\n", 3, &BTreeMap::new()).is_err());
    }
}
