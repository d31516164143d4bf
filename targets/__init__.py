"""Targets: simulators and chips that run a network; targets.base defines the interface."""
