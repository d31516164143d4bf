"""Conversion of whole float graphs to ensembles of spiking neurons."""
