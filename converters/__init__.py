"""Which chips and files a trained LMU can be turned into: converters between representations."""
