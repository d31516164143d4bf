"""Network: a trained network as a graph of operators, and how it is run in float64."""
