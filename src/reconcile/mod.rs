//! Observe, diff, plan, execute, report.
