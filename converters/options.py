"""Options of the conversions, each defined once.

The keyword arguments of the converters, the command line, the tables of a sweep and the reference
of the command line are derived from these classes; see :mod:`lmu_deploy.core.options`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.options import (
    CALIBRATIONS,
    NEURON_KINDS,
    REALIZATIONS,
    Options,
    option,
    options_of,
)

CALIBRATION_METHODS = ("max", "percentile", "mse")
SCALES = ("power-of-two", "free")
AUTO = "auto"
LEAST_BITS, MOST_BITS = 2, 20
METHODS = ("ptq", "qat")
DEVICES = ("auto", "cpu", "cuda", "mps")
CHOSEN_BY_BUDGET = ("slices", "kernel_slices", "kernel_bits")

NEURONS_PER_STATE = 100
NEURONS_PER_UNIT = 20
CALIBRATION_SAMPLES = 200
DT_MS = 1.0
PRESENTATION_MS = 50.0
SYNAPSES = ("linear", "dpi")
UNITS = ("auto", "chip", "host")

LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(Options):
    """Options of :func:`converters.quantize.quantize`, which documents them.

    Raises
    ------
    InputError
        If a value is not a choice or is out of range.
    """

    slices: int | None = option(
        None,
        "Number of int8 slices of each matrix into a memory",
        low=1,
        high=3,
        by_default="2, or 1 for quantization-aware training",
    )
    kernel_slices: int | None = option(
        None,
        "Number of slices of the other matrices",
        low=1,
        high=3,
        by_default="1, or 2 for a network that answers at every step",
    )
    message_bits: int = option(
        12, "Width of memory messages", low=LEAST_BITS, high=MOST_BITS, unit="bits"
    )
    hidden_bits: int | None = option(
        None,
        "Width of hidden messages",
        low=LEAST_BITS,
        high=MOST_BITS,
        unit="bits",
        by_default="8, or 12 for a network that answers at every step",
    )
    input_bits: int | None = option(
        None,
        "Width of input messages",
        low=LEAST_BITS,
        high=MOST_BITS,
        unit="bits",
        by_default="the width of memory messages",
    )
    calibration_method: str = option(
        "max",
        "How the range of messages is taken from the calibration data",
        choices=CALIBRATION_METHODS,
    )
    scales: str | None = option(
        None,
        "Gains of matrix rows",
        choices=SCALES,
        by_default="free for a memory of one slice, power-of-two otherwise",
    )
    realization: str = option(
        "dense-incremental",
        "Realization of the memory; auto selects the cheapest that is accurate enough",
        choices=(*REALIZATIONS, AUTO),
        aliases=("realisation",),
    )
    taps: int | None = option(
        None,
        "Length of the delay line of realization fir, in steps",
        low=1,
        high=65_536,
        by_default="the length of the window",
    )
    kernel_bits: int | None = option(
        None,
        "Weight width of hidden units and readout, in bits; at least 2",
        by_default="the profile's",
    )
    refit: bool | None = option(
        None,
        "Refit the matrices that read a memory to the memory after rounding",
        by_default="only for a memory of one slice",
    )


@dataclass(frozen=True, kw_only=True)
class TaskQuantizeOptions(QuantizeOptions):
    """Options of a quantization with the data of a task; :func:`lmu_deploy.quantize` has them all.

    Raises
    ------
    InputError
        If a value is not a choice or is out of range, or two options exclude each other.
    """

    method: str = option(
        "ptq",
        "ptq rounds the trained weights; qat continues the training with rounded weights",
        choices=METHODS,
    )
    config: Path | None = option(None, "TOML file with settings of the training (qat)", sweep=False)
    epochs: int | None = option(
        None, "Largest number of epochs (qat)", by_default="that of the settings"
    )
    seed: int = option(
        0, "Seed of the order of the training data (qat)", low=0, high=LARGEST_SEED, sweep=False
    )
    checkpoint: Path | None = option(
        None,
        "File that is written after each epoch and that an interrupted training resumes from (qat)",
        sweep=False,
    )
    device: str = option("auto", "Device of the training (qat)", choices=DEVICES, sweep=False)
    sparsity_threshold: float | None = option(
        None,
        "Send a message only if it changed by at least this fraction of its range; 0 sends every "
        "change",
        low=0.0,
        high=1.0,
        by_default="every message is sent",
    )
    sparsity_loss: float | None = option(
        None,
        "Choose these thresholds on validation data such that the loss is at most this; 0.002 is "
        "0.2 points of accuracy, or 0.2 % of the NRMSE",
        low=0.0,
        high=1.0,
        by_default="every message is sent",
    )
    budget_kib: float | None = option(
        None,
        "Choose slices and weight widths such that the synapses take at most this memory",
        low=0.001,
        high=1e9,
        unit="KiB",
        by_default="no limit",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sparsity_threshold is not None and self.sparsity_loss is not None:
            raise InputError(
                "a sparsity threshold and a sparsity loss were given; a loss chooses the "
                "thresholds, so leave one of them out."
            )
        if self.method == "ptq" and any(
            value is not None for value in (self.config, self.epochs, self.checkpoint)
        ):
            raise InputError(
                "config, epochs and checkpoint are of a training, and method ptq trains nothing; "
                "add --method qat or leave them out."
            )
        if self.budget_kib is not None:
            if self.method == "qat":
                raise InputError(
                    "a budget is met by choosing widths after training; use method ptq."
                )
            if given := [name for name in CHOSEN_BY_BUDGET if getattr(self, name) is not None]:
                raise InputError(
                    f"a budget chooses {', '.join(CHOSEN_BY_BUDGET)}; leave out {', '.join(given)}."
                )

    @property
    def rounding(self) -> QuantizeOptions:
        """Options of the converter, with the number of slices that the method uses by default."""
        values = {name: getattr(self, name) for name in options_of(QuantizeOptions)}
        values["slices"] = default_slices(self.slices, self.method)
        return QuantizeOptions(**values)

    @property
    def needs_task(self) -> bool:
        """Whether an option is set that the converter alone does not have."""
        return any(name not in options_of(QuantizeOptions) for name in self.changed())


def default_slices(slices: int | None, method: str = "ptq") -> int:
    """Return the number of slices of a matrix into a memory, where it may not be given."""
    if slices is not None:
        return slices
    return 1 if method == "qat" else 2


@dataclass(frozen=True, kw_only=True)
class PopulationOptions(Options):
    """Options of spiking memories on every chip, which are all that Loihi has.

    :func:`converters.loihi.loihi_spike` documents them.

    Raises
    ------
    InputError
        If a value is not a choice or is out of range.
    """

    neurons_per_state: int = option(
        NEURONS_PER_STATE, "Number of neurons for each memory state", low=1, high=100_000
    )
    presentation_ms: float = option(
        PRESENTATION_MS,
        "Presentation time of each input; a multiple of the step",
        unit="milliseconds",
        aliases=("hold_ms",),
    )
    tau_ms: float | None = option(
        None, "Time constant of the synapses", unit="milliseconds", by_default="the profile's"
    )
    maximum_rates: tuple[float, float] | None = option(
        None,
        "Lowest and highest firing rate of a neuron at the end of its range",
        unit="hertz",
        by_default="the profile's",
        aliases=("max_rates",),
    )
    seed: int = option(0, "Seed of tuning curves and calibration", low=0, high=LARGEST_SEED)


@dataclass(frozen=True, kw_only=True)
class SpikeOptions(PopulationOptions):
    """Options of :func:`converters.spiking.spike`, which documents them.

    Raises
    ------
    InputError
        If a value is not a choice or is out of range.
    """

    dt_ms: float = option(
        DT_MS, "Step of the simulation", low=1e-3, high=100.0, unit="milliseconds"
    )
    neuron: str | None = option(
        None, "Neuron model", choices=NEURON_KINDS, by_default="the profile's"
    )
    synapse: str | None = option(
        None,
        "Synapse model; dpi is a pair of integrators per state",
        choices=SYNAPSES,
        by_default="linear",
    )
    mismatch: float | None = option(
        None,
        "Device mismatch: coefficient of variation of gains and biases",
        low=0.0,
        high=2.0,
        by_default="the profile's",
    )
    membrane_noise: float | None = option(
        None,
        "Standard deviation of the membrane noise, in thresholds",
        low=0.0,
        high=10.0,
        by_default="the profile's",
    )
    weight_bits: int | None = option(
        None,
        "Width of weights with their sign, or 0 for real numbers",
        low=0,
        high=24,
        unit="bits",
        by_default="the profile's",
    )
    fan_in: int | None = option(
        None,
        "Largest number of synapses onto a neuron, or 0 for no limit; the sparsest map that fits "
        "is used",
        low=0,
        high=1_000_000,
        by_default="the profile's",
    )
    threshold_noise: float = option(
        0.0, "Threshold noise, relative standard deviation", low=0.0, high=1.0
    )
    tau_mismatch: float = option(
        0.0, "Coefficient of variation of the membrane time constants", low=0.0, high=2.0
    )
    calibration: str = option("dynamic", "How decoders are calibrated", choices=CALIBRATIONS)
    units: str = option(
        "auto",
        "Place of the last layer's feed-forward units and of the readout; auto puts them on the "
        "chip if it can hold them, chip also those of the layers before",
        choices=UNITS,
    )
    neurons_per_unit: int = option(
        NEURONS_PER_UNIT, "Number of neurons for each hidden unit on the chip", low=1, high=100_000
    )
    readout_tau_ms: float | None = option(
        None,
        "Time constant of the synapses of a readout on the chip",
        unit="milliseconds",
        by_default="0.3 times the presentation time",
    )
    calibration_samples: int = option(
        CALIBRATION_SAMPLES, "Number of training samples for calibration", low=1, high=1_000_000
    )
    calibration_steps: int | None = option(
        None,
        "Number of steps of each of these samples",
        low=1,
        high=10**9,
        by_default="as many as fit in memory",
    )
    chip_seed: int | None = option(
        None,
        "Seed of the mismatch, which identifies the virtual chip",
        low=0,
        high=LARGEST_SEED,
        by_default="the seed",
    )
