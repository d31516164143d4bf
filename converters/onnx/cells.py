"""Emitters of LMU, LSTM, GRU and simple recurrent units."""

from __future__ import annotations

from collections.abc import Mapping

from converters.onnx.emitter import emits
from converters.onnx.recurrent import R, RecurrentEmitter, States
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN

Cell = SimpleRNN | LSTM | GRU


class CellEmitter(RecurrentEmitter[R]):
    """Writes an operator with a cell: simple recurrent units, an LSTM or a GRU.

    The cell takes a sum, `given`, of what its input and its bias contribute to all of its gates.
    """

    prefix = ""
    """Prefix of the names of the cell's weights."""

    @property
    def cell(self) -> Cell:
        """The cell."""
        raise NotImplementedError

    def initial(self, state: str) -> str | None:
        """Return the initial value of a state of the cell."""
        if state == "memory":
            return None
        field = "initial"
        if isinstance(self.cell, LSTM):
            field = "initial_h" if state == "hidden" else "initial_c"
        return self.optional(f"{self.prefix}{field}")

    @property
    def cell_sizes(self) -> Mapping[str, int]:
        """Number of values of the states of the cell."""
        hidden = {"hidden": self.cell.n_out}
        return {**hidden, "cell": self.cell.n_out} if isinstance(self.cell, LSTM) else hidden

    def activate(self, activation: Activation, z: str, part: str) -> str:
        """Add an activation function."""
        return self.graph.activation(activation.name, z, self.name(part), activation.slope)

    def advance_cell(self, given: str, before: States) -> States:
        """Add one step of the cell."""
        if isinstance(self.cell, SimpleRNN):
            return {"hidden": self._advance_units(self.cell, given, before)}
        if isinstance(self.cell, LSTM):
            return self._advance_lstm(self.cell, given, before)
        return {"hidden": self._advance_gru(self.cell, given, before)}

    def _advance_units(self, cell: SimpleRNN, given: str, before: States) -> str:
        terms = [given]
        if cell.recurrent_kernel is not None:
            kernel = self.weight(f"{self.prefix}recurrent_kernel")
            terms.append(self.part_of("MatMul", [before["hidden"], kernel], "from_hidden"))
        return self.activate(cell.activation, self.total(terms, "z"), "hidden.after")

    def _advance_lstm(self, cell: LSTM, given: str, before: States) -> States:
        kernel = self.weight(f"{self.prefix}recurrent_kernel")
        own = self.part_of("MatMul", [before["hidden"], kernel], "from_hidden")
        gates = self.total([given, own], "gates")
        names = [self.name(f"gates.{letter}") for letter in "ifgo"]
        i, f, g, o = self.graph.nodes("Split", [gates], names, axis=-1)
        i = self.activate(cell.gate_activation, i, "input_gate")
        f = self.activate(cell.gate_activation, f, "forget_gate")
        g = self.activate(cell.activation, g, "candidate")
        o = self.activate(cell.gate_activation, o, "output_gate")
        kept = self.part_of("Mul", [f, before["cell"]], "cell.kept")
        written = self.part_of("Mul", [i, g], "cell.written")
        c = self.part_of("Add", [kept, written], "cell.after")
        squashed = self.activate(cell.activation, c, "cell.squashed")
        return {"hidden": self.part_of("Mul", [o, squashed], "hidden.after"), "cell": c}

    def _advance_gru(self, cell: GRU, given: str, before: States) -> str:
        h, units = before["hidden"], cell.n_out
        two, one = self._gru_parts("recurrent_kernel", 1, units)
        bias_two, bias_one = None, None
        if cell.recurrent_bias is not None:
            bias_two, bias_one = self._gru_parts("recurrent_bias", 0, units)
        gates_x, n_x = self._split(given, units)
        own = self.affine(h, two, bias_two, "gates.from_hidden")
        gates = self.activate(cell.gate_activation, self.total([gates_x, own], "gates"), "gates")
        names = [self.name("reset_gate"), self.name("update_gate")]
        r, z = self.graph.nodes("Split", [gates], names, axis=-1)
        if cell.reset_after:
            after = self.affine(h, one, bias_one, "candidate.from_hidden")
            from_state = self.part_of("Mul", [r, after], "candidate.reset")
        else:
            reset = self.part_of("Mul", [r, h], "hidden.reset")
            from_state = self.affine(reset, one, bias_one, "candidate.from_hidden")
        n = self.activate(cell.activation, self.total([n_x, from_state], "n"), "candidate")
        # z h + (1 - z) n = n + z (h - n)
        change = self.part_of("Mul", [z, self.part_of("Sub", [h, n], "change")], "kept")
        return self.part_of("Add", [n, change], "hidden.after")

    def _gru_parts(self, label: str, axis: int, units: int) -> list[str]:
        """Return a weight of a GRU in two parts: for both gates, and for the candidate."""
        label = f"{self.prefix}{label}"
        names = [f"{self.node.name}.{label}.{part}" for part in ("gates", "candidate")]
        sizes = self.graph.integers(2 * units, units)
        inputs = [self.weight(label), sizes]
        return self.graph.weights.derive_all(names, "Split", inputs, axis=axis)

    def _split(self, given: str, units: int) -> list[str]:
        names = [self.name("gates.from_input"), self.name("candidate.from_input")]
        sizes = self.graph.integers(2 * units, units)
        return self.graph.nodes("Split", [given, sizes], names, axis=-1)


@emits(SimpleRNN, LSTM, GRU)
class SoleCellEmitter(CellEmitter[SimpleRNN | LSTM | GRU]):
    """A Scan over the steps of a cell; units that do not recur need none."""

    answers = "hidden"

    @property
    def cell(self) -> Cell:
        """The operator itself."""
        return self.operator

    @property
    def recurs(self) -> bool:
        """Whether the units of the step before are needed."""
        return not isinstance(self.cell, SimpleRNN) or self.cell.recurrent_kernel is not None

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return the sizes of the states of the cell."""
        return self.cell_sizes if self.recurs else {}

    @property
    def widths(self) -> Mapping[str, int]:
        """Return the width of all gates."""
        return {"given": int(self.cell.kernel.shape[1])}

    def project(self, x: str) -> States:
        """Add what the input contributes to the gates."""
        return {"given": self.affine(x, self.weight("kernel"), self.optional("bias"), "given")}

    def advance(self, parts: States, before: States) -> States:
        """Add one step of the cell."""
        return self.advance_cell(parts["given"], before)

    def sequence(self, *inputs: str) -> str:
        """Add all steps."""
        return super().sequence(*inputs) if self.recurs else self.step({}, *inputs)[0]

    def last(self, *inputs: str) -> str:
        """Add the last step."""
        if self.recurs:
            return super().last(*inputs)
        return self.step({}, self.last_frame(inputs[0]))[0]


@emits(LMU)
class LMUEmitter(CellEmitter[LMU]):
    """A Scan over the memory, and the hidden cell if it recurs; otherwise that is outside."""

    prefix = "hidden."

    @property
    def cell(self) -> Cell:
        """The hidden cell."""
        assert self.operator.hidden is not None
        return self.operator.hidden

    @property
    def has_hidden(self) -> bool:
        """Whether there is a hidden cell."""
        return self.operator.hidden is not None

    @property
    def recurs(self) -> bool:
        """Whether the hidden units of the step before are needed, so that they are a state."""
        cell = self.operator.hidden
        if isinstance(cell, SimpleRNN):
            feeds = self.operator.hidden_encoders is not None
            return feeds or cell.recurrent_kernel is not None
        return cell is not None

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return the sizes of the memory and of the cell."""
        return {
            "memory": self.operator.memory.size,
            **(self.cell_sizes if self.recurs else {}),
        }

    @property
    def answers(self) -> str:
        """Return the hidden units if they are a state, and the memory otherwise."""
        return "hidden" if self.recurs else "memory"

    @property
    def _projects_cell(self) -> bool:
        return self.recurs and self.operator.hidden_takes_input

    @property
    def widths(self) -> Mapping[str, int]:
        """Return the channels, and the gates if the cell takes the input."""
        gates = {"given": int(self.cell.kernel.shape[1])} if self._projects_cell else {}
        return {"u": self.operator.memory.channels, **gates}

    def project(self, x: str) -> States:
        """Add what the input contributes to the channels and to the gates."""
        bias = self.optional("memory_bias")
        parts = {"u": self.affine(x, self.weight("input_encoders"), bias, "u")}
        if self._projects_cell:
            parts["given"] = self._from_input(x)
        return parts

    def advance(self, parts: States, before: States) -> States:
        """Add one step of the memory, then of the cell."""
        terms, m = [parts["u"]], before["memory"]
        if (kernel := self.optional("hidden_encoders")) is not None:
            terms.append(self.part_of("MatMul", [before["hidden"], kernel], "u.from_hidden"))
        if (kernel := self.optional("memory_encoders")) is not None:
            terms.append(self.part_of("MatMul", [m, kernel], "u.from_memory"))
        m = self.advance_memory(self.operator.memory, m, self.total(terms, "u"))
        if not self.recurs:
            return {"memory": m}
        return {"memory": m, **self.advance_cell(self._given(m, parts.get("given")), before)}

    def answer(self, x: str, state: str) -> str:
        """Add the hidden units, if they are no state."""
        if self.operator.hidden is None or self.recurs:
            return self.output_of("Identity", [state])
        from_input = self._from_input(x) if self.operator.hidden_takes_input else None
        hidden = self.advance_cell(self._given(state, from_input), {})["hidden"]
        return self.output_of("Identity", [hidden])

    def last(self, *inputs: str) -> str:
        """Add the last step; the memory runs in blocks if nothing feeds back and nothing recurs."""
        if self.operator.feeds_back or self.recurs:
            return super().last(*inputs)
        (x,) = inputs
        m = self.last_memory(self.operator.memory, self.project(x)["u"])
        return self.answer(self.last_frame(x), m)

    def _given(self, m: str, from_input: str | None) -> str:
        """Add what memory, input and bias contribute to the gates."""
        kernel = self._kernels()[0]
        if from_input is None:
            return self.affine(m, kernel, self.optional("hidden.bias"), "from_memory")
        own = self.part_of("MatMul", [m, kernel], "from_memory")
        return self.total([own, from_input], "given")

    def _from_input(self, x: str) -> str:
        """Add what the input and the bias contribute to the gates."""
        return self.affine(x, self._kernels()[1], self.optional("hidden.bias"), "from_input")

    def _kernels(self) -> list[str]:
        """Return the kernel of the cell, in two parts if it takes the input: for m and for x."""
        if not self.operator.hidden_takes_input:
            return [self.weight("hidden.kernel")]
        names = [f"{self.node.name}.hidden.kernel.{part}" for part in ("memory", "input")]
        sizes = self.graph.integers(self.operator.memory.size, self.operator.n_in)
        inputs = [self.weight("hidden.kernel"), sizes]
        return self.graph.weights.derive_all(names, "Split", inputs, axis=0)
