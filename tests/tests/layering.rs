//! Holds the workspace's dependency arrows to `tests/layering.toml`.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Layering {
    may_depend_on: BTreeMap<String, BTreeSet<String>>,
    tops: BTreeMap<String, String>,
    never: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// Shipped dependencies (neither dev nor build) of every package, by name.
struct Graph {
    members: BTreeSet<String>,
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--offline", "--locked"])
            .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
            .current_dir(root)
            .output()
            .expect("cargo metadata starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Metadata = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
        let names: BTreeMap<&str, &str> =
            metadata.packages.iter().map(|p| (p.id.as_str(), p.name.as_str())).collect();
        let edges = metadata
            .resolve
            .nodes
            .iter()
            .map(|node| {
                let shipped = node.deps.iter().filter(|e| e.dep_kinds.iter().any(|k| k.kind.is_none()));
                (
                    names[node.id.as_str()].to_owned(),
                    shipped.map(|e| names[e.pkg.as_str()].to_owned()).collect(),
                )
            })
            .fold(
                BTreeMap::<String, BTreeSet<String>>::new(),
                |mut all, (name, deps): (String, BTreeSet<String>)| {
                    // Two versions of one crate share a name: their edges are joined.
                    all.entry(name).or_default().extend(deps);
                    all
                },
            );
        let members = metadata.workspace_members.iter().map(|id| names[id.as_str()].to_owned()).collect();
        Self { members, edges }
    }

    fn reachable(&self, from: &str) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut queue = vec![from.to_owned()];
        while let Some(name) = queue.pop() {
            for next in self.edges.get(&name).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    queue.push(next.clone());
                }
            }
        }
        seen
    }
}

fn layering() -> Layering {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("layering.toml");
    toml::from_str(&std::fs::read_to_string(path).expect("layering.toml is there"))
        .expect("layering.toml parses")
}

#[test]
fn every_arrow_between_our_crates_is_in_the_table() {
    let (graph, layering) = (Graph::read(), layering());
    for member in &graph.members {
        let local: BTreeSet<&String> = graph.edges[member].intersection(&graph.members).collect();
        if layering.tops.contains_key(member) {
            continue;
        }
        let allowed = layering.may_depend_on.get(member).unwrap_or_else(|| {
            panic!("{member} has no row in tests/layering.toml: add one, with what it may see")
        });
        for dependency in local {
            assert!(
                allowed.contains(dependency),
                "{member} depends on {dependency}, which tests/layering.toml does not allow"
            );
        }
    }
}

#[test]
fn the_table_names_only_crates_that_exist() {
    let (graph, layering) = (Graph::read(), layering());
    for name in layering.may_depend_on.keys().chain(layering.tops.keys()).chain(layering.never.keys()) {
        assert!(
            graph.members.contains(name),
            "tests/layering.toml names {name}, which is not in the workspace"
        );
    }
}

#[test]
fn what_must_never_be_linked_is_not_even_reachable() {
    let (graph, layering) = (Graph::read(), layering());
    for (name, forbidden) in &layering.never {
        let reachable = graph.reachable(name);
        for bad in forbidden {
            assert!(!reachable.contains(bad), "{name} links {bad}, which tests/layering.toml forbids");
        }
    }
}
