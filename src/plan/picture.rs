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
        let place = self.places();
        let columns = self.nodes.iter().map(|n| n.rank).max().map_or(0, |r| r + 1);
        let rows = place.iter().map(|(_, row)| row + 1).max().unwrap_or(0);
        let (width, height) = (columns * COLUMN + MARGIN, rows * ROW + MARGIN);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
             orient=\"auto\"><path d=\"M0 0 8 4 0 8z\" fill=\"#667\"/></marker></defs>\n"
        );
        for edge in &self.edges {
            self.svg_edge(edge, &place, &mut out);
        }
        for (i, node) in self.nodes.iter().enumerate() {
            let (x, y) = corner(place[i]);
            let _ = writeln!(
                out,
                "<g><rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"5\" fill=\"{}\" \
                 stroke=\"#445\"/><text x=\"{}\" y=\"{}\" fill=\"#667\" font-size=\"10\">{}</text>\
                 <text x=\"{}\" y=\"{}\">{}</text></g>",
                colour(node.id.kind),
                x + 8,
                y + 14,
                node.id.kind,
                x + 8,
                y + 30,
                escape_xml(&shorten(&node.id.name)),
            );
        }
        out.push_str("</svg>\n");
        out
    }

    fn svg_edge(&self, edge: &Edge, place: &[(usize, usize)], out: &mut String) {
        let (from, to) = (corner(place[edge.from]), corner(place[edge.to]));
        let (x1, y1) = (from.0, from.1 + BOX_HEIGHT / 2);
        let (x2, y2) = (to.0 + BOX_WIDTH, to.1 + BOX_HEIGHT / 2);
        let bend = (x1.saturating_sub(x2) / 2).max(20);
        let _ = writeln!(
            out,
            "<path d=\"M{x1} {y1} C{} {y1} {} {y2} {x2} {y2}\" fill=\"none\" stroke=\"#667\" marker-end=\"url(#tip)\"/>",
            x1.saturating_sub(bend),
            x2 + bend,
        );
        if let Some(condition) = edge.condition {
            let (x, y) = ((x1 + x2) / 2, (y1 + y2) / 2);
            let word = condition_word(condition);
            let _ = writeln!(
                out,
                "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" fill=\"#334\" font-size=\"10\">{word}</text>",
                y.saturating_sub(4)
            );
        }
    }

    /// Column and row of each node.
    fn places(&self) -> Vec<(usize, usize)> {
        let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
        self.nodes
            .iter()
            .map(|node| {
                let row = rows.entry(node.rank).or_default();
                *row += 1;
                (node.rank, *row - 1)
            })
            .collect()
    }
}

const COLUMN: usize = 220;
const ROW: usize = 56;
const MARGIN: usize = 24;
const BOX_WIDTH: usize = 150;
const BOX_HEIGHT: usize = 38;
/// As many characters as a box holds.
const BOX_CHARACTERS: usize = 22;

fn corner((column, row): (usize, usize)) -> (usize, usize) {
    (MARGIN + column * COLUMN, MARGIN + row * ROW)
}

fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Container => "#dbeafe",
        Kind::Image => "#fef3c7",
        Kind::Bridge | Kind::Nat | Kind::Veth => "#dcfce7",
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
