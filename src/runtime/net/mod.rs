//! Links, addresses, NAT and names.
