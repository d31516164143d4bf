"""Loops over steps that a forward writes out: memories and recurrent units step by step."""
