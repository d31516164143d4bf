"""Trainable PyTorch modules of graphs: one counterpart for each operator of a Network."""
