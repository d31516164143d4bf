"""Inputs to trace a module with: shapes that its layers can take, in the usual orders of axes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from converters.pytorch.signals import BATCH, STEPS, Axis
from lmu_deploy.core.errors import InputError

LAYOUTS = (
    "batch steps features",
    "batch features steps",
    "steps batch features",
    "batch steps",
    "steps batch",
    "batch steps channels height width",
    "batch steps height width",
)
_BATCH = 3
_STEPS = {13: 17, 61: 67, 401: 409}
"""Lengths to try, and others to compare with: primes, so that no axis of features is as long."""
_SIZES = (
    "in_features", "in_channels", "input_size", "n_in", "num_features", "normalized_shape",
    "d_model",
)  # fmt: skip
_LENGTHS = ("seq_len", "sequence_length", "seq_length", "n_steps", "max_len")
_RESPONSES = ("H", "kernel")
_LONGEST = 20_000
_MOST_SIZES = 24
_SAMPLED = 8
"""Tokens are drawn below the number of rows of the smallest table, and at most this."""


@dataclass(frozen=True)
class Example:
    """An input and what its axes are.

    Attributes
    ----------
    tensor : Tensor
    layout : str
        Names of the axes, with spaces between them.
    other : int
        Another number of steps, for a second trace.
    """

    tensor: Tensor
    layout: str
    other: int

    @property
    def names(self) -> list[str]:
        """Names of the axes."""
        return self.layout.split()

    @property
    def batch(self) -> int:
        """Number of samples."""
        return int(self.tensor.shape[self.names.index("batch")])

    @property
    def steps(self) -> int:
        """Number of steps."""
        return int(self.tensor.shape[self.names.index("steps")])

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Meaning of the axes, channels last in the frame."""
        rest = [name for name in self.names if name not in ("batch", "steps")]
        ordered = [
            *(name for name in rest if name != "channels"),
            *(["channels"] * ("channels" in rest)),
        ]
        labels: dict[str, Axis] = {"batch": BATCH, "steps": STEPS}
        labels.update({name: k for k, name in enumerate(ordered)})
        return tuple(labels[name] for name in self.names)

    @property
    def described(self) -> str:
        """The shape in words."""
        return ", ".join(
            f"{size} {name}" for size, name in zip(self.tensor.shape, self.names, strict=True)
        )

    def again(self) -> Example:
        """Return an example with other samples, one more of them, and another number of steps."""
        sizes = dict(zip(self.names, self.tensor.shape, strict=True))
        sizes.update(batch=self.batch + 1, steps=self.other)
        shape = list(sizes.values())
        if not self.tensor.is_floating_point():
            most = int(self.tensor.max()) + 1
            return replace(self, tensor=_tokens(shape, most, seed=1))
        return replace(self, tensor=_normal(shape, seed=1))


def examples(module: nn.Module, given: Tensor | None, layout: str | None) -> Iterator[Example]:
    """Yield inputs to try, the likeliest first.

    Parameters
    ----------
    module : Module
    given : Tensor, optional
        An input of the user.
    layout : str, optional
        Names of its axes.

    Raises
    ------
    InputError
        When a layout does not fit the input, or names no batch or steps.
    """
    if layout is not None:
        names = layout.replace(",", " ").replace("time", "steps").strip("() ").split()
        if not {"batch", "steps"} <= set(names) or len(set(names)) != len(names):
            raise InputError(
                f"layout {layout!r} must name batch, steps and the axes of a frame, each once, as "
                f"{LAYOUTS[0]!r} does."
            )
        layout = " ".join(names)
    if given is not None:
        yield from _of_tensor(given, layout)
        return
    layouts = LAYOUTS[:5] if layout is None else (layout,)
    if any(len(each.split()) > 3 for each in layouts):
        raise InputError("for frames of several axes pass inputs=, a tensor that the module takes.")
    tables = [part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)]
    lengths = {length: max(2, length * 3 // 4) for length in _lengths(module)}
    for steps, other in [*lengths.items(), *_STEPS.items()]:
        for each in layouts:
            if tables and len(each.split()) == 2:
                shape = _shape(each, steps, 1)
                yield Example(_tokens(shape, min(min(tables), _SAMPLED), seed=0), each, other)
        for size in _sizes(module):
            for each in layouts:
                if len(each.split()) == 3 or size == 1:
                    yield Example(_normal(_shape(each, steps, size), seed=0), each, other)


def _of_tensor(given: Tensor, layout: str | None) -> Iterator[Example]:
    rank = given.ndim
    layouts = (
        [each for each in LAYOUTS if len(each.split()) == rank] if layout is None else [layout]
    )
    if not layouts or len(layouts[0].split()) != rank:
        known = "; ".join(LAYOUTS)
        raise InputError(
            f"inputs have {rank} axes, and layout {layout!r} does not name each of them; known are "
            f"{known}."
        )
    for each in layouts:
        tensor = given.detach().cpu()
        tensor = tensor.double() if tensor.is_floating_point() else tensor
        yield Example(tensor, each, tensor.shape[each.split().index("steps")] + 4)


def _shape(layout: str, steps: int, size: int) -> list[int]:
    sizes = {"batch": _BATCH, "steps": steps}
    return [sizes.get(name, size) for name in layout.split()]


def _normal(shape: list[int], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _tokens(shape: list[int], most: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, most, shape, generator=generator)


def _lengths(module: nn.Module) -> list[int]:
    """Return lengths of sequences that a module names."""
    found = []
    for part in module.modules():
        for name in _LENGTHS:
            value = getattr(part, name, None)
            if isinstance(value, int) and not isinstance(value, bool):
                found.append(value)
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.ndim and (buffer.is_complex() or name in _RESPONSES):
                found.append(buffer.shape[-1] - buffer.is_complex())  # of rfft, or a response
    return [length for length in dict.fromkeys(found) if 1 < length <= _LONGEST]


def _sizes(module: nn.Module) -> list[int]:
    """Return numbers of features that the input may have, those of the first layers first."""
    found: list[int] = []
    for part in module.modules():
        for name in _SIZES:
            value = getattr(part, name, None)
            if isinstance(value, tuple | list) and value:
                value = value[-1]
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                found.append(value)
    found.append(1)
    for parameter in module.parameters():
        found += [int(size) for size in parameter.shape]
    given = list(found)
    for buffer in module.buffers():
        found += [int(size) for size in buffer.shape if not buffer.is_complex()]
    # What a layer takes beside hidden units or a memory.
    found += [large - small for large in given for small in given if large > small]
    return list(dict.fromkeys(found))[:_MOST_SIZES]
