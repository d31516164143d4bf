"""Compare imported networks with keras-lmu on random configurations.

    PEERS/bin/python benchmarks/keras_oracle.py keras FOLDER    (with keras-lmu and TensorFlow)
    python benchmarks/keras_oracle.py ours FOLDER               (with lmu_deploy)

The first draws random configurations and weights, and saves each model with the outputs of Keras;
the second imports each file, builds the torch model from it, and compares. Exit code 1 when an
output differs by more than 1e-5. PEERS is the environment of `peers-requirements.txt`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import results

CONFIGURATIONS = 50
TOLERANCE = 1e-5
SAMPLES = 4
COLUMNS = [
    ("#", "{:d}"),
    ("layer", "{}"),
    ("d", "{:d}"),
    ("order", "{:d}"),
    ("theta", "{:.4g}"),
    ("hidden", "{}"),
    ("feedback", "{}"),
    ("torch", "{:.1e}"),
    ("reference", "{:.1e}"),
    ("output", "{:.2g}"),
]


def draw(rng: np.random.Generator) -> dict[str, Any]:
    """Draw the options of one network at random."""
    hidden = str(rng.choice(["SimpleRNNCell", "Dense", "none"], p=[0.5, 0.35, 0.15]))
    order = int(rng.choice([1, 2, 3, 5, 8, 16, 32]))
    discretizer = str(rng.choice(["zoh", "euler"], p=[0.75, 0.25]))
    theta = float(np.round(rng.uniform(2, 60), 2))
    if discretizer == "euler":  # keras-lmu recommends more than 4 * order
        theta += 8.0 * order
    return {
        "n_in": int(rng.integers(1, 5)),
        "steps": int(rng.integers(5, 60)),
        "memory_d": int(rng.integers(1, 4)),
        "order": order,
        "theta": theta,
        "discretizer": discretizer,
        "hidden": hidden,
        "units": int(rng.integers(1, 20)),
        "activation": str(rng.choice(["tanh", "relu", "linear"])),
        "hidden_bias": bool(rng.random() < 0.7),
        "use_bias": bool(rng.random() < 0.5),
        "hidden_to_memory": bool(rng.random() < 0.5) and hidden != "none",
        "memory_to_memory": bool(rng.random() < 0.5),
        "input_to_hidden": bool(rng.random() < 0.5) and hidden != "none",
        "trainable_theta": bool(rng.random() < 0.3),
        "return_sequences": bool(rng.random() < 0.5),
        "form": str(rng.choice(["LMU", "RNN", "LMUFeedforward"], p=[0.6, 0.2, 0.2])),
        "readout_bias": bool(rng.random() < 0.7),
        "n_out": int(rng.integers(1, 6)),
        "file": str(rng.choice([".keras", ".h5"])),
    }


def run_keras(folder: Path, count: int) -> None:
    """Build `count` models of keras-lmu with random weights; save and run them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    import keras
    import keras_lmu
    import tensorflow as tf

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        options = draw(rng)
        model = _keras_model(options)
        for weight in model.weights:
            value = np.asarray(weight)
            if value.dtype.kind != "f":
                continue
            sample = 0.95 * value
            if value.ndim:
                sample = rng.normal(0, 0.5 / np.sqrt(value.shape[0]), value.shape)
            weight.assign(sample.astype(np.float32))
        inputs = rng.normal(size=(SAMPLES, options["steps"], options["n_in"])).astype(np.float32)
        model.save(folder / f"{number}{options['file']}")
        outputs = np.asarray(model(inputs, training=False))
        np.savez(folder / f"{number}.npz", inputs=inputs, outputs=outputs)
        (folder / f"{number}.json").write_text(json.dumps(options))
    versions = {"keras": keras.__version__, "keras-lmu": keras_lmu.__version__}
    (folder / "versions.json").write_text(json.dumps({**versions, "tensorflow": tf.__version__}))


def _keras_model(options: dict[str, Any]) -> Any:
    import keras
    from keras import layers
    from keras_lmu import LMU, LMUCell, LMUFeedforward

    cell = None
    if options["hidden"] != "none":
        make_cell = getattr(layers, options["hidden"])
        cell = make_cell(
            options["units"], activation=options["activation"], use_bias=options["hidden_bias"]
        )
    shared = ["memory_d", "order", "theta", "discretizer", "input_to_hidden", "use_bias"]
    feedback = ["hidden_to_memory", "memory_to_memory", "trainable_theta"]
    chosen = {name: options[name] for name in shared}
    sequences = {"return_sequences": options["return_sequences"]}
    if options["form"] == "LMUFeedforward":
        layer = LMUFeedforward(hidden_cell=cell, **chosen, **sequences)
    else:
        chosen |= {name: options[name] for name in feedback}
        if options["form"] == "LMU":
            layer = LMU(hidden_cell=cell, **chosen, **sequences)
        else:
            layer = layers.RNN(LMUCell(hidden_cell=cell, **chosen), **sequences)
    inputs = keras.Input((options["steps"], options["n_in"]))
    readout = layers.Dense(options["n_out"], use_bias=options["readout_bias"])
    return keras.Model(inputs, readout(layer(inputs)))


def run_ours(chosen: argparse.Namespace) -> int:
    """Import every model, run it in torch and in the reference; print a table."""
    import torch

    from converters.importers import import_file
    from lmu_deploy.core.reference import run_reference
    from lmu_deploy.nn.convert import to_torch

    folder, matrices = chosen.folder, chosen.matrices
    print(json.loads((folder / "versions.json").read_text()) | {"torch": torch.__version__})
    rows, worst = [], 0.0
    files = sorted(folder.glob("*.npz"), key=lambda path: int(path.stem))
    for path in files:
        options = json.loads(path.with_suffix(".json").read_text())
        with np.load(path) as arrays:
            inputs, outputs = arrays["inputs"], arrays["outputs"]
        network = import_file(path.with_suffix(options["file"]), options={"matrices": matrices})
        with torch.no_grad():
            found = to_torch(network)(torch.tensor(inputs)).numpy()
        in_torch = float(np.abs(found - outputs).max())
        reference = run_reference(network, inputs.astype(np.float64)).outputs
        exactly = float(np.abs(reference - outputs).max())
        worst = max(worst, in_torch, exactly)
        arrows = [n for n in ("hidden_to_memory", "memory_to_memory") if options[n]]
        feedback = ", ".join(arrows) if options["form"] != "LMUFeedforward" else ""
        row = [int(path.stem), f"{options['form']} {options['discretizer']}", options["memory_d"]]
        row += [options["order"], network.nodes[0].operator.memory.theta, options["hidden"]]
        row += [feedback or "-", in_torch, exactly, float(np.abs(outputs).max())]
        rows.append(row)
    results.publish(COLUMNS, rows, chosen)
    print(f"\n{len(files)} configurations; largest difference {worst:.1e}, allowed {TOLERANCE:.0e}")
    return 0 if files and worst <= TOLERANCE else 1


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["keras", "ours"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=CONFIGURATIONS)
    parser.add_argument("--matrices", default="keras", help="of `ours`, as for imports")
    results.add_options(parser)
    chosen = parser.parse_args()
    if chosen.side == "ours":
        return run_ours(chosen)
    run_keras(chosen.folder, chosen.count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
