"""Tasks: data and metric, one module per data set."""
