"""Hardware profiles, cost tables and pre-flight rules of chips."""
