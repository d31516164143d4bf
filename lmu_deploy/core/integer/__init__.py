"""IntegerNetwork and what it is made of."""
