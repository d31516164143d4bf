"""Single measures of a run: metric, agreement, divergence, events, energy, sizes, errors."""
