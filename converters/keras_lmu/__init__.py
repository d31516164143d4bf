"""Import networks of keras-lmu (Keras 2 and 3) without TensorFlow.

`file.py` opens a file and finds the arrays of each layer, `architecture.py` and `configuration.py`
read the configuration, `matrices.py` provides the memory's matrices, and `network.py` builds the
network with the readers of each kind of layer.
"""

from converters.keras_lmu.network import KerasLMUImporter, read_keras

__all__ = ["KerasLMUImporter", "read_keras"]
