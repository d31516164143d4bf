"""From a Run and the reference to figures: what was lost, where, when."""
