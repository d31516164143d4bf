"""One kind of plot a file: each makes a Plot from figures of fidelity.json."""
