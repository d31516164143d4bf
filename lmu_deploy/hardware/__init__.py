"""Chips: their profiles, and the rules that a network must keep to fit one."""
