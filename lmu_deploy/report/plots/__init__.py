"""Plots of a report, built from the figures of fidelity.json."""
