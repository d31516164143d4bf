"""The lava target."""
