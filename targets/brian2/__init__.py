"""The brian2 target."""
