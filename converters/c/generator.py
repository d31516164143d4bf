"""The header and the source of a network in C: one function for each component of its graph.

A network is one struct: states, and rings of the last messages that something reads. ``step`` takes
the messages of one frame of the input and computes every population whose frames are there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import lmu_deploy
from converters.c.rules import (
    BYTES,
    NUMBER,
    Key,
    Layout,
    Tables,
    each,
    finish,
    identifier,
    state_size,
    update,
)
from converters.c.text import (
    DRIVE,
    HEADER_NOTE,
    LINES,
    PACKED_DRIVE,
    RUNTIME,
    SEGMENTS,
    SPARSE_DRIVE,
    header,
    interface,
)
from lmu_deploy.core.integer.graph import Component, sources
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Edge, Place, largest
from lmu_deploy.core.integer.populations import Population
from lmu_deploy.core.integer.reductions import Reduction

_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Source:
    """Generated text, with its sizes.

    Attributes
    ----------
    name : str
        Prefix of all public names, and of the files.
    header, code : str
    flash, ram : int
        Bytes of constant arrays, and of the struct.
    """

    name: str
    header: str
    code: str
    flash: int
    ram: int


def generate(
    network: IntegerNetwork, name: str, sparse: bool = False, pack: bool = False
) -> Source:
    """Return a network as C99.

    Parameters
    ----------
    network : IntegerNetwork
    name : str
        Prefix of all public names.
    sparse : bool
        Whether connections store only nonzero weights where that takes less memory.
    pack : bool
        Whether connections whose weights have at most 4 bits store two in a byte.

    Raises
    ------
    InputError
        When nodes run on the host.
    """
    return Generator(network, identifier(name).lower(), sparse, pack).source()


class Generator:
    """Text of a network in C, collected population by population."""

    def __init__(self, network: IntegerNetwork, name: str, sparse: bool, pack: bool) -> None:
        self.network, self.name, self.sparse, self.pack = network, name, sparse, pack
        self.layout, self.tables = Layout(network), Tables()
        self.limits = {place: s.message.limit for place, s in sources(network).items()}
        self.total = "int64_t" if self._wide() else "int32_t"
        self.used: set[str] = set()
        self.longest = 0
        self.late: list[str] = []
        widest = max((self.limits[place] for place, _ in self.layout.depths), default=0)
        self.message = "int16_t" if widest < 2**15 else "int32_t"
        self.fields: list[tuple[str, str, int]] = []

    def source(self) -> Source:
        """Return the files."""
        bodies = [self._component(number, c) for number, c in enumerate(self.layout.components)]
        self._add_fields()
        note = HEADER_NOTE.format(
            name=self.name,
            version=lmu_deploy.__version__,
            fingerprint=self.network.fingerprint()[:16],
        )
        ram = sum(BYTES[kind] * size for kind, _, size in self.fields)
        ram += 8 * len(self.network.populations)
        parts = [note, f'#include "{self.name}.h"\n', RUNTIME, *self._helpers()]
        parts += [*self.tables.texts, *bodies, interface(self)]
        return Source(self.name, note + header(self), "\n".join(parts), self.tables.bytes, ram)

    @property
    def cast(self) -> str:
        """Return what narrows a message to the type of the rings."""
        return "(int16_t)" if self.message == "int16_t" else ""

    # What the struct holds.

    def _add_fields(self) -> None:
        layout = self.layout
        for key, depth in layout.depths.items():
            size = self.network[key[0]].size
            ring = f"{layout.ring(key)}_ring[{depth}][{size}]"
            self.fields.append((self.message, ring, depth * size))
            if key[1]:
                self.fields.append(("int32_t", f"{layout.ring(key)}_held[{size}]", size))
        for population in layout.populations:
            own = layout.names[population.place]
            if (size := state_size(population)) > 0:
                self.fields.append(("int32_t", f"{own}_state[{size}]", size))
            if isinstance(population, Series):
                self.fields.append(("int32_t", f"{own}_vector[{size}]", size))
                self.fields.append(("int32_t", f"{own}_term[{size}]", size))
            if isinstance(population, Reduction):
                self.fields.append(("int32_t", f"{own}_sum[{population.size}]", population.size))
        flags = [self.done(layout.network.input.place)]
        flags += [self.done(component.populations[0].place) for component in layout.components]
        self.fields += [("int32_t", "running", 1)]
        self.fields += [("int32_t", flag.removeprefix("s->"), 1) for flag in flags]

    # One component.

    def _component(self, number: int, component: Component) -> str:
        names, network = self.layout.names, self.network
        first = component.populations[0]
        count = f"s->{names[first.place]}_count"
        conditions = []
        for edge in component.outside:
            there = f"s->{names[edge.source]}_count"
            done = self.done(edge.source)
            after = f" + ({done} ? {edge.after} : 0)" if edge.after > 0 else ""
            missing = f" - {-edge.after}" if edge.after < 0 else ""
            last = f"n * {edge.stride}" if edge.stride > 1 else "n"
            shift = max(edge.offsets)
            text = f" + {shift}" if shift > 0 else f" - {-shift}" if shift < 0 else ""
            conditions.append(f"{last}{text} < {there}{missing}{after}")
        conditions = list(dict.fromkeys(conditions))
        lines = [
            f"/* {', '.join(str(p.place) for p in component.populations)} */",
            f"static int {self.name}_compute_{number}({self.name}_t *s, int32_t *y)",
            "{",
            "    int frames = 0;",
        ]
        reduction = first if isinstance(first, Reduction) else None
        own = f"s->{names[first.place]}_frames" if reduction else count
        if reduction:
            self.fields.append(("int32_t", f"{names[first.place]}_frames", 1))
        ended = self.done(network.input.place)
        lines += [
            "    do {",
            f"        const int64_t n = {own};",
            f"        if (!({' && '.join(conditions)})) {{",
            "            break;",
            "        }",
        ]
        for population in component.populations:
            assert isinstance(population, Population)
            lines += [f"        {line}" for line in self._frame(population)]
        if reduction:
            lines.append(f"        {own}++;")
        # After the end, one frame in a round: readers take it before the ring has the next.
        lines += ["        frames++;", f"    }} while (!{ended});"]
        sources = list(dict.fromkeys(self.done(edge.source) for edge in component.outside))
        mine = self.done(first.place)
        lines.append(f"    if (!frames && {' && '.join(sources)} && !{mine}) {{")
        if reduction:
            lines += [f"        {line}" for line in self._reduced(reduction, own)]
        lines += [f"        {mine} = 1;", "        s->running--;"]
        if reduction:  # its only frame is the one that it sends at the end
            lines += ["        frames = 1;", "    } else {", "        frames = 0;"]
        lines.append("    }")
        if not any(p.place == network.output for p in component.populations):
            lines.append("    (void)y;")
        return "\n".join([*lines, "    return frames;", "}", ""])

    def done(self, place: Place) -> str:
        """Return what is true as soon as a population has computed its last frame."""
        population = self.network[place]
        for component in self.layout.components:
            if any(p.place == population.place for p in component.populations):
                return f"s->{self.layout.names[component.populations[0].place]}_done"
        return f"s->{self.layout.names[self.network.input.place]}_done"

    def _frame(self, population: Population) -> list[str]:
        """Return the statements of one frame of a population."""
        name, size = self.layout.names[population.place], population.size
        # A reduction has no messages before its end.
        messages = [] if isinstance(population, Reduction) else [f"int32_t h[{size}];"]
        lines = [
            "{",
            f"    {self.total} d[{population.drive_size}];",
            *(f"    {line}" for line in messages),
            "    size_t i;",
        ]
        bias = population.bias
        start = "0"
        if bias is not None:
            start = f"{self.tables.add('int32_t', f'{name}_bias', bias)}[i]"
        lines += [f"    {line}" for line in each(population.drive_size, [f"d[i] = {start};"])]
        for edge in self.network.entering(population.entrance):
            lines += [f"    {line}" for line in self._drive(edge)]
        number = str(self.network.order(population.place))
        rule = [line.replace(NUMBER, number) for line in update(population, name, self.tables)]
        lines += [line if line.startswith("#") else f"    {line}" for line in rule]
        if not isinstance(population, Reduction):
            lines += [f"    {line}" for line in self._send(population)]
        return [*lines, "}"]

    def _reduced(self, population: Reduction, frames: str) -> list[str]:
        return [
            f"const int64_t n = {frames};",
            f"int32_t h[{population.size}];",
            "size_t i;",
            *finish(population, self.layout.names[population.place]),
            *self._send(population),
            *([] if population.kind == "mean" else ["(void)n;"]),
        ]

    def _send(self, population: Population) -> list[str]:
        """Return the statements that keep messages, count the frame, and hand out outputs."""
        name = self.layout.names[population.place]
        count, lines = f"s->{name}_count", []
        states = isinstance(population, Integrators | Series)
        recorded = f"s->{name}_state" if states else "h"
        order = self.network.order(population.place)
        lines += self._trace(order, recorded, population.size, count)
        keys = list(self.layout.keys(population.place))
        for key in keys:
            lines += self.keep(key)
        if population.place == self.network.output:
            lines += each(population.size, ["y[i] = h[i];"])
        elif not keys:
            lines.append("(void)h;  /* no population receives these messages */")
        lines.append(f"{count}++;")
        return lines

    def keep(self, key: Key) -> list[str]:
        """Return the statements that put the messages h into a ring."""
        ring, size = self.layout.ring(key), self.network[key[0]].size
        name = self.layout.names[key[0]]
        slot = f"s->{ring}_ring[(size_t)s->{name}_count & {self.layout.depths[key] - 1}u][i]"
        number = list(self.layout.depths).index(key)
        if not key[1]:
            kept = each(size, [f"{slot} = {self.cast}h[i];"])
            return [*kept, *self._trace(number, "h", size, f"s->{name}_count", "EVENTS")]
        held = f"s->{ring}_held[i]"
        return [
            "{",
            f"    int32_t e[{size}];",
            *(
                f"    {line}"
                for line in each(
                    size,
                    (
                        f"const int32_t change = h[i] - {held};",
                        f"e[i] = change >= {key[1]} || change <= -{key[1]} ? change : 0;",
                        f"{held} += e[i];",
                        f"{slot} = {self.cast}{held};",
                    ),
                )
            ),
            *(f"    {t}" for t in self._trace(number, "e", size, f"s->{name}_count", "EVENTS")),
            "    (void)e;",
            "}",
        ]

    def _trace(
        self, number: int, what: str, size: int, frame: str, kind: str = "FRAME"
    ) -> list[str]:
        """Return a call that tests may define, with what a population holds in a frame."""
        return [
            f"#ifdef LMU_TRACE_{kind}",
            f"LMU_TRACE_{kind}({number}, {frame}, {what}, {size});",
            "#endif",
        ]

    # Drives.

    def _drive(self, edge: Edge) -> list[str]:
        connection, layout = edge.connection, self.layout
        key = edge.source, connection.threshold
        name = (
            f"w_{layout.names[self.network[edge.target].place]}_{identifier(edge.name or 'input')}"
        )
        ring, depth = layout.ring(key), layout.depths[key]
        source, size = layout.names[edge.source], self.network[edge.source].size
        pointers = []
        for number, offset in enumerate(edge.offsets):
            at = f"n * {edge.stride}" if edge.stride > 1 else "n"
            at += f" + {offset}" if offset > 0 else f" - {-offset}" if offset < 0 else ""
            frame = f"s->{ring}_ring[(size_t)({at}) & {depth - 1}u]"
            if offset < 0 or edge.after > 0:
                there = []
                if offset < 0:
                    there.append(f"{at} >= 0")
                if edge.after > 0:
                    there.append(f"{at} < s->{source}_count")
                before = self._initial(edge.source) if edge.recurrent else self._zeros(size)
                frame = f"{' && '.join(there)} ? {frame} : {before}"
            pointers.append(f"x[{number}] = {frame};")
        limit = largest(connection.accumulator_bits)
        slices, rows, _ = connection.slices.shape
        gains = self.tables.add("int16_t", f"{name}_gain", connection.multiplier)
        shifts = self.tables.add("uint8_t", f"{name}_shift", connection.shift)
        sums = np.abs(connection.slices.astype(np.int64)).sum(axis=2) * self.limits[edge.source]
        wide = int(sums.max(initial=0)) > _INT32
        kind = "_wide" if wide else ""
        drive = f"d + {edge.row}" if edge.row else "d"
        nonzero = int(np.count_nonzero(connection.slices))
        columns = len(edge.offsets) * size
        narrow = connection.slices.min(initial=0) >= -8 and connection.slices.max(initial=0) <= 7
        packed = self.pack and bool(narrow)
        dense_bytes = connection.slices.size // (2 if packed else 1)
        if self.sparse and columns < 2**16 and 3 * nonzero + 2 * slices * rows < dense_bytes:
            weights = self._sparse(name, connection.slices)
            self.used.add(f"sparse{kind}")
            call = (
                f"lmu_sparse{kind}({weights}, {gains}, {shifts}, {slices}u, {rows}u, {size}u, "
                f"{limit}, x, {drive});"
            )
        else:
            form = "packed" if packed else "drive"
            if packed:
                weights = self.tables.add("uint8_t", name, _pairs(connection.slices))
            else:
                weights = self.tables.add("int8_t", name, connection.slices)
            self.used.add(f"{form}{kind}")
            call = (
                f"lmu_{form}{kind}({weights}, {gains}, {shifts}, {slices}u, {rows}u, "
                f"{len(edge.offsets)}u, {size}u, {limit}, x, {drive});"
            )
        return [
            "{",
            f"    const {self.message} *x[{len(edge.offsets)}];",
            *(f"    {line}" for line in pointers),
            f"    {call}",
            "}",
        ]

    def _sparse(self, name: str, slices: np.ndarray) -> str:
        """Store nonzero weights with their columns; return the three names."""
        flat = slices.reshape(-1, slices.shape[2])
        rows, columns = np.nonzero(flat)
        values = self.tables.add("int8_t", name, flat[rows, columns])
        index = self.tables.add("uint16_t", f"{name}_column", columns)
        counts = np.bincount(rows, minlength=len(flat))
        return f"{values}, {index}, {self.tables.add('uint16_t', f'{name}_row', counts)}"

    def _zeros(self, size: int) -> str:
        """Return the name of an array of at least that many zeros."""
        self.longest = max(self.longest, size)
        return "lmu_zeros"

    def _initial(self, place: Place) -> str:
        """Return the name of the messages before the first frame."""
        population = self.network[place]
        first = getattr(population, "first_message", None)
        if first is None:
            return self._zeros(population.size)
        name = f"{self.layout.names[place]}_initial"
        if name not in self.used:
            self.used.add(name)
            self.tables.add(self.message, name, first)
        return name

    def _helpers(self) -> list[str]:
        """Return the functions of the runtime that the network calls."""
        total, text = self.total, "\n".join(self.tables.texts)
        found = []
        if self.longest:
            found.append(f"static const {self.message} lmu_zeros[{self.longest}] = {{0}};\n")
        for kind, sum_type in (("", "int32_t"), ("_wide", "int64_t")):
            values = {"kind": kind, "total": total, "sum": sum_type, "message": self.message}
            if f"drive{kind}" in self.used:
                found.append(DRIVE.format(**values))
            if f"packed{kind}" in self.used:
                found.append(PACKED_DRIVE.format(**values))
            if f"sparse{kind}" in self.used:
                found.append(SPARSE_DRIVE.format(**values))
        if "_slope" in text:
            found += [LINES] if self._has_lines() else []
            found += [SEGMENTS] if "_points" in text else []
        return found

    def _has_lines(self) -> bool:
        text = "\n".join(self.tables.texts)
        return text.count("_slope[") > text.count("_points[")

    def _wide(self) -> bool:
        """Return whether a sum of drives may exceed 32 bits."""
        for population in self.layout.populations:
            inflow = largest(24)
            for edge in self.network.entering(population.entrance):
                connection = edge.connection
                weights = np.abs(connection.slices.astype(np.int64)).sum(axis=2)
                sums = np.minimum(
                    weights * self.limits[edge.source], largest(connection.accumulator_bits)
                )
                drives = (sums * connection.multiplier >> connection.shift) + 1
                inflow += int(drives.sum(axis=0).max(initial=0))
            if inflow > _INT32:
                return True
        return False


def _pairs(weights: np.ndarray) -> np.ndarray:
    """Return weights of 4 bits, two in a byte, the first in the low half."""
    halves = weights.ravel().astype(np.int64) & 15
    halves = np.append(halves, np.zeros(len(halves) % 2, np.int64))
    return halves[0::2] | halves[1::2] << 4
