"""Replay of a recording: what its states predict from step to step, and what explains the rest."""
