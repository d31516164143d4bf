"""Emitters of what has a window of steps: convolution, pooling and delay.

In the form of one step, the frames before the present one are a state. What has no output at some
steps counts up to the next one: the state `count` grows by one at every input, and there is an
output where it equals the number of inputs before the first output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from converters.onnx.emitter import Emitter, O, emits
from lmu_deploy.core.graph.linear import Conv1d
from lmu_deploy.core.graph.time import Delay, Pool

LAST = 2**63 - 1
"""The end of a Slice that goes to the last step."""


class OverTime(Emitter[O]):
    """What emitters over time have in common."""

    def spread(self, x: str, part: str) -> str:
        """Add a tensor (batch, 1) with as many axes as the output has."""
        return self.reshaped(x, part, 0, *[1] * len(self.frame)) if len(self.frame) != 1 else x

    def window(self, before: Mapping[str, str], x: str) -> tuple[str, Mapping[str, str]]:
        """Add the frames before and the present one, (batch, steps, *frame), and the next state."""
        present = self.part_of("Unsqueeze", [x, self.graph.integers(1)], "present")
        if "window" not in before:
            return present, {}
        whole = self.part_of("Concat", [before["window"], present], "whole", axis=1)
        return whole, {"window": self.without_first(whole, 1)}

    def without_first(self, x: str, steps: int) -> str:
        """Add a tensor without its first steps."""
        bounds = [self.graph.integers(value) for value in (steps, LAST, 1)]
        return self.part_of("Slice", [x, *bounds], "rest")

    def counted(
        self, before: Mapping[str, str], first: int, stride: int
    ) -> tuple[str | None, Mapping[str, str]]:
        """Add whether there is an output at this step (None: always), and the next count."""
        if "count" not in before:
            return self.ready, {}
        count, number = before["count"], self.graph.number
        now = self.part_of("Equal", [count, number(first)], "is_due")
        grown = self.part_of("Add", [count, number(1)], "count.grown")
        again = number(first - stride + 1)
        after = {"count": self.part_of("Where", [now, again, grown], "count.after")}
        if self.ready is None:
            return now, after
        return self.part_of("And", [self.ready, now], "ready"), after

    def windows(self, width: int, stride: int, added: int) -> str | None:
        """Add the number of windows of each sequence; None where all have equally many steps."""
        if self.lengths is None:
            return None
        free = self.part_of("Add", [self.lengths, self.integer(added - width + stride)], "free")
        count = self.part_of("Div", [free, self.integer(stride)], "windows")
        return self.part_of("Max", [count, self.integer(0)], "lengths")

    def steps(self, x: str) -> str:
        """Add the numbers of the steps of a sequence, from 0, a vector of int64."""
        length = self.part_of("Shape", [x], "length", start=1, end=2)
        end = self.part_of("Squeeze", [length], "end")
        return self.part_of("Range", [self.integer(0), end, self.integer(1)], "steps")

    def counting(self, x: str, lengths: str) -> str:
        """Add which steps of a sequence count, bool, with as many axes as the sequence has."""
        column = self.reshaped(lengths, "lengths.column", -1, 1)
        counts = self.part_of("Less", [self.steps(x), column], "counts")
        return self.reshaped(counts, "counts.frames", 0, 0, *[1] * len(self.frame))

    def gathered(self, x: str, index: str, like: str) -> str:
        """Add the frames of steps (batch, steps); `like` has the shape of the result."""
        column = self.reshaped(index, "index.frames", 0, 0, *[1] * len(self.frame))
        shape = self.part_of("Shape", [like], "index.shape")
        whole = self.part_of("Expand", [column, shape], "index.whole")
        return self.part_of("GatherElements", [x, whole], "gathered", axis=1)

    def padded(self, x: str, left: int, rank: int) -> str:
        """Add a sequence with zeros before it."""
        pads = self.graph.integers(0, left, *[0] * (2 * rank - 2))
        return self.part_of("Pad", [x, pads], "padded")


def _count_shape(first: int, stride: int) -> Mapping[str, tuple[int, ...]]:
    return {"count": (1,)} if first or stride > 1 else {}


@emits(Conv1d)
class Conv1dEmitter(OverTime[Conv1d]):
    """Conv over time."""

    @property
    def _first(self) -> int:
        return self.operator.reach - 1 - self.operator.left

    def _convolved(self, x: str, **attributes: Sequence[int]) -> str:
        """Add the convolution of (batch, steps, features), with features before steps."""
        turned = self.part_of("Transpose", [x], "features_first", perm=[0, 2, 1])
        kernel = self.derive("kernel.transposed", "Transpose", [self.weight("kernel")],
                             perm=[2, 1, 0])  # fmt: skip
        weights = [kernel] if self.operator.bias is None else [kernel, self.weight("bias")]
        return self.part_of(
            "Conv",
            [turned, *weights],
            "convolved",
            dilations=[self.operator.dilation],
            group=self.operator.groups,
            **attributes,
        )

    def sequence(self, *inputs: str) -> str:
        """Add the convolution of a whole sequence."""
        pads, strides = [self.operator.left, self.operator.right], [self.operator.stride]
        convolved = self._convolved(inputs[0], pads=pads, strides=strides)
        return self.output_of("Transpose", [convolved], perm=[0, 2, 1])

    def lengths_after(self) -> str | None:
        """Return the number of outputs for each sequence."""
        conv = self.operator
        return self.windows(conv.reach, conv.stride, conv.left + conv.right)

    @property
    def state_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the frames that the kernel reaches back to, and the count."""
        before = self.operator.reach - 1
        window = {"window": (before, self.given[0].features)} if before else {}
        return {**window, **_count_shape(self._first, self.operator.stride)}

    def step(self, before: Mapping[str, str], *inputs: str) -> tuple[str, Mapping[str, str]]:
        """Add the convolution of the window."""
        whole, after = self.window(before, inputs[0])
        convolved = self._convolved(whole)
        output = self.output_of("Squeeze", [convolved, self.graph.integers(2)])
        self.gives, count = self.counted(before, self._first, self.operator.stride)
        return output, {**after, **count}

    def looks_ahead(self) -> bool:
        """Return whether frames are added behind the sequence, or more before than it reaches."""
        return self.operator.right > 0 or self._first < 0


@emits(Pool)
class PoolEmitter(OverTime[Pool]):
    """AveragePool or MaxPool over time."""

    @property
    def _first(self) -> int:
        return self.operator.width - 1 - self.operator.left

    @property
    def _masked(self) -> bool:
        """Whether a window at the start has to leave out what stands before the sequence."""
        pool = self.operator
        return pool.left > 0 and (pool.kind == "max" or not pool.count_padding)

    def sequence(self, *inputs: str) -> str:
        """Add all windows of a whole sequence."""
        flat = self.reshaped(inputs[0], "flat", 0, 0, self.given[0].size)
        turned = self.part_of("Transpose", [flat], "features_first", perm=[0, 2, 1])
        pool = self.operator
        included = {} if pool.kind == "max" else {"count_include_pad": int(pool.count_padding)}
        pooled = self.part_of(
            "MaxPool" if pool.kind == "max" else "AveragePool",
            [turned],
            "pooled",
            kernel_shape=[pool.width],
            strides=[pool.stride],
            pads=[pool.left, pool.right],
            **included,
        )
        back = self.part_of("Transpose", [pooled], "features_last", perm=[0, 2, 1])
        return self.reshaped(back, "", 0, 0, *self.frame)

    def lengths_after(self) -> str | None:
        """Return the number of windows of each sequence."""
        return self.windows(self.operator.width, self.operator.stride,
                            self.operator.left + self.operator.right)  # fmt: skip

    @property
    def state_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the frames before in a window, how many there have been, and the count."""
        before = self.operator.width - 1
        return {
            **({"window": (before, *self.frame)} if before else {}),
            **({"seen": (1,)} if self._masked else {}),
            **_count_shape(self._first, self.operator.stride),
        }

    def step(self, before: Mapping[str, str], *inputs: str) -> tuple[str, Mapping[str, str]]:
        """Add the average or maximum of the window."""
        pool, number = self.operator, self.graph.number
        whole, after = self.window(before, inputs[0])
        divisor = number(pool.width)
        if self._masked:
            seen = before["seen"]
            if pool.kind == "max":
                ages = np.arange(pool.width - 1, -1, -1, dtype=self.graph.weights.real)[None]
                steps_ago = self.graph.weights.constant(f"steps_ago.{pool.width}", ages)
                there = self.part_of("LessOrEqual", [steps_ago, seen], "is_there")
                mask = self.reshaped(there, "mask", 0, 0, *[1] * len(self.frame))
                whole = self.part_of("Where", [mask, whole, number(-np.inf)], "masked")
            grown = self.part_of("Add", [seen, number(1)], "seen.grown")
            most = self.part_of("Min", [grown, number(pool.width)], "seen.now")
            divisor = self.spread(most, "divisor")
            after = {**after, "seen": most}
        if pool.kind == "max":
            output = self.output_of("ReduceMax", [whole], axes=[1], keepdims=0)
        else:
            axes = self.graph.integers(1)
            total = self.part_of("ReduceSum", [whole, axes], "sum", keepdims=0)
            output = self.output_of("Div", [total, divisor])
        self.gives, count = self.counted(before, self._first, pool.stride)
        return output, {**after, **count}

    def looks_ahead(self) -> bool:
        """Return whether steps are added behind the sequence."""
        return self.operator.right > 0


@emits(Delay)
class DelayEmitter(OverTime[Delay]):
    """Pad and Slice."""

    def sequence(self, *inputs: str) -> str:
        """Add the sequence some steps later."""
        if not self.operator.steps:
            return self.output_of("Identity", inputs)
        padded = self.padded(inputs[0], self.operator.steps, 2 + len(self.frame))
        bounds = [self.graph.integers(value) for value in (0, -self.operator.steps, 1)]
        return self.output_of("Slice", [padded, *bounds])

    @property
    def state_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the frames on their way."""
        return {"window": (self.operator.steps, *self.frame)} if self.operator.steps else {}

    def step(self, before: Mapping[str, str], *inputs: str) -> tuple[str, Mapping[str, str]]:
        """Add the frame of some steps before."""
        whole, after = self.window(before, inputs[0])
        return self.output_of("Gather", [whole, self.integer(0)], axis=1), after
