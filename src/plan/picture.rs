//! The graph of a stack as text, DOT and SVG.

use std::collections::BTreeMap;
use std::fmt::Write;

use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};
use serde::Serialize;

use super::{Kind, ResourceId, instances};
use crate::model::{Condition, Stack};

/// The resources of a stack and what each of them needs.
#[derive(Clone, Debug, Serialize)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Node {
    pub id: ResourceId,
    /// The longest way from a node that needs nothing.
    pub rank: usize,
}

/// `from` needs `to`; both are places in [`Graph::nodes`].
#[derive(Clone, Debug, Serialize)]
pub struct Edge {
    pub from: usize,
    pub to: usize,
    pub condition: Option<Condition>,
}

/// Draws up the graph of a stack file. Its cycles were refused when the file was checked.
pub fn graph(stack: &Stack) -> Graph {
    let mut builder = Builder::default();
    for name in stack.cgroups.keys() {
        builder.node(ResourceId::new(Kind::Cgroup, name.as_str()));
    }
    for name in stack.bridges.keys() {
        builder.need((Kind::Nat, ""), (Kind::Bridge, name.as_str()), None);
        // Only where somebody asks it.
        if stack.containers.values().any(|container| !container.bridges.is_empty()) {
            builder.need((Kind::Resolver, ""), (Kind::Bridge, name.as_str()), None);
        }
    }
    for name in stack.volumes.keys() {
        builder.node(ResourceId::new(Kind::Volume, name.as_str()));
    }
    for (name, container) in &stack.containers {
        for instance in instances(name, container) {
            let me = (Kind::Container, instance.as_str());
            builder.need(me, (Kind::Image, &container.image.written), None);
            if let Some(branch) = &container.cgroup {
                builder.need(me, (Kind::Cgroup, branch.as_str()), None);
            }
            for bridge in &container.bridges {
                builder.need(me, (Kind::Bridge, bridge.as_str()), None);
            }
            if !container.bridges.is_empty() {
                builder.need(me, (Kind::Resolver, ""), None);
            }
            for volume in &container.volumes {
                builder.need(me, (Kind::Volume, volume.volume.as_str()), None);
            }
            for (other, condition) in &container.after {
                for other in instances(other, &stack.containers[other]) {
                    builder.need(me, (Kind::Container, &other), Some(*condition));
                }
            }
        }
    }
    builder.finish()
}

#[derive(Default)]
struct Builder {
    graph: DiGraph<ResourceId, Option<Condition>>,
    index: BTreeMap<ResourceId, NodeIndex>,
}

impl Builder {
    fn node(&mut self, id: ResourceId) -> NodeIndex {
        *self.index.entry(id.clone()).or_insert_with(|| self.graph.add_node(id))
    }

    fn need(&mut self, from: (Kind, &str), to: (Kind, &str), condition: Option<Condition>) {
        let from = self.node(ResourceId::new(from.0, from.1));
        let to = self.node(ResourceId::new(to.0, to.1));
        self.graph.add_edge(from, to, condition);
    }

    fn finish(self) -> Graph {
        let order = toposort(&self.graph, None).unwrap_or_else(|_| self.graph.node_indices().collect());
        let mut rank: BTreeMap<NodeIndex, usize> = BTreeMap::new();
        for node in order.iter().rev() {
            let below = self.graph.neighbors(*node).filter_map(|n| rank.get(&n)).max().map_or(0, |r| r + 1);
            rank.insert(*node, below);
        }
        let nodes = self.graph.node_indices().map(|n| Node { id: self.graph[n].clone(), rank: rank[&n] }).collect();
        let edges = self
            .graph
            .edge_indices()
            .filter_map(|edge| {
                let (from, to) = self.graph.edge_endpoints(edge)?;
                Some(Edge { from: from.index(), to: to.index(), condition: self.graph[edge] })
            })
            .collect();
        Graph { nodes, edges }
    }
}

fn condition_word(condition: Condition) -> &'static str {
    match condition {
        Condition::Started => "started",
        Condition::Healthy => "healthy",
        Condition::Completed => "completed",
    }
}

impl Graph {
    /// One line a resource in the order they can be made, with what each needs.
    pub fn text(&self) -> String {
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by_key(|i| self.nodes[*i].rank);
        let width = self.nodes.iter().map(|n| n.id.to_string().chars().count()).max().unwrap_or(0);
        let mut out = String::new();
        for i in order {
            let needs: Vec<String> = self
                .edges
                .iter()
                .filter(|edge| edge.from == i)
                .map(|edge| {
                    let to = &self.nodes[edge.to].id;
                    edge.condition.map_or(to.to_string(), |c| format!("{to} ({})", condition_word(c)))
                })
                .collect();
            let name = self.nodes[i].id.to_string();
            let line = match needs.is_empty() {
                true => name,
                false => format!("{name:width$}  ← {}", needs.join(", ")),
            };
            let _ = writeln!(out, "{line}");
        }
        out
    }

    /// Graphviz's language.
    pub fn dot(&self) -> String {
        let mut out = String::from("digraph stack {\n  rankdir=RL;\n  node [shape=box, fontname=\"sans-serif\"];\n");
        for (i, node) in self.nodes.iter().enumerate() {
            let _ = writeln!(out, "  n{i} [label=\"{}\\n{}\"];", node.id.kind, escape_dot(&node.id.name));
        }
        for edge in &self.edges {
            let label = edge.condition.map_or(String::new(), |c| format!(" [label=\"{}\"]", condition_word(c)));
            let _ = writeln!(out, "  n{} -> n{}{label};", edge.from, edge.to);
        }
        out.push_str("}\n");
        out
    }

    /// A picture: a column a rank, what needs nothing at the left.
    pub fn svg(&self) -> String {
        let layout = Layout::of(self);
        let columns = self.nodes.iter().map(|n| n.rank + 1).max().unwrap_or(0);
        let (width, height) = (columns * COLUMN + 2 * MARGIN - GAP, layout.height + 2 * MARGIN);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
             orient=\"auto\"><path d=\"M0 0 8 4 0 8z\" fill=\"#667\"/></marker></defs>\n"
        );
        for (edge, lane) in self.edges.iter().zip(&layout.lanes) {
            self.svg_edge(edge, &layout, lane, &mut out);
        }
        for (node, y) in self.nodes.iter().zip(&layout.nodes) {
            svg_node(node, (left(node.rank), MARGIN + y - BOX_HEIGHT / 2), &mut out);
        }
        out.push_str("</svg>\n");
        out
    }

    /// Leaves a box at its left and enters another at its right; straight through the columns between, in its lane.
    fn svg_edge(&self, edge: &Edge, layout: &Layout, lane: &[usize], out: &mut String) {
        let (from, to) = (self.nodes[edge.from].rank, self.nodes[edge.to].rank);
        let mut y = MARGIN + layout.nodes[edge.from];
        let mut path = format!("M{} {y}", left(from));
        let stops = lane.iter().copied().chain([layout.nodes[edge.to]]);
        for (column, stop) in (to..from).rev().zip(stops) {
            let (x, next) = (left(column) + BOX_WIDTH, MARGIN + stop);
            let (bend, bent) = (x + GAP * 2 / 3, x + GAP / 3);
            let _ = write!(path, " C{bent} {y} {bend} {next} {x} {next}");
            if column != to {
                let _ = write!(path, " H{}", left(column));
            }
            y = next;
        }
        let _ = writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"#667\" marker-end=\"url(#tip)\"/>");
        if let Some(condition) = edge.condition {
            let (x, word) = (left(to) + BOX_WIDTH + 10, condition_word(condition));
            let _ = writeln!(
                out,
                "<text x=\"{x}\" y=\"{}\" fill=\"#334\" font-size=\"10\" \
                 paint-order=\"stroke\" stroke=\"#fff\" stroke-width=\"3\">{word}</text>",
                y - 4
            );
        }
    }
}

fn svg_node(node: &Node, (x, y): (usize, usize), out: &mut String) {
    let kind = node.id.kind;
    let _ = write!(
        out,
        "<g><rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"5\" fill=\"{}\" \
         stroke=\"#445\"/>",
        colour(kind),
    );
    let _ = match node.id.name.as_str() {
        "" => writeln!(out, "<text x=\"{}\" y=\"{}\">{kind}</text></g>", x + 8, y + 23),
        name => writeln!(
            out,
            "<text x=\"{0}\" y=\"{1}\" fill=\"#667\" font-size=\"10\">{kind}</text>\
             <text x=\"{0}\" y=\"{2}\">{3}</text></g>",
            x + 8,
            y + 14,
            y + 30,
            escape_xml(&shorten(name)),
        ),
    };
}

/// Where everything is, in pixels from the top: the middles of boxes, and of the lanes in which edges pass the columns
/// between their ends, so that none runs behind a box.
struct Layout {
    nodes: Vec<usize>,
    /// For each edge, a lane a column that it passes, the one next to its `from` first.
    lanes: Vec<Vec<usize>>,
    height: usize,
}

/// What stands in a column.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Node(usize),
    /// The edge, and which of the columns that it passes this is.
    Lane(usize, usize),
}

impl Layout {
    fn of(graph: &Graph) -> Self {
        let count = graph.nodes.iter().map(|n| n.rank + 1).max().unwrap_or(0);
        let mut columns: Vec<Vec<Slot>> = vec![Vec::new(); count];
        for (i, node) in graph.nodes.iter().enumerate() {
            columns[node.rank].push(Slot::Node(i));
        }
        let mut layout = Layout { nodes: vec![0; graph.nodes.len()], lanes: Vec::new(), height: 0 };
        for (i, edge) in graph.edges.iter().enumerate() {
            let between = (graph.nodes[edge.to].rank + 1)..graph.nodes[edge.from].rank;
            for (nth, column) in between.clone().rev().enumerate() {
                columns[column].push(Slot::Lane(i, nth));
            }
            layout.lanes.push(vec![0; between.len()]);
        }
        columns.iter().for_each(|column| layout.stack(column));
        // Each slot goes to the middle of what it leads to and comes from; a few rounds untangle most crossings.
        for round in 0..ROUNDS {
            let order: Vec<usize> = match round % 2 {
                0 => (0..count).collect(),
                _ => (0..count).rev().collect(),
            };
            for column in order {
                columns[column].sort_by_key(|slot| layout.middle_of_neighbours(graph, *slot));
                layout.stack(&columns[column]);
            }
        }
        layout
    }

    /// Puts the slots of a column under each other.
    fn stack(&mut self, column: &[Slot]) {
        let mut top = 0;
        for slot in column {
            let size = if matches!(slot, Slot::Node(_)) { ROW } else { LANE };
            *self.place(*slot) = top + size / 2;
            top += size;
        }
        self.height = self.height.max(top);
    }

    fn place(&mut self, slot: Slot) -> &mut usize {
        match slot {
            Slot::Node(node) => &mut self.nodes[node],
            Slot::Lane(edge, nth) => &mut self.lanes[edge][nth],
        }
    }

    fn middle_of_neighbours(&self, graph: &Graph, slot: Slot) -> usize {
        let neighbours: Vec<usize> = match slot {
            Slot::Node(node) => {
                let ends = graph.edges.iter().zip(&self.lanes).filter_map(|(edge, lane)| match node {
                    _ if edge.from == node => Some(lane.first().copied().unwrap_or(self.nodes[edge.to])),
                    _ if edge.to == node => Some(lane.last().copied().unwrap_or(self.nodes[edge.from])),
                    _ => None,
                });
                ends.collect()
            }
            Slot::Lane(edge, nth) => {
                let (lane, edge) = (&self.lanes[edge], &graph.edges[edge]);
                let before = nth.checked_sub(1).map_or(self.nodes[edge.from], |nth| lane[nth]);
                let after = lane.get(nth + 1).copied().unwrap_or(self.nodes[edge.to]);
                vec![before, after]
            }
        };
        neighbours.iter().sum::<usize>() / neighbours.len().max(1)
    }
}

/// Between columns, in pixels as all of these.
const GAP: usize = 80;
const COLUMN: usize = BOX_WIDTH + GAP;
const ROW: usize = 56;
const LANE: usize = 16;
const MARGIN: usize = 24;
const BOX_WIDTH: usize = 150;
const BOX_HEIGHT: usize = 38;
/// As many characters as a box holds.
const BOX_CHARACTERS: usize = 22;
/// Passes over the columns of a picture.
const ROUNDS: usize = 8;

fn left(column: usize) -> usize {
    MARGIN + column * COLUMN
}

fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Container => "#dbeafe",
        Kind::Image => "#fef3c7",
        Kind::Bridge | Kind::Nat | Kind::Resolver | Kind::Veth => "#dcfce7",
        Kind::Volume => "#fae8ff",
        Kind::Cgroup | Kind::Sysctl => "#e5e7eb",
    }
}

/// The end of a name says more than its beginning.
fn shorten(name: &str) -> String {
    let count = name.chars().count();
    match count > BOX_CHARACTERS {
        true => format!("…{}", name.chars().skip(count - BOX_CHARACTERS + 1).collect::<String>()),
        false => name.into(),
    }
}

fn escape_dot(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn escape_xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain of containers, each of which also needs the one image.
    fn chain(length: usize) -> Graph {
        let mut builder = Builder::default();
        for i in 0..length {
            let me = format!("c{i}");
            builder.need((Kind::Container, &me), (Kind::Image, "host"), None);
            if let Some(before) = i.checked_sub(1) {
                builder.need((Kind::Container, &me), (Kind::Container, &format!("c{before}")), None);
            }
        }
        builder.finish()
    }

    #[test]
    fn no_edge_runs_behind_a_box() {
        let graph = chain(6);
        let layout = Layout::of(&graph);
        let mut passed = 0;
        for (edge, lane) in graph.edges.iter().zip(&layout.lanes) {
            for (nth, y) in lane.iter().enumerate() {
                let column = graph.nodes[edge.from].rank - 1 - nth;
                let boxes = graph.nodes.iter().zip(&layout.nodes).filter(|(node, _)| node.rank == column);
                for (node, middle) in boxes {
                    assert!(y.abs_diff(*middle) > BOX_HEIGHT / 2, "behind {}", node.id);
                }
                passed += 1;
            }
        }
        assert_eq!(passed, 1 + 2 + 3 + 4 + 5);
    }

    #[test]
    fn names_are_escaped_and_cut_at_their_beginning() {
        let mut builder = Builder::default();
        builder.node(ResourceId::new(Kind::Image, "registry.example/<team>/\"web\":1.9"));
        let graph = builder.finish();
        assert!(graph.svg().contains("…mple/&lt;team&gt;/&quot;web&quot;:1.9"), "{}", graph.svg());
        assert!(graph.dot().contains(r#"<team>/\"web\":1.9"#));
    }
}
