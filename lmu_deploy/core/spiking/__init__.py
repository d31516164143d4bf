"""SpikingNetwork and LoihiNetwork, and what they are made of."""
