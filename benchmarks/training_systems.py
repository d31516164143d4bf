"""The systems that `training.py` compares, each in a process of its own.

    PYTHON benchmarks/training_systems.py SYSTEM FORM THREADS

reads lines ``train N`` and ``infer N`` from standard input, goes through N batches of 100
permuted-MNIST-sized sequences, and answers each line with ``{"wall": seconds, "cpu": seconds}``.
Systems: `ours`, `ours-bf16` (autocast, as `train --precision bf16-mixed`) and `loop` (torch);
`keras` and `keras-xla` (keras-lmu on TensorFlow), `keras-bf16` and `keras-xla-bf16` (its cell under
the policy mixed_bfloat16; compiled by XLA a training step takes minutes). Forms:

- `paper`: the original LMU of Voelker, Kajic, Eliasmith (2019), 102,027 trained parameters:
  encoders from input, hidden units and memory, no hidden bias.
- `example`: the psMNIST example of keras-lmu's documentation: no feedback into the memory.
- `parallel`: hidden units that do not feed back at all, so that our layer needs no loop.

The data are random: time does not depend on what they are.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

BATCH, STEPS, ORDER, UNITS, CLASSES = 100, 784, 256, 212, 10
Work = dict[str, Callable[[], object]]


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Draw inputs (BATCH, STEPS, 1) and labels (BATCH,)."""
    rng = np.random.default_rng(0)
    inputs = rng.random((BATCH, STEPS, 1), dtype=np.float32)
    return inputs, rng.integers(0, CLASSES, BATCH)


def torch_work(model: Any, mixed: bool = False) -> Work:
    """Return a training step (cross entropy, Adam) and inference of a torch model."""
    import torch

    x, labels = map(torch.from_numpy, batch())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def train() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = torch.nn.functional.cross_entropy(model(x).float(), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    def infer() -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            return model(x).float().numpy()

    return {"train": train, "infer": infer}


def ours(form: str, threads: int, mixed: bool = False) -> Work:
    """Make the network of `lmu_deploy.nn`."""
    from lmu_deploy.nn import LMUConfig, ModelConfig, SequenceModel

    set_threads_of_torch(threads)
    feeds_back = form == "paper"
    layer = LMUConfig(
        units=UNITS,
        order=ORDER,
        theta=STEPS,
        hidden="feedforward" if form == "parallel" else "recurrent",
        hidden_to_memory=feeds_back,
        memory_to_memory=feeds_back,
        hidden_bias=not feeds_back,
        init="memory",
    )
    model = SequenceModel(ModelConfig(n_in=1, n_out=CLASSES, layers=(layer,)))
    return torch_work(model, mixed)


def loop(form: str, threads: int) -> Work:
    """Make a plain torch module: the paper's equations 5 to 7 in a loop over steps."""
    import torch
    from scipy.signal import cont2discrete
    from torch import nn

    set_threads_of_torch(threads)
    degree = np.arange(ORDER)
    rows, columns = np.meshgrid(degree, degree, indexing="ij")
    sign = np.where(rows < columns, -1.0, (-1.0) ** (rows - columns + 1))
    a = (2 * rows + 1) / STEPS * sign
    b = ((2 * degree + 1) / STEPS * (-1.0) ** degree)[:, None]
    discrete = cont2discrete((a, b, np.eye(ORDER), np.zeros((ORDER, 1))), 1.0, "zoh")
    feeds_back, recurs = form == "paper", form != "parallel"

    class PlainLMU(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("a_t", torch.tensor(discrete[0].T.copy(), dtype=torch.float32))
            self.register_buffer("b_t", torch.tensor(discrete[1].T.copy(), dtype=torch.float32))
            self.e_x = nn.Parameter(torch.ones(1, 1))
            self.e_h = nn.Parameter(torch.zeros(UNITS, 1))
            self.e_m = nn.Parameter(torch.zeros(ORDER, 1))
            self.w_x = nn.Parameter(torch.zeros(1, UNITS))
            self.w_h = nn.Parameter(torch.zeros(UNITS, UNITS))
            self.w_m = nn.Parameter(nn.init.xavier_normal_(torch.empty(ORDER, UNITS)))
            self.readout = nn.Linear(UNITS, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = x.new_zeros(len(x), UNITS)
            m = x.new_zeros(len(x), ORDER)
            for x_t in x.unbind(1):
                u = x_t @ self.e_x
                if feeds_back:
                    u = u + h @ self.e_h + m @ self.e_m
                m = m @ self.a_t + u @ self.b_t
                z = x_t @ self.w_x + m @ self.w_m
                if recurs:
                    z = z + h @ self.w_h
                h = torch.tanh(z)
            return self.readout(h)

    return torch_work(PlainLMU())


def set_threads_of_torch(threads: int) -> None:
    """Let one operation use so many threads."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)


def keras(form: str, threads: int, xla: bool, mixed: bool = False) -> Work:
    """Make keras-lmu's network, compiled to a graph, or to machine code by XLA."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    import keras as library
    import keras_lmu
    import tensorflow as tf

    if mixed:
        library.mixed_precision.set_global_policy("mixed_bfloat16")
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    feeds_back = form == "paper"
    if form == "parallel":
        cell = library.layers.Dense(UNITS, activation="tanh")
    else:
        cell = library.layers.SimpleRNNCell(UNITS, use_bias=not feeds_back)
    options = {"memory_d": 1, "order": ORDER, "theta": STEPS, "hidden_cell": cell}
    options |= {"input_to_hidden": True, "kernel_initializer": "ones"}

    class MixedCell(keras_lmu.LMUCell):  # type: ignore[misc]
        """The cell with its constants in the type of its products, which are float32 otherwise."""

        def build(self, shape: Any) -> None:
            super().build(shape)
            self.A, self.B = (tf.cast(part, self.compute_dtype) for part in (self.A, self.B))

    if form == "parallel":
        layer = keras_lmu.LMUFeedforward(**options)
    elif mixed:  # keras_lmu.LMU raises under this policy: its state starts in float32
        cell = MixedCell(hidden_to_memory=feeds_back, memory_to_memory=feeds_back, **options)
        layer = library.layers.RNN(cell)
    else:
        layer = keras_lmu.LMU(hidden_to_memory=feeds_back, memory_to_memory=feeds_back, **options)
    inputs = library.Input((STEPS, 1))
    model = library.Model(inputs, library.layers.Dense(CLASSES, dtype="float32")(layer(inputs)))
    loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, jit_compile=xla)
    x, labels = batch()
    return {
        "train": lambda: model.train_on_batch(x, labels),
        "infer": lambda: model.predict_on_batch(x),
    }


SYSTEMS: dict[str, Callable[[str, int], Work]] = {
    "ours": ours,
    "ours-bf16": lambda form, threads: ours(form, threads, mixed=True),
    "loop": loop,
    "keras": lambda form, threads: keras(form, threads, xla=False),
    "keras-xla": lambda form, threads: keras(form, threads, xla=True),
    "keras-bf16": lambda form, threads: keras(form, threads, xla=False, mixed=True),
    "keras-xla-bf16": lambda form, threads: keras(form, threads, xla=True, mixed=True),
}


def main() -> None:
    """Answer until the input ends."""
    system, form, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    work = SYSTEMS[system](form, threads)
    for line in sys.stdin:
        name, count = line.split()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(count)):
            work[name]()
        took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps(took), file=answers, flush=True)


if __name__ == "__main__":
    main()
