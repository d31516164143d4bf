"""Time the products and activations of a step of the recurrent layer in the forms that were tried.

A step of the layer of the psMNIST network, with batches of 100: the product (100, 486) by
(486, 212) and tanh, and what surrounds it; the same in bfloat16 where the processor multiplies it
faster. Each figure is the processor time of one call on one thread, the least of many repetitions,
so that other work counts little. Forms are in turn, so that all meet the same machine.

    OMP_NUM_THREADS=1 python benchmarks/product_trials.py --save performance/product-trials
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import results
import torch
from torch import Tensor

from lmu_deploy.nn import products

BATCH, ORDER, UNITS = 100, 256, 212
INPUTS = UNITS + ORDER + 18
"""Columns of the operand of a step: units, states and the inputs of a block of steps."""
COLUMNS = [
    ("what", "{}"),
    ("form", "{}"),
    ("time, us", ">{:,.1f}"),
    ("of the first form", ">{:.2f}"),
]
_TRIALS = 2.5e-4
"""Seconds that a group of calls takes at least, so that the clock is fine enough."""

Forms = dict[str, Callable[[], object]]


def onednn(x: Tensor, transposed: Tensor, activation: str = "none") -> Tensor:
    """Return the product by the operator of oneDNN that the layer uses."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, transposed, None, activation, [], "")
    return result


def layouts(dtype: torch.dtype, tanh: str) -> Forms:
    """Return forms of one product with tanh, whose weights are stored in different layouts."""
    x, w = torch.randn(BATCH, INPUTS).to(dtype), torch.randn(INPUTS, UNITS).to(dtype)
    wide = torch.nn.functional.pad(w, (0, -UNITS % 16)).contiguous()
    rows = w.t().contiguous()
    packed = torch.ops.mkldnn._reorder_linear_weight(wide.t().contiguous())
    finish: Callable[[Tensor], Tensor] = torch.tanh_ if tanh == "tanh" else lambda z: z
    strided = torch.randn(BATCH, 3 * INPUTS).to(dtype)[:, INPUTS : 2 * INPUTS]
    return {
        "weights stored by output": lambda: onednn(x, rows, tanh),
        "a transposed view of weights stored by input": lambda: onednn(x, w.t(), tanh),
        f"the same, filled to {wide.shape[1]} columns: the layer's": (
            lambda: onednn(x, wide.t(), tanh)
        ),
        "in the layout of oneDNN": lambda: onednn(x, packed, tanh),
        "the layer's with strided inputs": lambda: onednn(strided, wide.t(), tanh),
        "torch's product": lambda: finish(torch.mm(x, w)),
    }


def tangents() -> Forms:
    """Return forms of tanh; that within the product is the difference of two products."""
    z = torch.randn(BATCH, UNITS)
    return {
        "torch's tanh": lambda: torch.tanh(z),
        "expm1(2x) / (expm1(2x) + 2)": lambda: (e := torch.expm1(2.0 * z)) / (e + 2.0),
        "2 sigmoid(2x) - 1": lambda: 2.0 * torch.sigmoid(2.0 * z) - 1.0,
    }


def outer_products(dtype: torch.dtype) -> Forms:
    """Return forms of the sum of outer products of the steps of a batch."""
    rows = 14_000
    x, g = torch.randn(rows, UNITS).to(dtype), torch.randn(rows, UNITS).to(dtype)
    summed = products.summed_outer(x, rows * UNITS * UNITS)
    return {
        "torch's product": lambda: x.t() @ g,
        "oneDNN, all rows at once": lambda: onednn(x.t(), g.t()),
        "the layer's": lambda: summed(x, g),
    }


def split_products() -> Forms:
    """Return a step as one product, and with the part of the memory taken for a whole block."""
    x, units = torch.randn(BATCH, INPUTS), torch.randn(BATCH, UNITS)
    block = torch.randn(16 * BATCH, INPUTS - UNITS)
    w = torch.randn(INPUTS, UNITS)
    own, others = w[:UNITS].contiguous(), w[UNITS:].contiguous()
    return {
        "one product a step": lambda: onednn(x, w.t()),
        "the units' own part": lambda: onednn(units, own.t()),
        "the memory's part of 16 steps": lambda: onednn(block, others.t()),
    }


def trials() -> Iterator[tuple[str, Forms]]:
    """Yield what is timed, with its forms."""
    dtypes = {"float32": torch.float32}
    dtypes |= {"bfloat16": torch.bfloat16} if products.has_bfloat16() else {}
    for name, dtype in dtypes.items():
        yield f"a step and tanh, {name}", layouts(dtype, "tanh")
        yield f"a step without tanh, {name}", layouts(dtype, "none")
        yield f"sums of outer products of 14,000 rows, {name}", outer_products(dtype)
    yield "tanh of (100, 212), float32", tangents()
    yield "a step without tanh in parts, float32", split_products()


def least(forms: Forms, seconds: float) -> dict[str, float]:
    """Return the least processor time of one call of each form, in seconds."""
    calls, found = {}, dict.fromkeys(forms, float("inf"))
    for name, form in forms.items():
        form()
        start = time.process_time()
        form()
        once = max(time.process_time() - start, 1e-7)
        calls[name] = max(1, round(_TRIALS / once))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, form in forms.items():
            start = time.process_time()
            for _ in range(calls[name]):
                form()
            found[name] = min(found[name], (time.process_time() - start) / calls[name])
    return found


def main() -> None:
    """Time every form and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="for each group of forms")
    results.add_options(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows: list[list[results.Cell]] = []
    with torch.no_grad():
        for what, forms in trials():
            times = least(forms, args.seconds)
            first = next(iter(times.values()))
            rows += [[what, name, 1e6 * each, each / first] for name, each in times.items()]
    results.publish(COLUMNS, rows, args, seed=0)


if __name__ == "__main__":
    main()
