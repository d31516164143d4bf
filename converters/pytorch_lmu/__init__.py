"""State dictionaries of PyTorch as an LMUNetwork, without the code of the module.

`importer.py` opens a file and sorts its weights by module, `layers.py` makes layers of those of
`lmu_deploy.nn` and torch, and `foreign.py` of the LMU layers that other people wrote.
"""

from converters.pytorch_lmu.importer import PyTorchLMUImporter, read_pytorch_lmu

__all__ = ["PyTorchLMUImporter", "read_pytorch_lmu"]
