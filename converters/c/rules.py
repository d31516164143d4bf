"""What a network in C keeps between frames, and the update rule of each population.

A population keeps the last frames that something reads, in a ring whose length is a power of two.
The length follows from running the counters of all populations without data: a frame is computed
as soon as the frames that it reads are there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.functions import Function, PiecewiseLinear
from lmu_deploy.core.integer.gated import GRUUnits, LSTMUnits
from lmu_deploy.core.integer.graph import Component, components, outlets
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Edge, Place, largest
from lmu_deploy.core.integer.populations import (
    GATE,
    GATE_BITS,
    Input,
    Output,
    Pointwise,
    Population,
    Product,
)
from lmu_deploy.core.integer.reductions import Maximum, Reduction

Key = tuple[Place, int]
"""A source and a threshold."""


def identifier(text: str) -> str:
    """Return a C identifier for a name.

    Examples
    --------
    >>> identifier("block.0/lmu-1")
    'block_0_lmu_1'
    """
    found = re.sub(r"[^A-Za-z0-9_]", "_", text) or "network"
    return f"n{found}" if found[0].isdigit() else found


@dataclass
class Layout:
    """Names and sizes of a network in C.

    Parameters
    ----------
    network : IntegerNetwork

    Attributes
    ----------
    populations : list of Population
        All but the input, in the order of computation.
    components : list of Component
        Without that of the input.
    names : dict of Place to str
        Identifiers of populations, each different.
    depths : dict of (source, threshold) to int
        Lengths of the rings.

    Raises
    ------
    InputError
        When nodes run on the host.
    """

    network: IntegerNetwork
    populations: list[Population] = field(init=False)
    components: list[Component] = field(init=False)
    names: dict[Place, str] = field(init=False)
    depths: dict[Key, int] = field(init=False)

    def __post_init__(self) -> None:
        network = self.network
        if network.on_host:
            nodes = [
                f"{node.name} ({node.operator.describe()})"
                for host in network.on_host
                for node in host.network.nodes
            ]
            raise InputError(
                f"export to c: {', '.join(nodes)} run on the host in float64, and the C code has "
                "integers alone; train the network without them (BatchNorm instead of LayerNorm, "
                "say)."
            )
        self.populations = [
            p for p in network.populations if isinstance(p, Population) and not isinstance(p, Input)
        ]
        self.components = [
            c for c in components(network) if not isinstance(c.populations[0], Input | HostNodes)
        ]
        self.names = {}
        used: set[str] = set()
        for population in network.populations:
            name, number = identifier(str(population.place)), 2
            while name in used:
                name, number = f"{identifier(str(population.place))}_{number}", number + 1
            used.add(name)
            self.names[population.place] = name
        self.depths = self._depths()

    def keys(self, place: Place) -> list[Key]:
        """Return the keys of a source that something reads."""
        return [key for key in self.depths if key[0] == place]

    def ring(self, key: Key) -> str:
        """Return the name of a ring."""
        suffix = f"_t{key[1]}" if key[1] else ""
        return f"{self.names[key[0]]}{suffix}"

    def _depths(self) -> dict[Key, int]:
        keys = {
            (outlet.source, outlet.threshold)
            for outlet in outlets(self.network)
            if outlet.source == self.network[outlet.source].place
        }
        reach = 1 + sum(
            (max(map(abs, e.offsets)) + 1) * e.stride for e in self.network.edges if not e.recurrent
        )
        count = {p.place: 0 for p in self.network.populations}
        deepest = dict.fromkeys(sorted(keys, key=lambda k: (self.network.order(k[0]), k[1])), 1)
        longest = min(4 * reach + 64, 20_000)
        for _ in range(longest):
            count[self.network.input.place] += 1
            for component in self.components:
                first = component.populations[0]
                if isinstance(first, Reduction):
                    if (ready := self._ready(component, count)) > 0:
                        self._measure(component.outside, count[first.place], count, deepest)
                        count[first.place] += ready
                    continue
                while self._ready(component, count) > 0:
                    n = count[first.place]
                    for population in component.populations:
                        count[population.place] += 1
                    self._measure((*component.outside, *component.inside), n, count, deepest)
        return {key: 1 << (depth - 1).bit_length() for key, depth in deepest.items()}

    def _ready(self, component: Component, count: dict[Place, int]) -> int:
        done = count[component.populations[0].place]
        there = [edge.frames(count[edge.source], ended=False) for edge in component.outside]
        return min(there) - done

    def _measure(
        self, edges: tuple[Edge, ...], n: int, count: dict[Place, int], deepest: dict[Key, int]
    ) -> None:
        """Widen the rings of what frame n reads."""
        for edge in edges:
            key = edge.source, edge.connection.threshold
            first = max(n * edge.stride + min(edge.offsets), 0)
            deepest[key] = max(deepest[key], count[edge.source] - first)


# Update rules

NUMBER = "@NUMBER@"
"""Placeholder for the number of the population, which the generator fills in."""
_KINDS = {"linear": 0, "positive": 1, "odd": 2}


def array(kind: str, name: str, values: np.ndarray) -> str:
    """Return a constant array as C text, eight to sixteen values in a line."""
    flat = np.asarray(values).ravel().tolist()
    least = {"int8_t": -128, "int16_t": -32768, "int32_t": -(2**31)}.get(kind)
    # C has no literal of type int32_t for the least int32.
    texts = [f"({kind})({v + 1} - 1)" if v == least and kind == "int32_t" else str(v) for v in flat]
    lines = [", ".join(texts[i : i + 16]) for i in range(0, len(texts), 16)]
    body = ",\n    ".join(lines)
    return f"static const {kind} {name}[{max(len(flat), 1)}] = {{\n    {body or '0'}\n}};\n"


BYTES = {"int8_t": 1, "uint8_t": 1, "int16_t": 2, "uint16_t": 2, "int32_t": 4}


class Tables:
    """Constant arrays of a source file, and how many bytes they take."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.bytes = 0

    def add(self, kind: str, name: str, values: np.ndarray) -> str:
        """Add an array and return its name."""
        self.texts.append(array(kind, name, values))
        self.bytes += BYTES[kind] * max(np.asarray(values).size, 1)
        return name

    def function(self, name: str, function: Function) -> Callable[[str, int], str]:
        """Add the arrays of a function; return what gives the expression of its value.

        That takes the expression of the drive, and the limit of the result.
        """
        slope = self.add("int16_t", f"{name}_slope", function.slope)
        intercept = self.add("int32_t", f"{name}_intercept", function.intercept)
        n, shift = len(function.slope), function.shift
        if isinstance(function, PiecewiseLinear):
            kind = _KINDS[function.kind]
            return lambda z, limit: (
                f"lmu_lines({z}, {slope}, {intercept}, {n}u, {shift}u, {kind}, {limit})"
            )
        points = self.add("int32_t", f"{name}_points", function.breakpoints)
        return lambda z, limit: (
            f"lmu_sat(lmu_segments({z}, {points}, {slope}, {intercept}, {n}u, {shift}u), {limit})"
        )


def each(size: int, lines: Iterable[str], index: str = "i") -> list[str]:
    """Return a loop over neurons."""
    body = [f"    {line}" for line in lines]
    return [f"for ({index} = 0; {index} < {size}u; {index}++) {{", *body, "}"]


def update(population: Population, name: str, tables: Tables) -> list[str]:
    """Return the statements of a frame.

    They read the sums ``d`` (with the bias), may read and write the state ``s->{name}_state``, and
    write the messages ``h``; ``i`` is a free index.
    """
    return _RULES[type(population)](population, name, tables)


def state_size(population: Population) -> int:
    """Return how many 32-bit integers a population keeps besides messages."""
    if isinstance(population, Series):
        return population.size
    return 0 if population.stateless or isinstance(population, Reduction) else population.size


def _integrators(p: Population, name: str, tables: Tables) -> list[str]:
    assert isinstance(p, Integrators)
    state = f"s->{name}_state[i]"
    return each(
        p.size,
        (
            f"{state} = lmu_sat((int64_t){state} + d[i], {p.state.limit});",
            f"h[i] = lmu_sat(lmu_ms({state}, 1, {p.message_shift}u), {p.message.limit});",
        ),
    )


def _series(p: Population, name: str, tables: Tables) -> list[str]:
    assert isinstance(p, Series)
    gains = tables.add("int16_t", f"{name}_gain", p.multiplier)
    shifts = tables.add("uint8_t", f"{name}_shift", p.shift)
    terms = tables.add("uint8_t", f"{name}_term_shift", p.term_shift)
    limit, message, order = p.state.limit, p.message.limit, p.order
    m, v, w = f"s->{name}_state", f"s->{name}_vector", f"s->{name}_term"
    return [
        "{",
        "    size_t c, k, step;",
        f"    for (i = 0; i < {p.size}u; i++) {{",
        f"        d[i] = lmu_sat(d[i], {limit});",
        "    }",
        f"    for (step = 0; step < {p.substeps}u; step++) {{",
        f"        for (k = 0; k < {p.terms}u; k++) {{",
        "#ifdef LMU_TRACE_INNER",
        f"            LMU_TRACE_INNER({NUMBER}, n, {v}, {p.size});",
        "#endif",
        f"            for (c = 0; c < {p.channels}u; c++) {{",
        f"                const int32_t *const x = {v} + c * {order}u;",
        "                int64_t total = 0, even = 0, odd = 0;",
        f"                for (i = 0; i < {order}u; i++) {{",
        "                    total += x[i];",
        "                }",
        f"                for (i = 0; i < {order}u; i++) {{",
        "                    int64_t before, sum;",
        "                    if (i & 1u) {",
        "                        odd += x[i];",
        "                        before = odd - even;",
        "                    } else {",
        "                        even += x[i];",
        "                        before = even - odd;",
        "                    }",
        "                    sum = -(total - even - odd + before);",
        f"                    sum = lmu_sat(sum, {largest(p.accumulator_bits)});",
        f"                    sum = lmu_ms(sum, {gains}[k * {order}u + i], "
        f"{shifts}[k * {order}u + i]);",
        f"                    {w}[c * {order}u + i] = lmu_sat("
        f"k ? sum : sum + d[c * {order}u + i], {limit});",
        "                }",
        "            }",
        f"            for (i = 0; i < {p.size}u; i++) {{",
        f"                {m}[i] = lmu_sat((int64_t){m}[i] + {w}[i], {limit});",
        f"                if (k + 1u < {p.terms}u) {{",
        f"                    {v}[i] = lmu_sat(lmu_ms({w}[i], 1, {terms}[k]), {message});",
        "                }",
        "            }",
        "        }",
        f"        for (i = 0; i < {p.size}u; i++) {{",
        f"            {v}[i] = lmu_sat(lmu_ms({m}[i], 1, {p.message_shift}u), {message});",
        "        }",
        "    }",
        f"    for (i = 0; i < {p.size}u; i++) {{",
        f"        h[i] = {v}[i];",
        "    }",
        "}",
    ]


def _pointwise(p: Population, name: str, tables: Tables) -> list[str]:
    assert isinstance(p, Pointwise)
    value = tables.function(name, p.function)(f"lmu_sat(d[i], {p.drive.limit})", p.message.limit)
    return each(p.size, [f"h[i] = (int32_t){value};"])


def _product(p: Population, name: str, tables: Tables) -> list[str]:
    assert isinstance(p, Product)
    a = f"lmu_sat(d[i], {p.first_drive.limit})"
    b = f"lmu_sat(d[{p.size}u + i], {p.second_drive.limit})"
    if p.first is not None:
        a = tables.function(f"{name}_first", p.first)(a, largest(24))
    if p.second is not None:
        b = tables.function(f"{name}_second", p.second)(b, GATE.limit)
    return each(
        p.size,
        (
            f"const int64_t a = lmu_sat({a}, {largest(24)});",
            f"const int32_t b = lmu_sat({b}, {GATE.limit});",
            f"h[i] = lmu_sat(lmu_ms(a, b, {p.shift}u), {p.message.limit});",
        ),
    )


def _lstm(p: Population, name: str, tables: Tables) -> list[str]:
    assert isinstance(p, LSTMUnits)
    gate = tables.function(f"{name}_gate", p.gate)
    value = tables.function(f"{name}_value", p.activation)
    output = tables.function(f"{name}_output", p.output)
    c, drive = f"s->{name}_state[i]", p.drive.limit
    z = [f"lmu_sat(d[{n * p.size}u + i], {drive})" for n in range(4)]
    return each(
        p.size,
        (
            f"const int32_t gi = (int32_t){gate(z[0], GATE.limit)};",
            f"const int32_t gf = (int32_t){gate(z[1], GATE.limit)};",
            f"const int64_t g = {value(z[2], GATE.limit)};",
            f"const int32_t go = (int32_t){gate(z[3], GATE.limit)};",
            f"const int64_t kept = lmu_ms({c}, gf, {GATE_BITS}u);",
            f"{c} = lmu_sat(kept + lmu_ms(g, gi, {p.cell_shift}u), {p.state.limit});",
            f"h[i] = lmu_sat(lmu_ms({output(c, GATE.limit)}, go, {p.message_shift}u), "
            f"{p.message.limit});",
        ),
    )


def _gru(p: Population, name: str, tables: Tables) -> list[str]:
    assert isinstance(p, GRUUnits)
    gate = tables.function(f"{name}_gate", p.gate)
    value = tables.function(f"{name}_value", p.activation)
    state, drive = f"s->{name}_state[i]", p.drive.limit
    z = [f"lmu_sat(d[{n * p.size}u + i], {drive})" for n in range(4)]
    x = [f"const int64_t x = {z[2]};"]
    if p.resets:
        x = [
            f"const int32_t r = (int32_t){gate(z[0], GATE.limit)};",
            f"const int64_t x = lmu_sat({z[2]} + lmu_ms({z[3]}, r, {GATE_BITS}u), {drive});",
        ]
    return each(
        p.size,
        (
            *x,
            f"const int32_t u = (int32_t){gate(f'-(int64_t){z[1]}', GATE.limit)};",
            f"const int64_t target = {value('x', GATE.limit)} * {2**p.candidate_shift} - {state};",
            f"const int64_t change = lmu_sat(target, {p.state.limit});",
            f"{state} = lmu_sat({state} + lmu_ms(change, u, {GATE_BITS}u), {p.state.limit});",
            f"h[i] = lmu_sat(lmu_ms({state}, 1, {p.message_shift}u), {p.message.limit});",
        ),
    )


def _maximum(p: Population, name: str, tables: Tables) -> list[str]:
    assert isinstance(p, Maximum)
    return each(
        p.size,
        (
            "int64_t best = d[i];",
            "size_t k;",
            f"for (k = 1; k < {p.choices}u; k++) {{",
            f"    if (d[k * {p.size}u + i] > best) {{",
            f"        best = d[k * {p.size}u + i];",
            "    }",
            "}",
            f"h[i] = lmu_sat(best, {p.message.limit});",
        ),
    )


def _reduction(p: Population, name: str, tables: Tables) -> list[str]:
    assert isinstance(p, Reduction)
    sums = f"s->{name}_sum[i]"
    new = f"lmu_sat({sums} + d[i], {p.state.limit})"
    if p.kind in ("max", "last"):
        new = f"lmu_sat(d[i], {p.state.limit})"
    if p.kind == "max":
        return each(
            p.size,
            (
                f"const int32_t v = {new};",
                f"if (n == 0 || v > {sums}) {{",
                f"    {sums} = v;",
                "}",
            ),
        )
    return each(p.size, [f"{sums} = {new};"])


def finish(p: Reduction, name: str) -> list[str]:
    """Return the statements of a reduction's only frame, at the end of n frames."""
    value = f"s->{name}_sum[i]"
    if p.kind == "mean":
        return each(
            p.size,
            (
                f"const int64_t a = 2 * (int64_t){value} + n, b = 2 * n;",
                "const int64_t q = a / b;",
                f"h[i] = lmu_sat(a % b < 0 ? q - 1 : q, {p.message.limit});",
            ),
        )
    return each(p.size, [f"h[i] = lmu_sat({value}, {p.message.limit});"])


def _output(p: Population, name: str, tables: Tables) -> list[str]:
    return each(p.size, [f"h[i] = lmu_sat(d[i], {p.message.limit});"])


_RULES: dict[type[Population], Callable[[Population, str, Tables], list[str]]] = {
    Integrators: _integrators,
    Series: _series,
    Pointwise: _pointwise,
    Product: _product,
    LSTMUnits: _lstm,
    GRUUnits: _gru,
    Maximum: _maximum,
    Reduction: _reduction,
    Output: _output,
}
