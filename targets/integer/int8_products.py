r"""Products of int8 weights with messages of any width, exact in int32.

A message of more than 8 bits is cut into digits of base 128 as weights are,
:math:`X = \sum_p 128^p X_p` with :math:`-64 \le X_p \le 63` below the highest, and
:math:`W X = \sum_p 128^p (W X_p)` in exact int32; bounds.py proves that nothing passes 2^31. Such
products run several times faster than those of float32 on a processor with int8 instructions.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

BASE_BITS = 7
HALF_BASE = 64


@cache
def products_are_exact() -> bool:
    """Whether int8 products are exact here; some processors saturate pairs of them at 16 bits."""
    signs = np.array([-128, 127, -127, 126], dtype=np.int8)
    left, right = signs[np.arange(8 * 512) % 4], signs[np.arange(512 * 8) % 3]
    a, b = left.reshape(8, 512), right.reshape(512, 8)
    product = torch._int_mm(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    return bool(np.array_equal(product, a.astype(np.int64) @ b.astype(np.int64)))


def digits_of(limit: int) -> int:
    """How many digits a message of that magnitude takes; the highest is one of int8 too."""
    digits = 1
    while limit > 127:
        digits, limit = digits + 1, (limit + HALF_BASE) >> BASE_BITS
    return digits


class Int8Products:
    """Weights, and room for the digits of a batch's messages and for what they are multiplied to.

    Parameters
    ----------
    weights : ndarray, shape (rows, n_in), int8
    limit : int
        Largest magnitude of a message.

    Attributes
    ----------
    batch : int
        How many samples there is room for.
    digits : tensor, shape (digits, batch, n_in), int8
        To be filled, lowest first, before `multiply`.
    products : tensor, shape (digits, batch, rows), int32
        Those of each digit.
    """

    def __init__(self, weights: np.ndarray, limit: int) -> None:
        # Of one row too, strides have to be those of a matrix that lies row by row.
        self._matrix = torch.from_numpy(weights.T.copy(order="C"))
        self._n_digits = digits_of(limit)
        self.resize(0)

    def resize(self, batch: int) -> None:
        """Make room for another batch."""
        self.batch = batch
        n_in, rows = self._matrix.shape
        self.digits = torch.empty((self._n_digits, batch, n_in), dtype=torch.int8)
        self.products = torch.empty((self._n_digits, batch, rows), dtype=torch.int32)
        self._flat = self.digits.flatten(0, 1), self.products.flatten(0, 1)

    def multiply(self) -> None:
        """Multiply the digits by the weights."""
        digits, products = self._flat
        torch._int_mm(digits, self._matrix, out=products)
