//! The pure part of the road: a checked stack becomes the graph of what the host should hold.
