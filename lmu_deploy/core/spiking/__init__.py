"""SpikingNetwork, LoihiNetwork and their parts."""
