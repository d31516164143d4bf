"""Lower a float network to populations and edges in integers, operator by operator."""
