"""What a model of a quantised network says of itself in its metadata_props.

Scales and widths are JSON by the names of docs/integer-semantics.md: an integer n stands for
``n * scale``. Lists have an entry for each layer.
"""

from __future__ import annotations

import json
from typing import Any

from converters.onnx.metadata import FORMAT, PREFIX
from lmu_deploy.integer_network import Format, IntegerNetwork
from lmu_deploy.network import LMULayer


def describe(network: IntegerNetwork, form: str) -> dict[str, str]:
    """Give the metadata of a model of a form, such as ``integer-sequence``."""
    memories = [layer.memory for _, layer in network.on_chip]
    values: dict[str, Any] = {
        "format": str(FORMAT),
        "form": form,
        "task": network.task or "",
        "profile": network.profile,
        "return_sequences": json.dumps(network.return_sequences),
        "dt": "1",
        "states": json.dumps([memory.size for memory in memories]),
        "realisation": json.dumps([memory.realisation for memory in memories]),
        "formats": json.dumps(_formats(network)),
        **_truth(network),
    }
    return {PREFIX + key: value for key, value in values.items()}


def _formats(network: IntegerNetwork) -> dict[str, dict[str, Any]]:
    formats = {"input": network.input, "output": network.chip_readout.output}
    for number, layer in network.on_chip:
        formats[f"layer{number}/memory/state"] = layer.memory.state
        formats[f"layer{number}/memory/message"] = layer.memory.message
        if layer.hidden is not None:
            formats[f"layer{number}/hidden/message"] = layer.hidden.message
    return {name: _as_json(value) for name, value in formats.items()}


def _as_json(value: Format) -> dict[str, Any]:
    return {"bits": value.bits, "scale": value.scale}


def _truth(network: IntegerNetwork) -> dict[str, str]:
    """Theta, order and the rest, which the float network knows."""
    if network.source is None:
        return {}
    memories = [layer.memory for layer in network.source.layers if isinstance(layer, LMULayer)]
    return {
        "theta": json.dumps([memory.theta for memory in memories]),
        "order": json.dumps([memory.order for memory in memories]),
        "channels": json.dumps([memory.channels for memory in memories]),
        "discretiser": json.dumps([memory.discretiser for memory in memories]),
    }
