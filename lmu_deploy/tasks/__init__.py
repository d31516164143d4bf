"""Tasks: data and metric, one file each."""
