"""Read a Keras model's configuration as a chain of layers, from the input to the output.

In: the JSON of `model.to_json()` or of a saved file, Keras 2 or 3, Sequential or Functional. Out:
the layers in the order in which signals pass through them. Whatever is not a chain is reported.

:func:`architecture_from_options` builds such a configuration from a few options, for weights-only
files of one LMU layer and a Dense readout.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lmu_deploy.core.errors import InputError

MOST_LAYERS = 1000


@dataclass(frozen=True)
class KerasLayer:
    """One layer of a Keras configuration.

    Attributes
    ----------
    kind : str
        Class name, such as LMU.
    name : str
    key : str
        Name under which Keras 3 stores its weights: the class name in snake case, numbered.
    config : dict
    """

    kind: str
    name: str
    key: str
    config: dict[str, Any]

    def __str__(self) -> str:
        return f"layer {self.name!r} ({self.kind})"


def read_chain(model: dict[str, Any], problems: list[str]) -> list[KerasLayer]:
    """Return the layers of a Sequential or Functional model in order; add to `problems`.

    Raises
    ------
    InputError
        When the configuration is so damaged that no layer can be found.
    """
    kind = model.get("class_name")
    config = model.get("config")
    if kind not in ("Sequential", "Functional", "Model"):
        raise InputError(
            f"the model is a {str(kind)[:80]!r}; only Sequential and Functional models can be "
            "imported."
        )
    nodes = config if isinstance(config, list) else None  # Keras before 2.2 stored a plain list
    if isinstance(config, dict):
        nodes = config.get("layers")
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise InputError("the model's configuration lists no layers; save it again.")
    if len(nodes) > MOST_LAYERS:
        raise InputError(f"the model has {len(nodes)} layers, more than {MOST_LAYERS}.")
    layers = _describe(nodes)
    if kind == "Sequential":
        return layers
    sources = [_sources(node.get("inbound_nodes")) for node in nodes]
    return _follow(layers, sources, problems)


def _describe(nodes: list[dict[str, Any]]) -> list[KerasLayer]:
    counts: dict[str, int] = {}
    layers = []
    for number, node in enumerate(nodes):
        config = node.get("config")
        kind = node.get("class_name")
        if not isinstance(config, dict) or not isinstance(kind, str):
            raise InputError(f"layer {number} has no configuration; save the model again.")
        base = snake_case(kind.rsplit(">", 1)[-1])
        count = counts[base] = counts.get(base, -1) + 1
        name = str(config.get("name") or node.get("name") or base)[:200]
        key = base if count == 0 else f"{base}_{count}"
        layers.append(KerasLayer(kind.rsplit(">", 1)[-1], name, key, config))
    return layers


def snake_case(name: str) -> str:
    """Convert a class name as Keras does for weights: LMUFeedforward becomes lmu_feedforward."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _sources(calls: Any) -> list[list[str]]:
    """Return, for each call of a layer, the names of the layers whose outputs it takes."""
    return [list(_tensors(call)) for call in calls] if isinstance(calls, list) else []


def _tensors(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__" and isinstance(node.get("config"), dict):
            history = node["config"].get("keras_history")
            if isinstance(history, list) and history:
                yield str(history[0])
            return
        for value in node.values():
            yield from _tensors(value)
    elif isinstance(node, list):
        if len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int):
            yield node[0]  # Keras 2: [layer, call, tensor, arguments]
            return
        for value in node:
            yield from _tensors(value)


def _follow(
    layers: list[KerasLayer], sources: list[list[list[str]]], problems: list[str]
) -> list[KerasLayer]:
    """Order layers from the one without a source to the one without a target."""
    after: dict[str, list[KerasLayer]] = {}
    start = []
    for layer, calls in zip(layers, sources, strict=True):
        if len(calls) > 1:
            problems.append(f"{layer} is used {len(calls)} times")
        names = [name for call in calls for name in call]
        if not names:
            start.append(layer)
        elif len(set(names)) > 1:
            problems.append(f"{layer} takes {len(set(names))} inputs")
        for name in dict.fromkeys(names):
            after.setdefault(name, []).append(layer)
    if len(start) != 1:
        problems.append(f"the model has {len(start)} inputs instead of one")
    chain = start[:1]
    while chain and len(chain) <= len(layers) and (following := after.get(chain[-1].name)):
        if len(following) > 1:
            problems.append(f"{chain[-1]} feeds {len(following)} layers")
        chain.append(following[0])
    left = [layer for layer in layers if layer not in chain]
    problems.extend(f"{layer} is not on the chain from input to output" for layer in left)
    return chain if not left else layers


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
