"""The cases of the golden test: what is computed, from which network, with which libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import adapter
import networks
import numpy as np
from exported import nir_parts, onnx_parts
from networks import EXAMPLES, SMALL, calibration, inputs, network

Results = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One thing that is computed.

    Attributes
    ----------
    compute : callable
        From a folder for its files to results by name.
    needs : tuple of str
        Modules without which it is left out.
    slow : bool
        Whether it runs only when all cases are asked for.
    """

    compute: Callable[[Path], Results]
    needs: tuple[str, ...] = ()
    slow: bool = False


CASES: dict[str, Case] = {}


def add(name: str, compute: Callable[[Path], Results], *needs: str, slow: bool = False) -> None:
    """Register a case."""
    assert name not in CASES
    CASES[name] = Case(compute, needs, slow)


def run_parts(target: str, made: Any, given: np.ndarray, **setup: Any) -> Results:
    """Run a network and give what came of it."""
    return adapter.run(target, made, given, **setup)


# Mathematics, tasks and the float reference


def _legendre(folder: Path) -> Results:
    found: Results = {}
    for order, theta, method in product((1, 6, 33), (40.0, 2500.5), ("zoh", "bilinear", "euler")):
        if order == 33 and theta == 40.0 and method == "euler":
            continue  # it diverges
        found[f"{order} {theta:g} {method}"] = list(adapter.legendre(order, theta, method))
    return found


add("legendre", _legendre)


def _task(name: str, samples: int | None = None) -> Callable[[Path], Results]:
    def compute(folder: Path) -> Results:
        parts = adapter.task_parts(name)
        return {str(k): [x[:samples], y[:samples]] for k, (x, y) in enumerate(parts)}

    return compute


for task in ("digits", "psdigits"):
    add(f"task/{task}", _task(task), "sklearn")
for task in ("mackey-glass", "delay", "capacity", "copy"):
    add(f"task/{task}", _task(task, 32))
add("task/psmnist-nru", _task("psmnist-nru", 100), "pooch", slow=True)


def _of(name: str) -> tuple[str, ...]:
    """Return the libraries that a network's inputs need."""
    return ("sklearn",) if name == "digits" else ()


def _reference(name: str) -> Callable[[Path], Results]:
    return lambda folder: run_parts("reference", network(name), inputs(name))


for name in (*EXAMPLES, *SMALL):
    add(f"reference/{name}", _reference(name), *_of(name))


# Integer networks

OPTIONS: dict[str, dict[str, Any]] = {
    "dense 1": {"slices": 1},
    "dense 2": {},
    "dense 3": {"slices": 3},
    "schur 1": {"realization": "schur", "slices": 1},
    "schur 2": {"realization": "schur"},
    "hessenberg 1": {"realization": "hessenberg", "slices": 1},
    "hessenberg 2": {"realization": "hessenberg"},
    "fir": {"realization": "fir"},
    "fir of 6 taps": {"realization": "fir", "taps": 6},
    "sign-taylor": {"realization": "sign-taylor"},
    "auto": {"realization": "auto"},
    "percentile": {"calibration_method": "percentile", "kernel_slices": 3},
    "least squares": {"calibration_method": "mse", "scales": "free"},
    "narrow": {"message_bits": 6, "hidden_bits": 5, "input_bits": 4, "kernel_bits": 4},
    "refit": {"slices": 2, "refit": True},
    "no refit": {"slices": 1, "refit": False, "scales": "power-of-two"},
    "sigma-delta 0": {"fraction": 0.0},
    "sigma-delta": {"fraction": 0.05},
    "sigma-delta of a series": {"realization": "sign-taylor", "fraction": 0.1},
}
_SOME = ("dense 1", "dense 2", "schur 2", "hessenberg 2")
FORMS: dict[str, tuple[str, ...]] = {
    "digits": tuple(o for o in OPTIONS if not o.startswith("fir")),
    "psmnist-lmu": (*_SOME, "sigma-delta"),
    "psmnist-parallel": ("dense 1", "dense 2", "schur 2", "fir of 6 taps"),
    "mackey-glass-lmu": (*_SOME, "sign-taylor"),
    "mackey-glass-hybrid": (*_SOME, "sign-taylor"),
    "feedback": tuple(o for o in OPTIONS if not o.startswith("fir") and o != "narrow"),
    "stacked": (*_SOME, "dense 3", "hessenberg 1", "auto", "sigma-delta"),
    "memory": ("dense 1", "dense 2", "sign-taylor", "fir", "auto"),
    "window": (*_SOME, "fir", "fir of 6 taps", "sign-taylor", "auto", "sigma-delta"),
    "mixed": ("dense 1", "dense 2", "sigma-delta"),
    "host-readout": ("dense 2", "schur 2", "sign-taylor"),
}


@cache
def integer(name: str, form: str) -> Any:
    """Return a network in integers."""
    return adapter.quantize(network(name), calibration(name), **OPTIONS[form])


def _integer(name: str) -> Callable[[Path], Results]:
    def compute(folder: Path) -> Results:
        found: Results = {}
        for form in FORMS[name]:
            found[f"{form}: network"] = integer(name, form)
            for part, value in run_parts(
                "integer", integer(name, form), inputs(name), engine="numpy"
            ).items():
                if part not in ("real m", "neurons", "rasters"):
                    found[f"{form}: {part}"] = value
        return found

    return compute


for name in FORMS:
    add(f"integer/{name}", _integer(name), *_of(name))


def _long_series(folder: Path) -> Results:
    made = adapter.quantize(
        network("psmnist-lmu"), calibration("psmnist-lmu"), realization="sign-taylor"
    )
    return {"network": made, **run_parts("integer", made, inputs("psmnist-lmu"), engine="numpy")}


add("integer/psmnist-lmu, sign-taylor", _long_series, slow=True)


def _engine(engine: str) -> Callable[[Path], Results]:
    """Run an engine on networks with each kind of memory; give what it answers and counts."""
    wanted = (
        ("digits", "dense 2"),
        ("mackey-glass-hybrid", "dense 2"),
        ("feedback", "sigma-delta"),
        ("feedback", "sign-taylor"),
        ("window", "fir"),
        ("stacked", "schur 2"),
    )

    def compute(folder: Path) -> Results:
        found: Results = {}
        for name, form in wanted:
            done = run_parts("integer", integer(name, form), inputs(name), engine=engine)
            for part in ("outputs", "m", "h", "y", "events", "counts", "saturations"):
                found[f"{name}, {form}: {part}"] = done[part]
        return found

    return compute


add("engine/torch", _engine("torch"), "sklearn", "torch")
add("engine/numba", _engine("numba"), "sklearn", "torch", "numba")
add("engine/auto", _engine("auto"), "sklearn")


def _stream(folder: Path) -> Results:
    pairs = (
        ("stacked", "dense 2"),
        ("mixed", "dense 2"),
        ("feedback", "sigma-delta"),
        ("window", "sign-taylor"),
    )
    return {
        f"{name}, {form}": adapter.stream(integer(name, form), inputs(name)) for name, form in pairs
    }


add("stream", _stream)


def _command(folder: Path) -> Results:
    """Quantize as the command does: thresholds for a loss, widths for a budget."""
    choices: dict[str, dict[str, Any]] = {
        "plain": {},
        "threshold": {"sparsity_threshold": 0.02},
        "loss": {"sparsity_loss": 0.01},
        "budget": {"budget_kib": 4.0},
    }
    return {
        name: adapter.quantize_for_task(network("digits"), **options)
        for name, options in choices.items()
    }


add("command/quantize", _command, "sklearn")


def _chips(folder: Path) -> Results:
    pairs = product(("digits", "window", "psmnist-parallel"), ("loihi2", "loihi1"))
    return {
        f"{name} on {chip}": np.array(adapter.violations(integer(name, "dense 2"), chip))
        for name, chip in pairs
    }


add("command/check", _chips, "sklearn")


# ONNX Runtime and exports

_ONNX = ("onnx", "onnxruntime")


def _onnxruntime(name: str) -> Callable[[Path], Results]:
    def compute(folder: Path) -> Results:
        found = {
            f"float: {part}": value
            for part, value in run_parts("onnxruntime", network(name), inputs(name)).items()
            if part in ("outputs", "m", "h", "y")
        }
        for form in FORMS[name]:
            if form in ("dense 2", "sign-taylor", "fir of 6 taps", "sigma-delta"):
                done = run_parts("onnxruntime", integer(name, form), inputs(name))
                parts = ("outputs", "m", "h", "y", "events", "counts", "saturations")
                found |= {f"{form}: {part}": done[part] for part in parts}
        return found

    return compute


def _export(name: str) -> Callable[[Path], Results]:
    def compute(folder: Path) -> Results:
        found: Results = {}

        def written(made: Any, file_form: str, label: str) -> None:
            path = folder / f"{label.replace(' ', '-')}.onnx"
            adapter.export(made, file_form, path)
            found.update({f"{label}: {k}": v for k, v in onnx_parts(path).items()})
            if file_form == "onnx":
                found[f"{label}: imported"] = adapter.import_foreign(path)

        for file_form in ("onnx", "onnx-step"):
            written(network(name), file_form, file_form)
        for form in FORMS[name]:
            if form in ("dense 2", "fir of 6 taps", "sign-taylor", "sigma-delta"):
                for file_form in ("onnx-int", "onnx-int-step"):
                    written(integer(name, form), file_form, f"{file_form} {form}")
            if form == "dense 2":
                written(integer(name, form), "onnx-qdq", f"onnx-qdq {form}")
        return found

    return compute


def _nir(name: str) -> Callable[[Path], Results]:
    def compute(folder: Path) -> Results:
        found: Results = {}
        for label, options in (("euler", {}), ("exponential", {"integrator": "exponential"})):
            path = folder / f"{label}.nir"
            adapter.export(network(name), "nir", path, **options)
            found |= {f"{label}: {part}": value for part, value in nir_parts(path).items()}
        found["imported"] = adapter.import_foreign(folder / "euler.nir")
        return found

    return compute


for name in (*EXAMPLES, *SMALL):
    add(f"onnxruntime/{name}", _onnxruntime(name), *_ONNX, *_of(name))
    add(f"onnx/{name}", _export(name), "onnx", *_of(name))
for name in ("digits", "mackey-glass-hybrid", "psmnist-lmu", "memory", "stacked", "window"):
    add(f"nir/{name}", _nir(name), "nir", "h5py", *_of(name))


# Spiking networks on analog chips

_SPIKING: dict[str, tuple[str, dict[str, Any]]] = {
    "lif": ("window", {"units": "host"}),
    "lif with units": ("window", {"units": "chip", "neurons_per_unit": 20}),
    "lif with feedback": ("feedback", {"seed": 3, "chip_seed": 8}),
    "dpi": ("window", {"neuron": "dpi", "synapse": "dpi"}),
    "if": ("stacked", {"neuron": "if", "tau_ms": 50.0}),
    "poisson": ("memory", {"neuron": "poisson"}),
    "static": ("window", {"calibration": "static"}),
    "uncalibrated": ("window", {"calibration": "none"}),
    "noisy": (
        "memory",
        {
            "neuron": "lif",
            "membrane_noise": 0.05,
            "threshold_noise": 0.02,
            "tau_mismatch": 0.1,
            "mismatch": 0.3,
            "weight_bits": 5,
        },
    ),
    "mixed": ("mixed", {"maximum_rates": (100.0, 150.0)}),
    "coarse": ("window", {"dt_ms": 2.0, "tau_ms": 60.0, "units": "host"}),
}


@cache
def spiking(form: str) -> Any:
    """Return a network on few neurons of an analog chip."""
    name, options = _SPIKING[form]
    return adapter.spike(network(name), calibration(name), neurons_per_state=20, **options)


def _spiking_network(form: str) -> Callable[[Path], Results]:
    def compute(folder: Path) -> Results:
        made = spiking(form)
        return {"network": made, "calibration map": adapter.calibration_map(made)}

    return compute


for form in _SPIKING:
    add(f"spiking/{form}", _spiking_network(form), slow=form in ("mixed", "noisy"))


def _brian2(form: str, target: str = "brian2") -> Callable[[Path], Results]:
    name, _ = _SPIKING[form]
    return lambda folder: run_parts(target, spiking(form), inputs(name)[:2, :6])


for form in ("lif", "lif with units", "dpi"):
    add(f"brian2/{form}", _brian2(form), "brian2")
for form in ("lif with feedback", "if", "poisson", "noisy", "mixed"):
    add(f"brian2/{form}", _brian2(form), "brian2", slow=True)
add("brian2-cpp/lif", _brian2("lif", "brian2-cpp"), "brian2", slow=True)


def _spiking_nir(folder: Path) -> Results:
    path = adapter.export(spiking("coarse"), "nir", folder / "spiking.nir")
    return {**nir_parts(path), "imported": adapter.read_spiking_nir(path)}


add("nir/spiking", _spiking_nir, "nir", "h5py")


# Spiking networks in fixed point

_LOIHI: dict[str, tuple[str, dict[str, Any]]] = {
    "window": ("window", {}),
    "feedback": ("feedback", {"seed": 2}),
    "mixed": ("mixed", {"maximum_rates": (100.0, 200.0)}),
}


@cache
def loihi(form: str) -> Any:
    """Return a network on neurons in fixed point, with short presentations."""
    name, options = _LOIHI[form]
    return adapter.spike_loihi(
        network(name),
        calibration(name),
        neurons_per_state=40,
        presentation_ms=10.0,
        tau_ms=20.0,
        **options,
    )


def _fixed_point(form: str) -> Callable[[Path], Results]:
    def compute(folder: Path) -> Results:
        name, _ = _LOIHI[form]
        return {"network": loihi(form), **run_parts("spiking", loihi(form), inputs(name))}

    return compute


for form in _LOIHI:
    add(f"fixed-point/{form}", _fixed_point(form))


# Lava, which takes a second or two to start


def _lava(name: str, form: str) -> Callable[[Path], Results]:
    return lambda folder: run_parts("lava", integer(name, form), inputs(name)[:2, :6])


for name, form in (
    ("feedback", "sigma-delta"),
    ("window", "sign-taylor"),
    ("mixed", "dense 2"),
):
    add(f"lava/{name}, {form}", _lava(name, form), "lava", slow=name != "feedback")
add(
    "lava-lif/window",
    lambda folder: run_parts("lava-lif", loihi("window"), inputs("window")[:1, :4]),
    "lava",
)


# Files


def _reloaded(folder: Path) -> Results:
    made = {
        "float": network("mixed"),
        "integer": integer("mixed", "dense 2"),
        "series": integer("feedback", "sigma-delta of a series"),
        "spiking": spiking("lif with units"),
        "fixed point": loihi("feedback"),
    }
    return {
        name: adapter.save(value, folder / f"{name}.safetensors") for name, value in made.items()
    }


add("files", _reloaded)


_OFTEN = (
    "keras2-stack.h5",
    "keras2-feedback.weights.h5",
    "keras3-feedback.keras",
    "keras3-stack.weights.h5",
)
"""Files that are imported in every run; each takes a process."""


def _keras(often: bool) -> Callable[[Path], Results]:
    return lambda folder: _imported(
        path
        for path in sorted(adapter.FIXTURES.iterdir())
        if path.suffix in (".keras", ".h5")
        and "gru" not in path.name
        and (path.name in _OFTEN) == often
    )


def _imported(paths: Iterable[Path]) -> Results:
    found: Results = {}
    for path in paths:
        architecture = None
        if path.name.endswith("weights.h5"):
            stem = path.name.split(".")[0].removesuffix("-weights")
            architecture = adapter.FIXTURES / f"{stem}.json"
        found[path.name] = adapter.import_foreign(path, architecture, matrices="exact")
    return found


add("import/keras-lmu", _keras(often=True), "h5py")
add("import/keras-lmu, the other files", _keras(often=False), "h5py", slow=True)


def _keras_options(folder: Path) -> Results:
    options = {
        "memory_d": "2",
        "order": "4",
        "theta": "6.5",
        "units": "5",
        "hidden_to_memory": "true",
        "memory_to_memory": "true",
        "input_to_hidden": "true",
        "use_bias": "true",
        "matrices": "exact",
    }
    bare = adapter.FIXTURES / "keras3-feedback.weights.h5"
    return {"network": adapter.import_foreign(bare, **options)}


add("import/keras-lmu by options", _keras_options, "h5py")


def _keras_matrices(folder: Path) -> Results:
    return {
        f"{order} {theta:g}": list(adapter.matrices_of_keras(order, theta, 48))
        for order, theta in ((4, 6.5), (64, 300.0))
    }


add("import/matrices of keras", _keras_matrices)


def _paper(folder: Path) -> Results:
    """Import a file as the paper's package writes it."""
    import h5py

    rng = np.random.default_rng(77)
    a_bar, b_bar = adapter.legendre(6, 14.0, "zoh")
    arrays = {
        name: rng.uniform(-0.7, 0.7, shape).astype(np.float32)
        for name, shape in {
            "input_encoders": (2, 1),
            "hidden_encoders": (5, 1),
            "memory_encoders": (6, 1),
            "input_kernel": (2, 5),
            "hidden_kernel": (5, 5),
            "memory_kernel": (6, 5),
            "kernel": (5, 3),
            "bias": (3,),
        }.items()
    }
    arrays |= {"AT": (a_bar - np.eye(6)).T.astype("f4"), "BT": b_bar[None].astype("f4")}
    path = folder / "paper.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"rnn", b"dense"]
        file.create_group("rnn").attrs["weight_names"] = [b"x"]
        for name, array in arrays.items():
            group = "dense/dense" if name in ("kernel", "bias") else "rnn/lmu_cell"
            file[f"{group}/{name}:0"] = array
    return {"network": adapter.import_foreign(path)}


add("import/paper-lmu", _paper, "h5py")


# PyTorch


def _torch_answers(folder: Path) -> Results:
    return {
        name: adapter.torch_answers(network(name), inputs(name)) for name in (*EXAMPLES, *SMALL)
    }


add("torch/networks", _torch_answers, "torch", "sklearn")
add(
    "torch/layers",
    lambda folder: adapter.torch_layers(folder, networks.smooth(3, 20, 2, seed=4)),
    "torch",
)


def _training(folder: Path) -> Results:
    """Train two epochs on few digits, and continue with every weight rounded."""
    config = folder / "config.toml"
    config.write_text("epochs = 2\nsamples = 40\nbatch_size = 20\n", encoding="utf-8")
    return {
        "network": adapter.trained("digits", config),
        "rounded": adapter.quantize_for_task(
            network("digits"), method="qat", config=config, device="cpu"
        ),
    }


add("torch/training", _training, "torch", "lightning", "sklearn", slow=True)


# Judgement


@cache
def _answers(name: str, part: str) -> np.ndarray:
    """Return right answers that the float network gets wrong now and then."""
    given = calibration(name) if part == "train" else inputs(name)
    right = adapter.run("reference", network(name), given)["outputs"]
    rng = np.random.default_rng([5, *name.encode()])
    right = right + rng.uniform(-0.1, 0.1, right.shape)
    return right.argmax(axis=1) if right.ndim == 2 else right.astype(np.float32)


def _data(name: str, folder: Path) -> Path:
    """Write a task of a network's own, with the answers of the network itself."""
    path = folder / f"{name}.npz"
    arrays = {f"x_{part}": given for part, given in (("train", calibration), ("test", inputs))}
    np.savez(
        path,
        **{key: given(name) for key, given in arrays.items()},
        **{f"y_{part}": _answers(name, part) for part in ("train", "test")},
    )
    return path


def _numbers(values: list[float]) -> np.ndarray:
    return np.sort(np.array(values, np.float64))


def _validate(name: str, targets: str) -> Callable[[Path], Results]:
    def compute(folder: Path) -> Results:
        numbers = adapter.validate(
            network(name),
            targets,
            folder / "report",
            task=str(_data(name, folder)),
            attribution=2,
        )
        return {"fidelity": _numbers(numbers)}

    return compute


def _validate_digits(folder: Path) -> Results:
    numbers = adapter.validate(
        network("digits"),
        "integer,onnxruntime,onnxruntime/integer",
        folder / "report",
        limit=16,
        attribution=8,
    )
    return {"fidelity": _numbers(numbers)}


def _validate_spiking(folder: Path) -> Results:
    made = adapter.save(spiking("lif"), folder / "given.safetensors")
    assert made is not None
    numbers = adapter.validate(
        network("window"),
        "integer,brian2,spiking",
        folder / "report",
        use=(folder / "given.safetensors",),
        task=str(_data("window", folder)),
        attribution=2,
    )
    return {"fidelity": _numbers(numbers)}


add("fidelity/digits", _validate_digits, "sklearn", *_ONNX)
add("fidelity/stacked", _validate("stacked", "integer,onnxruntime"), *_ONNX)
add("fidelity/mixed", _validate("mixed", "integer"))
add("fidelity/spiking", _validate_spiking, "brian2")


def _attribution(folder: Path) -> Results:
    found: Results = {}
    for name, form in (
        ("window", "dense 1"),
        ("feedback", "sign-taylor"),
        ("stacked", "schur 2"),
        ("mixed", "sigma-delta"),
    ):
        numbers = adapter.attribution(
            integer(name, form), inputs(name), _answers(name, "test"), _data(name, folder)
        )
        found[f"{name}, {form}"] = np.array(numbers)
    return found


def _spiking_attribution(form: str) -> Callable[[Path], Results]:
    def compute(folder: Path) -> Results:
        name, _ = _SPIKING[form]
        numbers = adapter.attribution(
            spiking(form), inputs(name), _answers(name, "test"), _data(name, folder)
        )
        return {"errors": np.array(numbers)}

    return compute


add("attribution/integer", _attribution)
add("attribution/lif with units", _spiking_attribution("lif with units"))
add("attribution/mixed", _spiking_attribution("mixed"), slow=True)
add(
    "deploy/digits",
    lambda folder: {"summary": _numbers(adapter.deploy(network("digits"), "onnxruntime", limit=6))},
    "sklearn",
    *_ONNX,
)


def _chip_yield(folder: Path) -> Results:
    numbers = adapter.chip_yield(
        network("window"),
        folder / "yield.json",
        task=str(_data("window", folder)),
        chips=2,
        neurons_per_state=20,
    )
    return {"record": _numbers(numbers)}


add("chip yield", _chip_yield, "brian2", slow=True)
