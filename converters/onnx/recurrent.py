r"""Emitters of what recurs: what they share, and linear memories.

An emitter of this kind has three parts. `project` computes what depends on the input alone, which
the form of whole sequences does for all steps at once; `advance` is one step of the recurrence, the
body of a Scan there; `answer` is the output, computed for all steps at once where it is no state.

Where nothing feeds back into a linear memory and only its last state is needed, a Scan runs over
blocks of L steps instead, over :math:`m \leftarrow \bar A^L m + \sum_k \bar A^{L-k} \bar B u_k`,
which takes a fraction of about 1 / L of the products. Zeros before the sequence, which change
nothing, make it a whole number of blocks. The powers are computed in float64 by the model itself
when a runtime loads it, so that the file holds :math:`\bar A` once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from types import MappingProxyType
from typing import TypeVar

from converters.onnx.emitter import Emitter, emits
from converters.onnx.graph import Dimension
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.operator import Recurrent
from lmu_deploy.core.network import Memory

BLOCK = 32
"""Steps of a block; a power of two."""
R = TypeVar("R", bound=Recurrent)
States = Mapping[str, str]


class RecurrentEmitter(Emitter[R]):
    """Writes an operator with states of vectors, ``memory``, ``hidden`` and ``cell``.

    Attributes
    ----------
    traced : dict of str to str
        The states at every step that `sequence` added, by name.
    """

    traced: States = MappingProxyType({})
    traces_all = False
    """Whether `sequence` adds all states at every step, not only those that the output needs."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Number of values of each state."""
        raise NotImplementedError

    @property
    def has_hidden(self) -> bool:
        """Whether the output is that of hidden units."""
        return True

    def initial(self, state: str) -> str | None:
        """Return the tensor of the value before the first step, (size,); None if it is zero."""
        return None

    @property
    def widths(self) -> Mapping[str, int]:
        """Number of values of each result of `project`."""
        raise NotImplementedError

    def project(self, x: str) -> States:
        """Add what depends on the input alone, each of `widths`."""
        raise NotImplementedError

    def advance(self, parts: States, before: States) -> States:
        """Add one step: the states after it, from those before and the parts of this step."""
        raise NotImplementedError

    @property
    def answers(self) -> str:
        """Name of the state that is the output, or from which it is computed."""
        raise NotImplementedError

    def answer(self, x: str, state: str) -> str:
        """Add the output, from the input and the state that answers, of the same steps."""
        return self.output_of("Identity", [state])

    def sequence(self, *inputs: str) -> str:
        """Add a Scan over all steps."""
        (x,) = inputs
        wanted = [name for name in self.sizes if self.traces_all or name == self.answers]
        _, self.traced = self._scan(self.project(x), wanted)
        return self.answer(x, self.traced[self.answers])

    def last(self, *inputs: str) -> str:
        """Add a Scan that returns the states after the last step alone."""
        (x,) = inputs
        last, _ = self._scan(self.project(x), [])
        return self.answer(self.last_frame(x), last[self.answers])

    def last_frame(self, x: str) -> str:
        """Add the last frame of the input."""
        return self.part_of("Gather", [x, self.integer(-1)], "input.last", axis=1)

    def _scan(self, parts: States, wanted: Sequence[str]) -> tuple[States, States]:
        """Add the recurrence; return the last states, and those at every step that are wanted."""
        body = self.graph.body_graph(f"{self.node.name}.step")
        within = copy(self)
        within.graph, within.scope = body, "step."
        before = {n: body.input(within.name(n), ["batch", s]) for n, s in self.sizes.items()}
        now = {n: body.input(within.name(n), ["batch", self.widths[n]]) for n in parts}
        after = within.advance(now, before)
        for name, size in self.sizes.items():
            body.output(after[name], ["batch", size])
        for name in wanted:
            copied = within.part_of("Identity", [after[name]], f"{name}.traced")
            body.output(copied, ["batch", self.sizes[name]])
        like = next(iter(parts.values()))
        outputs = self.graph.nodes(
            "Scan",
            [self._first(name, like) for name in self.sizes] + list(parts.values()),
            [self.name(f"{n}.last") for n in self.sizes] + [self.name(n) for n in wanted],
            body=body.body(),
            num_scan_inputs=len(parts),
            scan_input_axes=[1] * len(parts),
            **({"scan_output_axes": [1] * len(wanted)} if wanted else {}),
        )
        last = dict(zip(self.sizes, outputs, strict=False))
        return last, dict(zip(wanted, outputs[len(self.sizes) :], strict=True))

    def _first(self, state: str, like: str) -> str:
        """Add the value of a state before the first step, for as many samples as `like` has."""
        batch = self.axes_of(like, 0, 1, "batch")
        size = self.graph.integers(self.sizes[state])
        shape = self.part_of("Concat", [batch, size], f"{state}.shape", axis=0)
        value = self.initial(state) or self.graph.number(0.0)
        return self.part_of("Expand", [value, shape], f"{state}.first")

    @property
    def state_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of every state."""
        return {name: (size,) for name, size in self.sizes.items()}

    def step(self, before: States, *inputs: str) -> tuple[str, States]:
        """Add one step."""
        (x,) = inputs
        real = {name: self._shifted("Add", name, state) for name, state in before.items()}
        after = self.advance(self.project(x), real)
        output = self.answer(x, after[self.answers])
        return output, {name: self._shifted("Sub", name, state) for name, state in after.items()}

    def _shifted(self, op: str, name: str, state: str) -> str:
        """Add a state with its initial value added or subtracted."""
        initial = self.initial(name)
        return state if initial is None else self.part_of(op, [state, initial], f"{name}.shifted")

    # Parts that several operators have

    def optional(self, label: str) -> str | None:
        """Return the tensor of a weight; None if the operator does not have it."""
        value = self.operator
        for field in label.split("."):
            value = getattr(value, field)
        return None if value is None else self.weight(label)

    def advance_memory(self, memory: Memory, m: str, u: str) -> str:
        """Add ``m A^T + u B``, with the channels of a sample as rows of one product."""
        if memory.channels > 1:
            u = self.reshaped(u, "u.rows", -1, 1)
            m = self.reshaped(m, "memory.rows", -1, memory.order)
        drive = self.part_of("Mul", [u, self.weight("memory.b_bar")], "drive")
        rows = self.part_of("Gemm", [m, self.weight("memory.a_bar"), drive], "memory.after",
                            transB=1)  # fmt: skip
        return rows if memory.channels == 1 else self.reshaped(rows, "memory.flat", -1, memory.size)

    def last_memory(self, memory: Memory, u: str) -> str:
        """Add the last state of a memory, given its channels at every step, block by block."""
        power, response = self._blocks()
        graph = self.graph
        turned = self.part_of("Transpose", [u], "u.by_channel", perm=[0, 2, 1])
        steps = self.part_of("Shape", [turned], "u.steps", start=2, end=3)
        missing = self.part_of("Mod", [self.part_of("Neg", [steps], "u.negative"),
                                       graph.integers(BLOCK)], "u.missing")  # fmt: skip
        pads = self.part_of("Concat", [graph.integers(0, 0), missing, graph.integers(0, 0, 0)],
                            "u.pads", axis=0)  # fmt: skip
        whole = self.part_of("Pad", [turned, pads], "u.padded")
        count = self.part_of("Div", [self.part_of("Add", [steps, missing], "u.steps.padded"),
                                     graph.integers(BLOCK)], "u.block_count")  # fmt: skip
        shape = self.part_of("Concat", [graph.integers(-1), count, graph.integers(BLOCK)],
                             "u.shape", axis=0)  # fmt: skip
        blocks = self.part_of("Reshape", [whole, shape], "u.blocks")
        drive = self.part_of("MatMul", [blocks, response], "u.drive")
        body = graph.body_graph(f"{self.node.name}.block")
        axes: list[Dimension] = ["rows", memory.order]
        m = body.input(self.name("step.memory"), axes)
        given = body.input(self.name("step.drive"), axes)
        after = body.node("Gemm", [m, power, given], self.name("step.memory.after"), transB=1)
        body.output(after, axes)
        rows = self.axes_of(drive, 0, 1, "rows")
        first = self.part_of("Expand", [graph.number(0.0), self.part_of(
            "Concat", [rows, graph.integers(memory.order)], "memory.shape", axis=0)],
            "memory.first")  # fmt: skip
        found = self.part_of("Scan", [first, drive], "memory.rows", body=body.body(),
                             num_scan_inputs=1, scan_input_axes=[1])  # fmt: skip
        return self.reshaped(found, "memory.last", -1, memory.size)

    def _blocks(self) -> tuple[str, str]:
        """Return A to the power of BLOCK, and the impulse response, the longest ago first."""
        power = self._double("memory.a_bar")
        first = [self.graph.integers(1, -1)]
        response = self.derive("memory.response.1", "Reshape",
                               [self._double("memory.b_bar"), *first])  # fmt: skip
        length = 1
        while length < BLOCK:
            turned = self.derive(f"memory.a_bar.{length}.turned", "Transpose", [power])
            older = self.derive(f"memory.response.{length}.older", "MatMul", [response, turned])
            response = self.derive(f"memory.response.{2 * length}", "Concat", [older, response],
                                   axis=0)  # fmt: skip
            power = self.derive(f"memory.a_bar.{2 * length}", "MatMul", [power, power])
            length *= 2
        narrow = [
            self.derive(f"{label}.{self.graph.weights.real}", "Cast", [value], to=self.graph.real)
            for label, value in (("memory.a_bar.block", power), ("memory.response", response))
        ]
        return narrow[0], narrow[1]

    def _double(self, label: str) -> str:
        """Return a weight in float64: its initializer, or a Cast of it."""
        return self.graph.weights.double(self.node.name, label)


@emits(LinearMemory)
class LinearMemoryEmitter(RecurrentEmitter[LinearMemory]):
    """A Scan over steps, or over blocks where only the last state is needed."""

    answers = "memory"

    @property
    def has_hidden(self) -> bool:
        """Return False."""
        return False

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return the size of the memory."""
        return {"memory": self.operator.memory.size}

    @property
    def widths(self) -> Mapping[str, int]:
        """Return the number of channels."""
        return {"u": self.operator.memory.channels}

    def project(self, x: str) -> States:
        """Add the channels."""
        u = self.affine(x, self.weight("encoders"), self.optional("bias"), "u")
        activation = self.operator.activation
        if activation is not None:
            u = self.graph.activation(activation.name, u, self.name("u.active"), activation.slope)
        return {"u": u}

    def advance(self, parts: States, before: States) -> States:
        """Add one step of the memory."""
        memory = self.operator.memory
        return {"memory": self.advance_memory(memory, before["memory"], parts["u"])}

    def last(self, *inputs: str) -> str:
        """Add the last state, block by block."""
        u = self.project(inputs[0])["u"]
        return self.output_of("Identity", [self.last_memory(self.operator.memory, u)])
