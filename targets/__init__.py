"""Where a network can run; see targets.base for the interface."""
