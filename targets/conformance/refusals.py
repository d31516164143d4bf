"""Cases on what a target refuses: always an InputError, and before anything is run."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from lmu_deploy.errors import InputError
from targets.base import Target
from targets.conformance.bench import SEED, ConformanceError, MakeNetwork, made, require
from targets.conformance.networks import example


def case_wrong_inputs_are_refused(target: Target, make_network: MakeNetwork) -> None:
    """Check that NaN, infinity, other shapes and types, no samples and no steps are refused."""
    network, inputs = made(make_network, "recurrent"), example("recurrent").inputs
    wrong = {
        "NaN": np.where(inputs == inputs[0, 0, 0], np.nan, inputs),
        "infinity": np.where(inputs == inputs[0, 0, 0], np.inf, inputs),
        "a feature too many": np.concatenate([inputs, inputs[..., :1]], axis=2),
        "a feature too few": inputs[..., :1],
        "a single sample without its axis": inputs[0],
        "no samples": inputs[:0],
        "no steps": inputs[:, :0],
        "texts": np.full(inputs.shape, "x"),
    }
    for what, values in wrong.items():
        _refused(target, network, values, what)


def case_other_representations_are_refused(target: Target, make_network: MakeNetwork) -> None:
    """Check that what is no network, or one of another kind, is refused by name."""
    inputs = example("recurrent").inputs
    for network in ("a text", None, example("recurrent").network):
        if not isinstance(network, target.accepts):
            error = _refused(target, network, inputs, f"a {type(network).__name__}")
            require(target.name in str(error), f"the error does not name the target: {error}")


def case_unsupported_networks_are_refused_with_every_reason(
    target: Target, make_network: MakeNetwork
) -> None:
    """Check that a run asks `unsupported` first, and that its error gives every reason."""
    network, inputs = made(make_network, "recurrent"), example("recurrent").inputs
    reasons = target.unsupported(network)
    require(reasons == [], f"an example network is unsupported: {reasons}")
    refusing: Any = copy.copy(target)
    refusing.unsupported = lambda network: ["its first fault", "its second fault"]
    error = _refused(refusing, network, inputs, "an unsupported network")
    for reason in ("its first fault", "its second fault"):
        require(reason in str(error), f"the error leaves out a reason: {error}")


def _refused(target: Target, network: Any, inputs: np.ndarray, what: str) -> InputError:
    try:
        target.run(network, inputs, seed=SEED)
    except InputError as error:
        text = str(error)
        require("\n" not in text and text.endswith("."), f"{what}: no plain sentence: {text!r}")
        return error
    except Exception as error:
        raise ConformanceError(f"{what} ends in {type(error).__name__}: {error}") from error
    raise ConformanceError(f"{what} is not refused")
