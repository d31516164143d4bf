"""Networks of keras-lmu (Keras 2 and 3) to LMUNetwork, without TensorFlow.

`archive.py` opens a file, `architecture.py` reads its configuration as a chain of layers,
`weights.py` finds the arrays of each, and `layers.py` makes our layers of them; `network.py` puts
them together.
"""

from converters.keras_lmu.network import KerasLMUImporter, read_keras

__all__ = ["KerasLMUImporter", "read_keras"]
