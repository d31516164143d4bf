"""Quantize a trained float network to integers, with ranges measured on calibration inputs."""

from __future__ import annotations

import numpy as np

from converters.options import AUTO, QuantizeOptions
from converters.quantize.calibration import Calibration, calibrate
from converters.quantize.ptq import choose_realization, lower
from converters.quantize.settings import settings_for
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import with_logits
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import as_graph
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.progress import Progress
from lmu_deploy.hardware.profile import DigitalProfile

__all__ = ["Calibration", "calibrate", "quantize", "quantize_with"]


def quantize(
    network: Network | LMUNetwork,
    calibration: np.ndarray | Calibration,
    profile: str | DigitalProfile = "loihi2",
    *,
    slices: int | None = None,
    kernel_slices: int | None = None,
    message_bits: int = 12,
    hidden_bits: int | None = None,
    input_bits: int | None = None,
    calibration_method: str = "max",
    scales: str | None = None,
    realization: str = "dense-incremental",
    taps: int | None = None,
    kernel_bits: int | None = None,
    refit: bool | None = None,
    progress: Progress | None = None,
) -> IntegerNetwork:
    """Quantize a float network after its training.

    Parameters
    ----------
    network : Network or LMUNetwork
        What has no integer form (normalization of layers, softmax inside, reversed time) stays in
        float for the host.
    calibration : ndarray, shape (samples, steps, n_in), or Calibration
        Inputs on which ranges are measured, such as a part of the training data; or the result of
        `calibrate` for them and this network, so that several quantizations can share it.
    profile : str or DigitalProfile
        Digital chip whose widths apply, by name or as an object.
    slices : int, optional
        Slices of every matrix that enters a memory; by default 2. One slice loses some accuracy.
    kernel_slices : int, optional
        Slices of the hidden units' kernels and the readout; by default 1 for a network with
        one output, 2 for one with an output at every step.
    message_bits : int
        Width of memory messages.
    hidden_bits : int, optional
        Width of hidden messages; by default 8 for a network with one output, 12 for one with an
        output at every step.
    input_bits : int, optional
        Width of input messages; by default that of memory messages.
    calibration_method : {"max", "percentile", "mse"}
        How the range of messages is derived from the calibration.
    scales : {"power-of-two", "free"}, optional
        Row gains that are powers of two, or a multiplier and a shift; by default free for a memory
        of one slice, which gains almost a bit of precision, and powers of two otherwise.
    realization : {"dense-incremental", "schur", "hessenberg", "fir", "sign-taylor", "auto"}
        How the memory's matrix is realized; see docs/reference/integer-semantics.md. With auto, the
        cheapest that fits the profile and is predicted to be accurate enough, with at most `slices`
        slices; the network's provenance records the reason as "realization".
    taps : int, optional
        Taps of realization fir; by default as many as the window has steps.
    kernel_bits : int, optional
        Width of the weights of hidden units and the readout; by default the profile's.
    refit : bool, optional
        Fit the kernels that read a memory, and the range of its messages, to the rounded memory; by
        default for a memory of one slice. No effect with fir and sign-taylor.
    progress : callable, optional
        Called with (samples calibrated, samples in all).

    Raises
    ------
    InputError
        When the network has no LMU layer, an argument is out of range, the calibration does not
        fit the network, or an accumulator would be too narrow.
    """
    options = QuantizeOptions(
        slices=slices,
        kernel_slices=kernel_slices,
        message_bits=message_bits,
        hidden_bits=hidden_bits,
        input_bits=input_bits,
        calibration_method=calibration_method,
        scales=scales,
        realization=realization,
        taps=taps,
        kernel_bits=kernel_bits,
        refit=refit,
    )
    return quantize_with(network, calibration, profile, options, progress)


SOFTMAX = ("softmax",)
"""Left out at the end of a network: it has no integers, and the largest output stays the same."""


def quantize_with(
    network: Network | LMUNetwork,
    calibration: np.ndarray | Calibration,
    profile: str | DigitalProfile = "loihi2",
    options: QuantizeOptions | None = None,
    progress: Progress | None = None,
) -> IntegerNetwork:
    """Quantize a float network with options in one object; see :func:`quantize`."""
    graph = with_logits(as_graph(network), SOFTMAX)
    _check_sizes(graph)
    settings = settings_for(graph, profile, options)
    signals = calibration
    if not isinstance(signals, Calibration):
        signals = calibrate(graph, signals, progress)
    if settings.realization == AUTO:
        return choose_realization(graph, signals, settings)
    return lower(graph, signals, settings).result


LARGEST_MEMORY = 4096
"""States of a memory in all its channels. Its matrix of integers has the square of that many."""


def _check_sizes(network: Network) -> None:
    """Raise InputError before any work for a memory whose matrix is too large."""
    for node in network.nodes:
        size = node.operator.states.get("memory", 0)
        if size > LARGEST_MEMORY:
            raise InputError(
                f"the memory of {node.name} has {size:,} states in all its channels, and integers "
                f"are for at most {LARGEST_MEMORY:,}, because its matrix has the square of that; "
                "train it with fewer channels or a lower order, or split it into several memories."
            )
