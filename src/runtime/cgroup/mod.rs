//! Control groups: where they are, limits, counters, events; v2 and v1 behind one interface.
