"""Import networks of keras-lmu (Keras 2 and 3) without TensorFlow.

`archive.py` opens a file and finds the arrays of each layer, `architecture.py` reads the
configuration as a chain of layers, `blocks.py` reads the options of each layer, `matrices.py`
provides the memory's matrices, and `network.py` builds the network from all of them.
"""

from converters.keras_lmu.network import KerasLMUImporter, read_keras

__all__ = ["KerasLMUImporter", "read_keras"]
