"""What an exported model says of itself in its metadata_props, besides its graph.

``lmu_deploy.structure`` is for :mod:`converters.onnx.reader`; the rest is for people and for other
programs: lists are JSON and have one entry for each LMU layer.
"""

from __future__ import annotations

import json

from lmu_deploy.network import LMULayer, LMUNetwork

FORMAT = 1
PREFIX = "lmu_deploy."


def describe(network: LMUNetwork, form: str, structure: str) -> dict[str, str]:
    """Give the metadata of a float model.

    Parameters
    ----------
    network : LMUNetwork
    form : {"sequence", "step"}
    structure : str
        The network as JSON, its arrays named by initializer.
    """
    memories = [layer.memory for layer in network.layers if isinstance(layer, LMULayer)]
    values = {
        "format": str(FORMAT),
        "form": form,
        "task": network.task or "",
        "return_sequences": json.dumps(network.return_sequences),
        "theta": json.dumps([memory.theta for memory in memories]),
        "order": json.dumps([memory.order for memory in memories]),
        "channels": json.dumps([memory.channels for memory in memories]),
        "discretiser": json.dumps([memory.discretiser for memory in memories]),
        "dt": "1",
        "structure": structure,
    }
    return {PREFIX + key: value for key, value in values.items()}
