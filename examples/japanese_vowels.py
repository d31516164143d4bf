"""Tell nine speakers apart by how they say two vowels: sequences of different lengths, as a user's.

Japanese Vowels (M. Kudo, J. Toyama, M. Shimbo 1999; UCI machine learning repository): 12 cepstral
coefficients for 7 to 29 steps, 270 utterances to train and 370 to test, in the package aeon. The
integer network and its C code are compared on every test utterance. Takes about a minute. Run:
pip install aeon
python examples/japanese_vowels.py
"""

from __future__ import annotations

import shutil

import numpy as np
from aeon.datasets import load_japanese_vowels

import lmu_deploy as ld
from lmu_deploy.core.graph.network import Network

SETTINGS = {
    "epochs": 60,
    "batch_size": 32,
    "dropout": 0.2,
    "stack": {"blocks": 2, "width": 48, "channels": 12, "order": 6, "theta": 12},
    "augment": {"noise": 0.5, "noise_db": 10, "mask_features": 2, "mask_steps": 3},
}


def vowels() -> ld.Dataset:
    """Return the data: lists of arrays (steps, 12), and the speakers as strings."""
    x_train, y_train = load_japanese_vowels("train")
    x_test, y_test = load_japanese_vowels("test")
    return ld.Dataset(
        [x.T for x in x_train],  # aeon has channels first
        y_train,
        [x.T for x in x_test],
        y_test,
        name="japanese-vowels",
    )


def fit(data: ld.Dataset, seed: int) -> Network:
    """Train a stack of about 14,000 parameters."""
    return ld.train(data, "stack", config=SETTINGS, seed=seed).network


def main() -> None:
    """Train with one seed, and run the network in float, as integers and as C."""
    data = vowels()
    print(data)
    network = fit(data, seed=0)
    integers = ld.quantize(network, data)
    found = ld.run(integers, data)
    assert found.metric is not None
    assert found.against_reference is not None
    print(f"float {found.against_reference.value:.4f}, integers {found.metric.value:.4f}")
    if any(map(shutil.which, ("cc", "gcc", "clang"))):
        same = np.array_equal(ld.run(integers, data, target="c").outputs, found.outputs)
        print(f"C computes {'the same integers' if same else 'OTHER INTEGERS'}")


if __name__ == "__main__":
    main()
