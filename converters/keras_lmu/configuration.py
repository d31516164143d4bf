"""Read the options of a layer's configuration, each checked when it is read.

Configurations come from files of others, and versions of Keras write the same option in different
ways: a number or a list of one, an activation as a name, as a function or as a layer.

:func:`architecture_from_options` builds the configuration of a model from a few options, for
weights-only files of one LMU layer and a Dense readout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from converters.keras_lmu.architecture import KerasLayer
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.validation import check_choice, check_flag, check_integer, check_number

_LARGEST = 65_536


class Configuration:
    """Options of one layer by name, each checked when it is read.

    Parameters
    ----------
    config : mapping of str to Any
        Configuration of the layer, or of a layer inside it.

    Raises
    ------
    InputError
        By every method, when a value is none of those that Keras allows.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.values = config

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value as it is."""
        return self.values.get(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a flag."""
        return check_flag(name, self.values.get(name, default))

    def integer(self, name: str, most: int = _LARGEST, default: int | None = None) -> int:
        """Return a positive integer, which Keras may write as a list of one."""
        value = self.values.get(name, default)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        return check_integer(name, value, 1, most)

    def pair(self, name: str, default: Any = 1) -> tuple[int, int]:
        """Return two positive integers, which Keras may write as one."""
        value = self.values.get(name, default)
        values = value if isinstance(value, list) else [value, value]
        if len(values) != 2:
            raise InputError(f"{name} is {str(value)[:80]}; two whole numbers are needed")
        first, second = (check_integer(name, each, 1, _LARGEST) for each in values)
        return first, second

    def number(self, name: str, low: float, high: float, default: Any = None) -> float:
        """Return a number between bounds."""
        return check_number(name, self.values.get(name, default), low, high)

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """Return one of several texts."""
        return check_choice(name, self.values.get(name, default), choices)

    def axes(self, name: str = "axis", default: int = -1) -> list[int]:
        """Return numbers of axes, however Keras writes them."""
        value = self.values.get(name, default)
        if isinstance(value, dict):  # a wrapped list of TensorFlow
            value = value.get("items", value)
        values = value if isinstance(value, list) else [value]
        return [check_integer(name, each, -16, 16) for each in values]

    def refuse(self, reason: str, *names: str) -> None:
        """Raise InputError when one of several flags is set."""
        for name in names:
            if self.flag(name):
                raise InputError(f"{name} is set; {reason}")

    def inner(self, name: str) -> KerasLayer:
        """Return a layer inside this one."""
        return inner_layer(self.values.get(name), name)


def inner_layer(node: Any, what: str) -> KerasLayer:
    """Return the layer that a configuration describes.

    Raises
    ------
    InputError
        When it has no configuration.
    """
    if not isinstance(node, dict) or not isinstance(node.get("config"), dict):
        raise InputError(f"{what} has no configuration")
    kind = str(node.get("class_name")).rsplit(">", 1)[-1][:80]
    return KerasLayer(kind, str(node["config"].get("name", what))[:150], "", node["config"])


ACTIVATIONS: Mapping[str, Activation] = {
    "linear": Activation("linear"),
    "relu": Activation("relu"),
    "relu6": Activation("relu6"),
    "tanh": Activation("tanh"),
    "hard_tanh": Activation("hard-tanh"),
    "sigmoid": Activation("sigmoid"),
    "gelu": Activation("gelu"),
    "silu": Activation("silu"),
    "swish": Activation("silu"),
    "elu": Activation("elu", 1.0),
    "celu": Activation("elu", 1.0),
    "leaky_relu": Activation("leaky-relu", 0.2),
    "softsign": Activation("softsign"),
    "softplus": Activation("softplus"),
    "softmax": Activation("softmax"),
}
"""Activations by Keras's name; hard_sigmoid, which differs between versions, is not among them."""


def function_name(value: Any) -> str:
    """Return the name of an activation that a configuration gives as a name or a function."""
    if isinstance(value, dict) and value.get("class_name") == "function":
        inner = value.get("config")
        value = inner.get("class_name") if isinstance(inner, dict) else inner
    return value if isinstance(value, str) else ""


def read_activation(value: Any, keras: int) -> Activation:
    """Return the activation that a configuration names.

    Parameters
    ----------
    value : str or dict
        A name, a function by name, or an activation layer.
    keras : int
        Major version of Keras: hard_sigmoid is clip(z / 6 + 1/2) since version 3 and was
        clip(z / 5 + 1/2) before.

    Raises
    ------
    InputError
        When it is none that a network has.
    """
    config: Mapping[str, Any] = {}
    if isinstance(value, dict):
        inner = value.get("config")
        kind = str(value.get("class_name"))
        if kind == "function":
            value = function_name(value) or inner
        else:
            config = inner if isinstance(inner, dict) else {}
            value = {"ReLU": "relu", "LeakyReLU": "leaky_relu", "ELU": "elu"}.get(kind, kind)
            value = value if value in ACTIVATIONS else kind.lower()
    if value is None:
        return ACTIVATIONS["linear"]
    if value == "hard_sigmoid":
        return Activation("hard-sigmoid" if keras >= 3 else "hard-sigmoid-keras2")
    if not isinstance(value, str) or value not in ACTIVATIONS:
        known = ", ".join(sorted({*ACTIVATIONS, "hard_sigmoid"}))
        raise InputError(
            f"activation {str(value)[:80]!r} has no counterpart; train with one of {known}"
        )
    found = ACTIVATIONS[value]
    slope = config.get("negative_slope", config.get("alpha"))
    if slope is not None and value in ("leaky_relu", "elu", "relu"):
        if value == "relu" and slope:
            found = Activation("leaky-relu")
        if found.name != "relu":
            found = replace(found, slope=check_number("slope", slope, -1e6, 1e6))
    limit, threshold = config.get("max_value"), config.get("threshold")
    if limit == 6.0 and not threshold and found.name == "relu":
        return ACTIVATIONS["relu6"]
    if limit is not None or threshold:
        raise InputError("a ReLU with max_value or threshold inside a layer; make it a layer")
    return found


def numbers(value: Any, name: str) -> np.ndarray:
    """Return numbers that a configuration lists, in however many axes."""
    if isinstance(value, dict):  # an array of Keras 3
        inner = value.get("config")
        value = inner.get("value") if isinstance(inner, dict) else None
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name} is {str(value)[:80]}; numbers are needed") from error
    if found.dtype.kind not in "iuf" or not np.isfinite(found).all():
        raise InputError(f"{name} is {str(value)[:80]}; numbers are needed")
    return found.astype(np.float64)


def spread(values: np.ndarray, features: int) -> np.ndarray:
    """Return one value for every feature, from one for all or one for each."""
    flat = values.reshape(-1)
    if flat.size not in (1, features):
        raise InputError(
            f"it has {flat.size} values and its input has {features} features; one for each is "
            "needed"
        )
    return np.broadcast_to(flat, (features,)).copy()


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
    """Build the configuration of a model from options.

    Parameters
    ----------
    options : dict of str to str
        Names as in keras-lmu: order and theta are needed; `hidden_cell` is SimpleRNNCell
        (the default), Dense or none, with `units`, `activation` and `hidden_bias`.

    Raises
    ------
    InputError
        When an option is unknown, or order, theta or units are missing.
    """
    known = (*LMU_OPTIONS, *OTHER_OPTIONS)
    if unknown := sorted(set(options) - set(known)):
        raise InputError(f"unknown option {unknown[0]!r}; choose from {', '.join(known)}.")
    values = {name: _value(text) for name, text in options.items()}
    cell = str(values.get("hidden_cell", "SimpleRNNCell"))
    needed = ["order", "theta", *([] if cell == "none" else ["units"])]
    if missing := [name for name in needed if name not in values]:
        raise InputError(f"option {missing[0]} is missing; pass it with --option {missing[0]}=....")
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
    """Parse a number or true / false; return anything else as text."""
    try:
        value = json.loads(text.lower())
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float) else text
