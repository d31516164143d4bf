"""LMUNetwork to IntegerNetwork."""
