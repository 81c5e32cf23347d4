//! One small process per container: its parent, its log, its health, its restarts.
