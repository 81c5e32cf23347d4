//! Images: manifests, layers, and the store that holds them.
