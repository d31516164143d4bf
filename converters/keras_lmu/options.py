"""An architecture given by a few options, for weights-only files of the usual shape.

The shape is one LMU layer and a Dense readout; whatever else a network has is described by the JSON
that ``model.to_json()`` gives.
"""

from __future__ import annotations

import json
from typing import Any

from lmu_deploy.errors import InputError

LMU_OPTIONS = (
    "memory_d",
    "order",
    "theta",
    "trainable_theta",
    "hidden_to_memory",
    "memory_to_memory",
    "input_to_hidden",
    "discretizer",
    "use_bias",
    "return_sequences",
)
OTHER_OPTIONS = ("hidden_cell", "units", "activation", "hidden_bias", "readout_bias")


def architecture_from_options(options: dict[str, str]) -> dict[str, Any]:
    """Write options as Keras would write the model.

    Parameters
    ----------
    options : dict of str to str
        Names as in keras-lmu: order and theta are needed; `hidden_cell` is SimpleRNNCell
        (the default), Dense or none, with `units`, `activation` and `hidden_bias`.

    Raises
    ------
    InputError
        On a name that is not known, or when order, theta or units are missing.
    """
    known = (*LMU_OPTIONS, *OTHER_OPTIONS)
    if unknown := sorted(set(options) - set(known)):
        raise InputError(f"unknown option {unknown[0]!r}; choose from {', '.join(known)}.")
    values = {name: _value(text) for name, text in options.items()}
    cell = str(values.get("hidden_cell", "SimpleRNNCell"))
    needed = ["order", "theta", *([] if cell == "none" else ["units"])]
    if missing := [name for name in needed if name not in values]:
        raise InputError(f"option {missing[0]} is missing; give it with --option {missing[0]}=....")
    lmu = {"memory_d": 1, **{name: values[name] for name in LMU_OPTIONS if name in values}}
    if cell != "none":
        hidden = {"units": values["units"], "use_bias": values.get("hidden_bias", True)}
        if "activation" in values:
            hidden["activation"] = values["activation"]
        lmu["hidden_cell"] = {"class_name": cell, "config": hidden}
    dense = {"use_bias": values.get("readout_bias", True)}
    return {
        "class_name": "Sequential",
        "config": {
            "layers": [
                {"class_name": "LMU", "config": {"name": "lmu", **lmu}},
                {"class_name": "Dense", "config": {"name": "dense", **dense}},
            ]
        },
    }


def _value(text: str) -> Any:
    """Read a number or true / false as such, anything else as text."""
    try:
        value = json.loads(text.lower())
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float) else text
