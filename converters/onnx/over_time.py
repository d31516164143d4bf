"""Emitters of operators over time: convolution, pooling, delay, reductions, reversal and mask.

In the form of one step, the frames before the present one are a state. What has no output at some
steps counts up to the next one: the state `count` grows by one at every input, and there is an
output where it equals the number of inputs before the first output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import TensorProto

from converters.onnx.emitter import Emitter, O, emits
from converters.onnx.graph import Dimension
from lmu_deploy.core.graph.linear import Conv1d
from lmu_deploy.core.graph.time import Delay, Mask, Pool, Reduce, Reverse, RunningMean

LAST = 2**63 - 1
"""The end of a Slice that goes to the last step."""


class OverTime(Emitter[O]):
    """Base of emitters over time."""

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


@emits(Reduce)
class ReduceEmitter(OverTime[Reduce]):
    """A reduction of all steps; step by step, and for a record, that of the steps so far."""

    def sequence(self, *inputs: str) -> str:
        """Add the reduction of a whole sequence."""
        (x,), kind = inputs, self.operator.kind
        if self.lengths is not None:
            return self._of_lengths(x, self.lengths)
        if kind == "last":
            return self.output_of("Gather", [x, self.integer(-1)], axis=1)
        if kind == "sum":
            return self.output_of("ReduceSum", [x, self.graph.integers(1)], keepdims=0)
        op = "ReduceMean" if kind == "mean" else "ReduceMax"
        return self.output_of(op, [x], axes=[1], keepdims=0)

    def _of_lengths(self, x: str, lengths: str) -> str:
        """Add the reduction of the steps that count."""
        kind, axes = self.operator.kind, self.graph.integers(1)
        if kind == "last":
            before = self.part_of("Sub", [lengths, self.integer(1)], "last")
            index = self.reshaped(before, "last.column", -1, 1)
            first = self.part_of("Slice", [x, *(self.graph.integers(n) for n in (0, 1, 1))],
                                 "first")  # fmt: skip
            return self.output_of("Squeeze", [self.gathered(x, index, first), axes])
        rest = self.graph.number(-np.inf if kind == "max" else 0.0)
        masked = self.part_of("Where", [self.counting(x, lengths), x, rest], "masked")
        if kind == "max":
            return self.output_of("ReduceMax", [masked], axes=[1], keepdims=0)
        if kind == "sum":
            return self.output_of("ReduceSum", [masked, axes], keepdims=0)
        total = self.part_of("ReduceSum", [masked, axes], "sum", keepdims=0)
        real = self.part_of(
            "Cast", [lengths], f"lengths.{self.graph.weights.real}", to=self.graph.real
        )
        divisor = self.reshaped(real, "divisor", -1, *[1] * len(self.frame))
        return self.output_of("Div", [total, divisor])

    def so_far(self, x: str) -> str:
        """Add the reduction of the steps so far, at every step."""
        if self.operator.kind == "last":
            return self.output_of("Identity", [x])
        if self.operator.kind == "max":
            return self._maximum_so_far(x)
        return _sums(self, x, self.operator.kind == "mean")

    def _maximum_so_far(self, x: str) -> str:
        """Add the maximum of the steps so far, a Scan."""
        body = self.graph.body_graph(f"{self.node.name}.maximum")
        axes: list[Dimension] = ["batch", *self.frame]
        before = body.input(self.name("step.before"), axes)
        frame = body.input(self.name("step.frame"), axes)
        after = body.node("Max", [before, frame], self.name("step.after"))
        body.output(after, axes)
        body.output(body.node("Identity", [after], self.name("step.so_far")), axes)
        first = self.part_of("Gather", [x, self.integer(0)], "first", axis=1)
        names = [self.name("maximum"), self.output]
        return self.graph.nodes(
            "Scan",
            [first, x],
            names,
            body=body.body(),
            num_scan_inputs=1,
            scan_input_axes=[1],
            scan_output_axes=[1],
        )[1]

    @property
    def state_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the sum, maximum or last frame so far, and the number of frames."""
        kind = self.operator.kind
        counts = kind in ("mean", "max") or self.ready is not None
        keeps = kind != "last" or self.ready is not None
        return {**({kind: self.frame} if keeps else {}), **({"count": (1,)} if counts else {})}

    def step(self, before: Mapping[str, str], *inputs: str) -> tuple[str, Mapping[str, str]]:
        """Add the reduction of the steps so far."""
        (x,), kind, number = inputs, self.operator.kind, self.graph.number
        rank = 1 + len(self.frame)
        found, after = x, dict[str, str]()
        if kind == "max":
            begun = self.part_of("Greater", [before["count"], number(0)], "has_begun")
            largest = self.part_of("Max", [before["max"], x], "largest")
            found = self.part_of("Where", [self.spread(begun, "begun"), largest, x], "so_far")
        elif kind != "last":
            name = "sum" if kind == "sum" else "mean"
            found = self.part_of("Add", [before[name], x], "so_far")
        if kind in before:
            found = after[kind] = self.when_ready(found, before[kind], self.name("now"), rank)
        if "count" in before:
            grown = self.part_of("Add", [before["count"], number(1)], "count.grown")
            after["count"] = self.when_ready(grown, before["count"], self.name("count.now"), 2)
        if self.ready is not None:
            self.gives = self.part_of("Greater", [after["count"], number(0)], "ready")
        if kind == "mean":
            steps = self.part_of("Max", [after["count"], number(1)], "steps")
            return self.output_of("Div", [found, self.spread(steps, "divisor")]), after
        return self.output_of("Identity", [found]), after


def _sums(emitter: OverTime[O], x: str, mean: bool) -> str:
    """Add the sums of the steps so far, or their means."""
    inputs = [x, emitter.integer(1)]
    if not mean:
        return emitter.output_of("CumSum", inputs)
    total = emitter.part_of("CumSum", inputs, "sum")
    numbers = emitter.part_of("Add", [emitter.steps(x), emitter.integer(1)], "numbers")
    real = emitter.part_of(
        "Cast", [numbers], f"numbers.{emitter.graph.weights.real}", to=emitter.graph.real
    )
    divisor = emitter.reshaped(real, "divisor", -1, *[1] * len(emitter.frame))
    return emitter.output_of("Div", [total, divisor])


@emits(RunningMean)
class RunningMeanEmitter(OverTime[RunningMean]):
    """CumSum divided by the number of steps."""

    def sequence(self, *inputs: str) -> str:
        """Add the mean of the steps so far, at every step."""
        return _sums(self, inputs[0], mean=True)

    @property
    def state_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the sum and the number of steps."""
        return {"sum": self.frame, "count": (1,)}

    def step(self, before: Mapping[str, str], *inputs: str) -> tuple[str, Mapping[str, str]]:
        """Add the mean of the steps so far."""
        total = self.part_of("Add", [before["sum"], inputs[0]], "sum.after")
        count = self.part_of("Add", [before["count"], self.graph.number(1)], "count.after")
        output = self.output_of("Div", [total, self.spread(count, "divisor")])
        return output, {"sum": total, "count": count}


@emits(Reverse)
class ReverseEmitter(OverTime[Reverse]):
    """Slice from the last step to the first."""

    def sequence(self, *inputs: str) -> str:
        """Add the reversed sequence; steps that do not count stay where they are."""
        (x,) = inputs
        if self.lengths is None:
            bounds = [self.graph.integers(value) for value in (-1, -LAST, 1, -1)]
            return self.output_of("Slice", [x, *bounds])
        steps = self.steps(x)
        column = self.reshaped(self.lengths, "lengths.column", -1, 1)
        counts = self.part_of("Less", [steps, column], "counts")
        end = self.part_of("Sub", [column, self.integer(1)], "end")
        back = self.part_of("Sub", [end, steps], "back")
        index = self.part_of("Where", [counts, back, steps], "index")
        return self.output_of("Identity", [self.gathered(x, index, x)])

    def looks_ahead(self) -> bool:
        """Return True."""
        return True


@emits(Mask)
class MaskEmitter(OverTime[Mask]):
    """ScatterElements of the frames that are no padding to the front."""

    def _present(self, x: str) -> str:
        """Add whether frames are no padding, without the axes of a frame."""
        axes = list(range(self.leading, self.leading + len(self.frame)))
        value = self.graph.number(self.operator.value)
        same = self.part_of("Equal", [x, value], "is_padding")
        other = self.part_of("Cast", [self.part_of("Not", [same], "differs")], "differs.int32",
                             to=TensorProto.INT32)  # fmt: skip
        most = self.part_of("ReduceMax", [other], "differs.any", axes=axes, keepdims=0)
        return self.part_of("Cast", [most], "is_present", to=TensorProto.BOOL)

    def sequence(self, *inputs: str) -> str:
        """Add the frames that are no padding, and zeros behind them."""
        (x,), integer = inputs, self.integer
        present, steps = self._present(x), self.steps(x)
        if self.lengths is not None:
            column = self.reshaped(self.lengths, "lengths.column", -1, 1)
            counts = self.part_of("Less", [steps, column], "counts")
            present = self.part_of("And", [present, counts], "is_counted")
        number = self.part_of("Cast", [present], "number", to=TensorProto.INT64)
        rank = self.part_of("CumSum", [number, integer(1)], "rank")
        place = self.part_of("Sub", [rank, integer(1)], "place")
        # Padding goes to a step behind the last, which is cut off.
        length = self.part_of("Squeeze", [self.part_of("Shape", [x], "all", start=1, end=2)],
                              "behind")  # fmt: skip
        target = self.part_of("Where", [present, place, length], "target")
        column = self.reshaped(target, "target.frames", 0, 0, *[1] * len(self.frame))
        shape = self.part_of("Shape", [x], "shape")
        index = self.part_of("Expand", [column, shape], "target.whole")
        blank = self.part_of("Mul", [x, self.graph.number(0.0)], "blank")
        pads = self.graph.integers(*[0] * (3 + len(self.frame)), 1, *[0] * len(self.frame))
        longer = self.part_of("Pad", [blank, pads], "blank.longer")
        spread = self.part_of("ScatterElements", [longer, index, x], "scattered", axis=1)
        self._own = self.part_of("ReduceSum", [number, self.graph.integers(1)], "lengths",
                                 keepdims=0)  # fmt: skip
        bounds = [self.graph.integers(value) for value in (0, -1, 1)]
        return self.output_of("Slice", [spread, *bounds])

    def lengths_after(self) -> str | None:
        """Return how many frames are no padding."""
        return self._own

    def step(self, before: Mapping[str, str], *inputs: str) -> tuple[str, Mapping[str, str]]:
        """Add the frame, and whether it is no padding."""
        present = self.reshaped(self._present(inputs[0]), "is_due", -1, 1)
        self.gives = present
        if self.ready is not None:
            self.gives = self.part_of("And", [self.ready, present], "ready")
        return self.output_of("Identity", [inputs[0]]), {}
