//! `after`: waits that go round in a circle, and waits for what cannot come.

use indexmap::IndexMap;
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::source::At;
use crate::file::table::{ContainerSheet, Document};
use crate::model::{Condition, Name, Restart};

type Containers = IndexMap<Name, At<ContainerSheet>>;

pub(super) fn check(document: &Document, drafts: &mut Vec<Draft>) {
    let containers = &document.containers.tables;
    endless_waits(containers, drafts);
    cycles(containers, drafts);
}

fn endless_waits(containers: &Containers, drafts: &mut Vec<Draft>) {
    for (name, sheet) in containers {
        for wait in &sheet.value.after {
            let awaited = wait.container.value.as_str();
            let Some(other) = containers.get(awaited) else { continue };
            let endless = |message: String| Draft::error(code::ENDLESS_WAIT, &wait.condition_span, message);
            match wait.condition {
                Condition::Healthy if !other.value.has_health => {
                    let message =
                        format!("`{name}` waits for `{awaited}` to be healthy, but `{awaited}` has no `health`");
                    let draft = endless(message).label("waited for here").other(&other.span, "has no `health`");
                    drafts.push(
                        draft.help(format!("add `health = {{ … }}` to [container.{awaited}], or wait for \"started\"")),
                    );
                }
                Condition::Completed if other.value.container.restart == Restart::Always => {
                    let message =
                        format!("`{name}` waits for `{awaited}` to complete, but `{awaited}` is always restarted");
                    let restart = other.value.restart.as_ref().unwrap_or(&other.span);
                    let draft = endless(message).label("waited for here").other(restart, "starts it again");
                    drafts.push(draft.help("write `restart = \"on-failure\"` there, or wait for \"started\""));
                }
                _ => {}
            }
        }
    }
}

fn cycles(containers: &Containers, drafts: &mut Vec<Draft>) {
    // Nodes have the containers' numbers; an edge leads from each container to those it waits for.
    let mut graph: DiGraph<(), ()> = DiGraph::new();
    let nodes: Vec<NodeIndex> = containers.iter().map(|_| graph.add_node(())).collect();
    for (index, sheet) in containers.values().enumerate() {
        for wait in &sheet.value.after {
            if let Some(awaited) = containers.get_index_of(wait.container.value.as_str()) {
                graph.add_edge(nodes[index], nodes[awaited], ());
            }
        }
    }
    for component in tarjan_scc(&graph) {
        let Some(first) = component.iter().copied().min() else { continue };
        if component.len() > 1 || graph.contains_edge(first, first) {
            let cycle: Vec<usize> = shortest_cycle(&graph, first).into_iter().map(NodeIndex::index).collect();
            drafts.push(cycle_draft(containers, &cycle));
        }
    }
}

/// The shortest way from `start` back to itself; `start` lies on a cycle.
fn shortest_cycle(graph: &DiGraph<(), ()>, start: NodeIndex) -> Vec<NodeIndex> {
    let mut came_from: IndexMap<NodeIndex, NodeIndex> = IndexMap::new();
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for next in graph.neighbors(node) {
            if next == start {
                let mut cycle = vec![node];
                while let Some(previous) = came_from.get(&cycle[cycle.len() - 1]) {
                    cycle.push(*previous);
                }
                cycle.reverse();
                return cycle;
            }
            if !came_from.contains_key(&next) {
                came_from.insert(next, node);
                queue.push_back(next);
            }
        }
    }
    vec![start]
}

fn cycle_draft(containers: &Containers, cycle: &[usize]) -> Draft {
    let name = |index: usize| containers.get_index(index).map_or("", |(name, _)| name.as_str());
    let edges: Vec<(usize, usize)> =
        cycle.iter().copied().zip(cycle.iter().copied().cycle().skip(1)).take(cycle.len()).collect();
    let span = |(from, to): (usize, usize)| {
        let waits = &containers[from].value.after;
        let wait = waits.iter().find(|wait| wait.container.value == name(to));
        wait.map_or(containers[from].span.clone(), |wait| wait.container.span.clone())
    };
    let says = |(from, to): (usize, usize)| format!("`{}` waits for `{}`", name(from), name(to));
    if let [alone] = cycle {
        let message = format!("`{}` waits for itself", name(*alone));
        return Draft::error(code::CYCLE, &span((*alone, *alone)), message);
    }
    let round: Vec<&str> = cycle.iter().chain(&cycle[..1]).map(|index| name(*index)).collect();
    let message = format!("containers wait for each other: {}", round.join(" → "));
    let mut draft = Draft::error(code::CYCLE, &span(edges[0]), message).label(says(edges[0]));
    for edge in &edges[1..] {
        draft = draft.other(&span(*edge), says(*edge));
    }
    draft.help("take one of these out of its `after`")
}
