"""Lower a float network to spiking neurons of one virtual chip, or judge it on many of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.loihi import loihi_spike_with
from converters.options import SpikeOptions
from converters.spiking import recipe, spike_with
from converters.spiking.device import VIRTUAL, RecordedDevice, SessionRecorder
from converters.spiking.lower import DeviceLike, device_for
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import check_output, save
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.progress import progress_bar
from lmu_deploy.core.spiking.graph import AnalogNetwork, OnLoihi
from lmu_deploy.hardware.profile import load_profile
from lmu_deploy.studies.chip_yield import ChipYield, yield_of_chips
from lmu_deploy.studies.life_record import Lifetime
from lmu_deploy.studies.lifetime import lifetime_of_chips
from lmu_deploy.tasks.base import Split
from lmu_deploy.tasks.dataset import TaskLike, part_as_task
from lmu_deploy.tasks.preflight import warn_of
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES, limited, task_for


def spike(
    network: Network | Path | str,
    data: TaskLike | Split | None = None,
    *,
    profile: str = "generic-analog",
    out: Path | str | None = None,
    save_calibration: Path | str | None = None,
    load_calibration: Path | str | None = None,
    device: DeviceLike | None = None,
    record_session: Path | str | None = None,
    neurons_per_state: int = 100,
    presentation_ms: float = 50.0,
    tau_ms: float | None = None,
    maximum_rates: tuple[float, float] | None = None,
    seed: int = 0,
    dt_ms: float = 1.0,
    neuron: str | None = None,
    synapse: str | None = None,
    mismatch: float | None = None,
    membrane_noise: float | None = None,
    weight_bits: int | None = None,
    fan_in: int | None = None,
    threshold_noise: float = 0.0,
    tau_mismatch: float = 0.0,
    calibration: str = "dynamic",
    units: str = "auto",
    neurons_per_unit: int = 20,
    readout_tau_ms: float | None = None,
    calibration_samples: int = 200,
    calibration_steps: int | None = None,
    chip_seed: int | None = None,
) -> AnalogNetwork | OnLoihi:
    """Lower a float network to populations of spiking neurons.

    Of a chain of layers the memories are on neurons, and where possible the last layer's units. Any
    other graph, and with ``units="chip"`` a chain of feed-forward layers, becomes a SpikingGraph or
    LoihiGraph, whose memories and activations are all on neurons.

    Parameters
    ----------
    network : Network or path
    data : Dataset, Task, Split, str or path, optional
        A dataset, the name of a task or an ``.npz`` file, whose training inputs give the ranges of
        the states, or one part of a dataset, whose inputs do. By default the task that the network
        was trained for.
    profile : str
        An analog chip, which gives a SpikingNetwork or a SpikingGraph, or a digital one with LIF
        neurons, which gives a LoihiNetwork or a LoihiGraph.
    out : path, optional
        The `.safetensors` file to write.
    save_calibration : path, optional
        File to write what was measured on the chip to, for `load_calibration`.
    load_calibration : path, optional
        File to read instead of measuring the chip; it must be of this network, chip and options.
    device : NeuronDevice, str or path, optional
        For an analog chip only: a device to calibrate in place of a virtual chip. An object, the
        name of a plug-in or ``"virtual"``, or an ``.npz`` file of a session.
    record_session : path, optional
        The ``.npz`` file to write what is driven and the spikes to, for `device`. Without a
        device, those of a virtual chip whose mismatch the file does not tell; such a chip also
        plays the runs that the file of a session lacks.
    neurons_per_state, presentation_ms, tau_ms, maximum_rates, seed
        As for :func:`converters.spiking.spike` or :func:`converters.loihi.loihi_spike`.
    dt_ms, neuron, synapse, mismatch, membrane_noise, weight_bits, fan_in, threshold_noise
        For an analog chip only: as for :func:`converters.spiking.spike`.
    tau_mismatch
        Likewise.
    calibration
        Likewise.
    units, neurons_per_unit, readout_tau_ms, calibration_samples, calibration_steps
        As for :func:`converters.spiking.spike` or :func:`converters.loihi.loihi_spike`.
    chip_seed
        Likewise.

    Raises
    ------
    InputError
        If a file, task, profile or option is wrong, the chip cannot hold the network, or the
        calibration is of something else.
    """
    options = SpikeOptions(
        neurons_per_state=neurons_per_state,
        presentation_ms=presentation_ms,
        tau_ms=tau_ms,
        maximum_rates=maximum_rates,
        seed=seed,
        dt_ms=dt_ms,
        neuron=neuron,
        synapse=synapse,
        mismatch=mismatch,
        membrane_noise=membrane_noise,
        weight_bits=weight_bits,
        fan_in=fan_in,
        threshold_noise=threshold_noise,
        tau_mismatch=tau_mismatch,
        calibration=calibration,
        units=units,
        neurons_per_unit=neurons_per_unit,
        readout_tau_ms=readout_tau_ms,
        calibration_samples=calibration_samples,
        calibration_steps=calibration_steps,
        chip_seed=chip_seed,
    )
    return spike_for_task(
        network,
        options,
        profile=profile,
        task=data,
        out=out,
        save_calibration=save_calibration,
        load_calibration=load_calibration,
        device=device,
        record_session=record_session,
    )


def spike_for_task(
    network: Network | Path | str,
    options: SpikeOptions,
    *,
    profile: str = "generic-analog",
    task: TaskLike | Split | None = None,
    out: Path | str | None = None,
    save_calibration: Path | str | None = None,
    load_calibration: Path | str | None = None,
    device: DeviceLike | None = None,
    record_session: Path | str | None = None,
    keep: recipe.Keep | None = None,
) -> AnalogNetwork | OnLoihi:
    """Lower a float network with options in one object; see :func:`spike`.

    `keep` keeps the calibrated ensembles of a graph, so that a calibration that was stopped goes
    on.
    """
    check_output(out, network)
    check_output(save_calibration, network)
    network = load_float(network, "spike")
    if load_calibration is not None and (device is not None or record_session is not None):
        raise InputError(
            "a loaded calibration needs no device, and records no session; leave out "
            "load_calibration, or device and record_session."
        )
    kept = None if load_calibration is None else recipe.load_calibration(load_calibration)
    chosen = task_for(network, part_as_task(task))
    warn_of(chosen, network)
    inputs = limited(chosen.load().train, CALIBRATION_SAMPLES).filled
    lowered: AnalogNetwork | OnLoihi
    if load_profile(profile).kind == "digital":
        files = {
            "save_calibration": save_calibration,
            "load_calibration": load_calibration,
            "device": device,
            "record_session": record_session,
        }
        if given := [name for name, file in files.items() if file is not None]:
            raise InputError(
                f"profile {profile} is a digital chip, for which {given[0]} has no meaning; leave "
                "it out, or choose an analog profile."
            )
        with progress_bar("spike", "steps") as progress:
            lowered = loihi_spike_with(network, inputs, profile, options, progress)
    else:
        board = device_for(
            VIRTUAL if device is None and record_session else device, profile, options
        )
        recorder = None if board is None or record_session is None else SessionRecorder(board)
        if recorder is not None and isinstance(board, RecordedDevice):
            board.then = device_for(VIRTUAL, profile, options)
        with progress_bar("spike", "steps") as progress:
            lowered = spike_with(
                network, inputs, profile, options, kept, progress, recorder or board, keep
            )
        if recorder is not None and record_session is not None:
            recorder.save(record_session)
        if save_calibration is not None:
            save(recipe.keep_calibration(lowered), save_calibration)
    if out is not None:
        save(lowered, out)
    return lowered


def chip_yield(
    network: Network | Path | str,
    data: TaskLike | None = None,
    *,
    profile: str = "generic-analog",
    chips: int = 100,
    first_chip: int = 0,
    limit: int | None = None,
    steps: int | None = None,
    out: Path | str | None = None,
    add: Sequence[Path | str] = (),
    scheduler: str | None = None,
    workers: int | None = None,
    neurons_per_state: int = 100,
    presentation_ms: float = 50.0,
    tau_ms: float | None = None,
    maximum_rates: tuple[float, float] | None = None,
    seed: int = 0,
    dt_ms: float = 1.0,
    neuron: str | None = None,
    synapse: str | None = None,
    mismatch: float | None = None,
    membrane_noise: float | None = None,
    weight_bits: int | None = None,
    fan_in: int | None = None,
    threshold_noise: float = 0.0,
    tau_mismatch: float = 0.0,
    units: str = "auto",
    neurons_per_unit: int = 20,
    readout_tau_ms: float | None = None,
    calibration_samples: int = 200,
    calibration_steps: int | None = None,
) -> ChipYield:
    """Judge a network on many virtual chips of a profile, before and after calibration.

    Chip c has the mismatch of chip seed c; tuning curves, calibration data and test data are the
    same for all. Before calibration a chip uses the decoders of an ideal one. The result of a chip
    does not depend on the others (apart from noise and Poisson neurons).

    Parameters
    ----------
    network : Network or path
    data : Dataset, Task, str or path, optional
        A dataset, the name of a task or an ``.npz`` file; by default the task that the network
        was trained for.
    profile : str
        Analog chip.
    chips, first_chip : int
        Number of chips, and the seed of the first.
    limit, steps : int, optional
        Number of test samples, and of steps of each (for a network that answers at every step).
    out : path, optional
        JSON file of the record, which is written after every 25 chips or fewer. Chips that it
        holds already are not run again, so that an interrupted study resumes.
    add : sequence of path
        Records of other parts of the same study; their chips are added to the result.
    scheduler : str, optional
        Address of a dask scheduler whose workers run the chips, in batches; by default this
        process runs them.
    workers : int, optional
        Number of processes of this machine that run the chips, instead of a scheduler.
    neurons_per_state, presentation_ms, tau_ms, maximum_rates, seed, dt_ms, neuron, synapse
        As for :func:`converters.spiking.spike`.
    mismatch, membrane_noise, weight_bits, fan_in, threshold_noise, tau_mismatch, units
        Likewise.
    neurons_per_unit
        Likewise.
    readout_tau_ms, calibration_samples, calibration_steps
        Likewise.

    Raises
    ------
    InputError
        If a file, name or value is wrong, a record is of another study, or a chip cannot hold the
        network.
    """
    options = SpikeOptions(
        neurons_per_state=neurons_per_state,
        presentation_ms=presentation_ms,
        tau_ms=tau_ms,
        maximum_rates=maximum_rates,
        seed=seed,
        dt_ms=dt_ms,
        neuron=neuron,
        synapse=synapse,
        mismatch=mismatch,
        membrane_noise=membrane_noise,
        weight_bits=weight_bits,
        fan_in=fan_in,
        threshold_noise=threshold_noise,
        tau_mismatch=tau_mismatch,
        units=units,
        neurons_per_unit=neurons_per_unit,
        readout_tau_ms=readout_tau_ms,
        calibration_samples=calibration_samples,
        calibration_steps=calibration_steps,
    )
    return yield_of_chips(
        network,
        options,
        profile=profile,
        task=data,
        chips=chips,
        first_chip=first_chip,
        limit=limit,
        steps=steps,
        out=out,
        add=add,
        scheduler=scheduler,
        workers=workers,
    )


def chip_lifetime(
    network: Network | Path | str,
    data: TaskLike | None = None,
    *,
    ages: Sequence[str] = ("1d", "30d", "365d"),
    temperatures: Sequence[float] | None = None,
    recalibrate: str = "never",
    recalibration: str = "full",
    keep: float = 2.0,
    search: bool = True,
    profile: str = "generic-analog",
    chips: int = 20,
    first_chip: int = 0,
    limit: int | None = None,
    out: Path | str | None = None,
    plot: Path | str | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    **options: Any,
) -> Lifetime:
    """Judge a network on virtual chips that drift, warm up and lose neurons.

    Each chip is calibrated when it is new, at the reference temperature of the profile, and again
    by a schedule. Hidden units and readout are on the host.

    Parameters
    ----------
    network : Network or path
    data : Dataset, Task, str or path, optional
        By default the task that the network was trained for.
    ages : sequence of str
        Ages at which the chips are judged, such as ``"30d"``, ``"2w"`` or ``"1y"``.
    temperatures : sequence of float, optional
        Temperatures at which they are judged, degrees Celsius; by default the reference.
    recalibrate : str
        "never", a time such as "30d", or "on-error": when the result on training data at the
        reference temperature has become worse by more than `keep`, looked at at every age.
    recalibration : {"full", "readout"}
        "readout" fits only the host's readout, from ordinary operation.
    keep : float
        What a chip may lose: points of accuracy, or percent of an NRMSE.
    search : bool
        Find the longest interval of full calibrations with which 95 % of the chips keep that.
    profile : str
        An analog chip whose profile has a section `drift`.
    chips, first_chip : int
        Number of chips, and the seed of the first.
    limit : int, optional
        Number of test samples.
    out, plot : path, optional
        JSON file of the results, which is written after every batch of chips and from which an
        interrupted study resumes, and SVG file of the curves.
    scheduler, workers : str, int, optional
        As for :func:`chip_yield`.
    **options
        As for :func:`chip_yield`, such as `neurons_per_state`.

    Raises
    ------
    InputError
        If a file, name or value is wrong, the profile has no figures of drift, or a chip cannot
        hold the network.
    """
    return lifetime_of_chips(
        network,
        SpikeOptions.build(options),
        ages=ages,
        temperatures=temperatures,
        recalibrate=recalibrate,
        recalibration=recalibration,
        keep=keep,
        search=search,
        profile=profile,
        task=data,
        chips=chips,
        first_chip=first_chip,
        limit=limit,
        out=out,
        plot=plot,
        scheduler=scheduler,
        workers=workers,
    )
