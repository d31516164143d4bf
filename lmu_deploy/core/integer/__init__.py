"""IntegerNetwork, its parts and its graph."""
