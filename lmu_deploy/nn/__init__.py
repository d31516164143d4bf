"""LMU layers in PyTorch."""
