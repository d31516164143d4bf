"""A psMNIST network that keras-lmu trained, through the whole chain.

    python benchmarks/keras_psmnist.py data FOLDER                 with lmu_deploy: the arrays
    PEERS/bin/python benchmarks/keras_psmnist.py train FOLDER      with keras-lmu 0.9, Keras 3
    PEERS2/bin/python benchmarks/keras_psmnist.py convert FOLDER   with keras-lmu 0.7, Keras 2.15
    PEERS/bin/python examples/save_keras_matrices.py FOLDER/whole.keras FOLDER/matrices.npz
    python benchmarks/keras_psmnist.py chain FOLDER                with lmu_deploy

The network has the settings of the psMNIST example in keras-lmu's documentation: one channel of
order 256 over 784 steps without feedback, an input encoder of ones, 212 recurrent tanh units that
also see the pixel, ten logits; Adam, batches of 100, the best validation kept. `train` saves it in
every form that Keras 3 writes, `convert` in those of Keras 2, and both write the logits that Keras
gives. `import` imports each file with `matrices=keras`, one of them also with other matrices, and
compares logits and accuracy; `deploy` takes the import with `matrices=keras` through quantize,
check and deploy on integer, onnxruntime and lava; `chain` does both. Exit code 1 where an accuracy
differs, or with `matrices=keras` logits by more than 1e-5 of the largest (keras-lmu stores the
memory's matrices in no file and computes them in float32 whenever a model is loaded).
PEERS and PEERS2 are the environments of peers-requirements.txt and peers-keras2-requirements.txt.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

STEPS, ORDER, UNITS, CLASSES = 784, 256, 212, 10
BATCH = 100
TOLERANCE = 1e-5
FORMS = (
    "whole.keras",
    "whole.h5",
    "bare.weights.h5",
    "whole2.keras",
    "whole2.h5",
    "whole2.hdf5",
    "bare2.weights.h5",
)


def write_data(folder: Path) -> None:
    """Write the arrays of the task `psmnist`, whose permutation is that of keras-lmu's example."""
    from lmu_deploy.tasks.base import get_task

    folder.mkdir(parents=True, exist_ok=True)
    data = get_task("psmnist").load()
    arrays = {}
    for name in ("train", "validation", "test"):
        part = getattr(data, name)
        arrays[f"{name}_x"] = part.inputs.astype(np.float32)
        arrays[f"{name}_y"] = part.targets.astype(np.int64)
    np.savez(folder / "data.npz", **arrays)
    print(folder / "data.npz")


def keras_model() -> Any:
    """Build the network of keras-lmu's psMNIST example, by its published settings."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    import keras_lmu
    import tensorflow as tf

    keras = tf.keras
    layer = keras_lmu.LMU(
        memory_d=1,
        order=ORDER,
        theta=STEPS,
        hidden_cell=keras.layers.SimpleRNNCell(units=UNITS),
        hidden_to_memory=False,
        memory_to_memory=False,
        input_to_hidden=True,
        kernel_initializer="ones",
    )
    inputs = keras.Input((STEPS, 1))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(layer(inputs)))
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer="adam",
        metrics=["accuracy"],
    )
    return model


def train(folder: Path, epochs: int, seed: int, threads: int) -> None:
    """Train with Keras, keep the best validation, and save every form of Keras 3."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.keras.utils.set_random_seed(seed)
    data = np.load(folder / "data.npz")
    model = keras_model()
    best = str(folder / "best.weights.h5")
    model.fit(
        data["train_x"],
        data["train_y"],
        epochs=epochs,
        batch_size=BATCH,
        validation_data=(data["validation_x"], data["validation_y"]),
        callbacks=[
            tf.keras.callbacks.ModelCheckpoint(
                best, monitor="val_accuracy", save_best_only=True, save_weights_only=True
            )
        ],
        verbose=2,
    )
    model.load_weights(best)
    save_forms(model, folder)
    answer(model, data, folder / "logits.npy")


def save_forms(model: Any, folder: Path) -> None:
    """Save every form that Keras 3 writes, and the bare arrays for Keras 2."""
    np.savez(folder / "weights.npz", *model.get_weights())
    model.save(folder / "whole.keras")
    model.save(folder / "whole.h5")
    model.save_weights(folder / "bare.weights.h5")
    (folder / "architecture.json").write_text(model.to_json(), encoding="utf-8")


def convert(folder: Path) -> None:
    """Return the trained weights to Keras 2 and save every form of it."""
    data = np.load(folder / "data.npz")
    model = keras_model()
    weights = np.load(folder / "weights.npz")
    mine = [weights[name] for name in weights.files]
    model.set_weights(mine)
    model.save(folder / "whole2.keras")
    model.save(folder / "whole2.h5")
    model.save(folder / "whole2.hdf5")
    model.save_weights(folder / "bare2.weights.h5")
    (folder / "architecture2.json").write_text(model.to_json(), encoding="utf-8")
    answer(model, data, folder / "logits2.npy")


def answer(model: Any, data: Any, path: Path) -> None:
    """Write what Keras answers to all test images, and its accuracy."""
    logits = model.predict(data["test_x"], batch_size=BATCH, verbose=0)
    np.save(path, logits)
    print(f"{path}: test accuracy {np.mean(logits.argmax(-1) == data['test_y']):.4f}")


def compare_imports(folder: Path, limit: int) -> bool:
    """Import every file and say how far its answers are from those of Keras."""
    import lmu_deploy
    from lmu_deploy.core.graph.transforms import as_layers
    from lmu_deploy.core.loading import load_float
    from lmu_deploy.core.reference import run_reference

    data = np.load(folder / "data.npz")
    inputs, labels = data["test_x"], data["test_y"]
    good = True
    network = folder / "network.safetensors"
    answers: dict[str, np.ndarray] = {}  # by what the file holds: equal networks run once
    choices = [(name, "keras") for name in FORMS]
    choices += [("whole.keras", "keras:32"), ("whole.keras", "keras:48"), ("whole.keras", "exact")]
    if (folder / "matrices.npz").exists():
        choices.append(("whole.keras", str(folder / "matrices.npz")))
    for name, matrices in choices:
        path = folder / name
        if not path.exists():
            print(f"{name:18} not made")
            continue
        second = "2" if "2" in name.split(".")[0] else ""
        more: dict[str, Any] = {"options": {"matrices": matrices}}
        if "bare" in name:
            more["architecture"] = folder / f"architecture{second}.json"
        lmu_deploy.import_network(path, out=network, task="psmnist", **more)
        loaded = as_layers(load_float(network, "keras_psmnist"), "keras_psmnist")
        weights = _digest(loaded)
        if weights not in answers:
            outputs = run_reference(loaded, inputs[:limit], batch_size=500).outputs
            answers[weights] = outputs.reshape(len(outputs), -1, CLASSES)[:, -1]
        logits, truth = answers[weights], np.load(folder / f"logits{second}.npy")
        gap = np.abs(logits - truth[:limit]).max() / np.abs(truth).max()
        mine = np.mean(logits.argmax(-1) == labels[:limit])
        theirs = np.mean(truth[:limit].argmax(-1) == labels[:limit])
        good &= bool(mine == theirs and (gap <= TOLERANCE or matrices != "keras"))
        whose = Path(matrices).name
        print(f"{name:18} {whose:16} logits within {gap:.1e}; accuracy {mine:.4f}, {theirs:.4f}")
    return good


def deploy(folder: Path, limit: int, lava: int) -> None:
    """Quantize, check and deploy the imported network and print the result of every target."""
    import lmu_deploy

    network = folder / "network.safetensors"
    options = {"matrices": "keras"}  # so that differences are those of quantization alone
    lmu_deploy.import_network(folder / "whole.keras", out=network, task="psmnist", options=options)
    integer = folder / "integer.safetensors"
    lmu_deploy.quantize(network, out=integer, profile="loihi2", data="psmnist")
    print("check:", lmu_deploy.check(integer, profile="loihi2") or "fits loihi2")
    for target, samples in (("integer", limit), ("onnxruntime", 100), ("lava", lava)):
        result = lmu_deploy.run(integer, target=target, data="psmnist", limit=samples).summary()
        metric, reference = result["metric"], result["reference"]
        print(
            f"{target:12} {result['n_samples']:6} samples: accuracy {metric['value']:.4f}, "
            f"float {reference['value']:.4f}, agreement {reference['agreement']:.4f}"
        )


def _digest(network: Any) -> str:
    """Name a network by all its arrays."""
    (layer,) = network.layers
    parts = [layer.memory.a_bar, layer.memory.b_bar, layer.input_encoders, layer.memory_bias]
    hidden, readout = layer.hidden, network.readout
    parts += [hidden.memory_kernel, hidden.input_kernel, hidden.recurrent_kernel, hidden.bias]
    parts += [readout.kernel, readout.bias]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"none" if part is None else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def main() -> int:
    """Run one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ("data", "train", "convert", "import", "deploy", "chain")
    parser.add_argument("part", choices=parts)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=10, help="of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of TensorFlow")
    parser.add_argument("--limit", type=int, default=10_000, help="test images of the chain")
    parser.add_argument("--lava", type=int, default=2, help="of them on Lava")
    options = parser.parse_args()
    good = True
    if options.part == "data":
        write_data(options.folder)
    if options.part == "train":
        train(options.folder, options.epochs, options.seed, options.threads)
    if options.part == "convert":
        convert(options.folder)
    if options.part in ("import", "chain"):
        good = compare_imports(options.folder, options.limit)
    if options.part in ("deploy", "chain"):
        deploy(options.folder, options.limit, options.lava)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
