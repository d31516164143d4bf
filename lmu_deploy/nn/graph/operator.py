"""Base of the PyTorch counterparts of operators: arrays as parameters, and the equation.

A counterpart holds each array of its operator as a parameter of the same name and shape, so that
one loop copies weights in both directions; only the equation is written again, for tensors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from lmu_deploy.core.graph.operator import Operator

_COUNTERPARTS: dict[type[Operator], type[TorchOperator]] = {}


class TorchOperator(nn.Module):
    """An operator whose arrays are trained.

    Parameters
    ----------
    operator : Operator
    dtype : torch.dtype
        Type of the parameters.
    train_theta : bool
        Train the window of a memory, for operators that have one.
    """

    def __init__(self, operator: Any, dtype: torch.dtype, train_theta: bool = False) -> None:
        super().__init__()
        self.operator = operator
        for name in array_names(operator):
            value = getattr(operator, name)
            # Arrays of a loaded network are read-only, and a parameter must own its values.
            weight = None if value is None else nn.Parameter(torch.tensor(value, dtype=dtype))
            self.register_parameter(name, weight)

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute all steps; see :meth:`lmu_deploy.core.graph.operator.Operator.forward`."""
        raise NotImplementedError

    def last(self, *signals: Tensor) -> Tensor:
        """Compute the frame of the last step alone, shape (batch, *frame)."""
        return self(*signals)[:, -1]

    def counted(self, lengths: Tensor | None, *signals: Tensor) -> Tensor | None:
        """Return how many steps of the output count, given the input; None if all do."""
        if lengths is None:
            return None
        ends = self.operator.lengths(lengths.cpu().numpy())
        return torch.as_tensor(ends, device=lengths.device)

    def to_operator(self) -> Operator:
        """Return the operator with the weights as they are now."""
        weights = {name: to_array(w) for name, w in self.named_parameters(recurse=False)}
        found: Operator = dataclasses.replace(self.operator, **weights, **self.parts())
        return found

    def parts(self) -> dict[str, Any]:
        """Return the fields of the operator that separate modules hold."""
        return {}

    def extra_repr(self) -> str:
        """Return a description of the operator for ``print(module)``."""
        text: str = self.operator.describe()
        return text


class TorchFramewise(TorchOperator):
    """An operator that computes each frame by itself, on the trailing axes of a tensor."""

    def last(self, *signals: Tensor) -> Tensor:
        """Compute the last frame alone."""
        found: Tensor = self(*(signal[:, -1] for signal in signals))
        return found


_Class = TypeVar("_Class", bound=type[TorchOperator])


def counterpart_of(*kinds: type[Operator]) -> Callable[[_Class], _Class]:
    """Register a class as the counterpart of operators."""

    def register(counterpart: _Class) -> _Class:
        _COUNTERPARTS.update(dict.fromkeys(kinds, counterpart))
        return counterpart

    return register


def make(operator: Operator, dtype: torch.dtype, train_theta: bool = False) -> TorchOperator:
    """Return the counterpart of an operator; see :class:`TorchOperator`."""
    return _COUNTERPARTS[type(operator)](operator, dtype, train_theta)


def counterparts() -> dict[type[Operator], type[TorchOperator]]:
    """Return the counterpart of each operator that has one."""
    return dict(_COUNTERPARTS)


def array_names(operator: Any) -> list[str]:
    """Return the names of the fields of an operator that are arrays, or None where one could be."""
    fields = dataclasses.fields(operator)
    return [field.name for field in fields if "ndarray" in str(field.type)]


def to_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor as an array of at least float32 precision."""
    tensor = tensor.detach().cpu()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return np.ascontiguousarray(tensor.numpy())
