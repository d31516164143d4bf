"""C text around the components of a network.

First the functions that every network contains: saturation, shifts, drives, functions, frames. Then
the header, and the functions init, step and finish, which a program calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.c.rules import BYTES, array, each
from lmu_deploy.core.integer.populations import Input

if TYPE_CHECKING:
    from converters.c.generator import Generator


HEADER_NOTE = """\
/* {name}: an integer network in C99, made by lmu_deploy {version}.
 *
 * It computes what docs/reference/integer-semantics.md, version 2, specifies, bit for bit:
 * integers only, no heap, no recursion, no library but <stdint.h> and <stddef.h>.
 * Fingerprint of the network: {fingerprint}
 */
"""

RUNTIME = """\
/* Right shifts of negative numbers must round down, as they do on every known compiler. */
typedef char lmu_shift_rounds_down[((-3) >> 1) == -2 ? 1 : -1];

static int32_t lmu_sat(int64_t v, int32_t limit)
{
    if (v > limit) {
        return limit;
    }
    if (v < -(int64_t)limit) {
        return -limit;
    }
    return (int32_t)v;
}

/* floor((v * g + 2^(s-1)) / 2^s) */
static int64_t lmu_ms(int64_t v, int32_t g, unsigned s)
{
    const int64_t half = s ? (int64_t)1 << (s - 1u) : 0;
    return (v * g + half) >> s;
}
"""

DRIVE = """\
/* Add the drive of one connection to d: x holds one pointer for each offset. */
static void lmu_drive{kind}(const int8_t *w, const int16_t *g, const uint8_t *s, size_t slices,
                       size_t rows, size_t taps, size_t size, int32_t limit,
                       const {message} *const *x, {total} *d)
{{
    size_t k, i, t, j;
    for (k = 0; k < slices; k++) {{
        for (i = 0; i < rows; i++) {{
            {sum} a = 0;
            for (t = 0; t < taps; t++) {{
                const {message} *const p = x[t];
                for (j = 0; j < size; j++) {{
                    a += ({sum})w[j] * p[j];
                }}
                w += size;
            }}
            d[i] += ({total})lmu_ms(lmu_sat(a, limit), *g++, *s++);
        }}
    }}
}}
"""

PACKED_DRIVE = """\
/* The same with weights of 4 bits, two in a byte, the first in the low half. */
static void lmu_packed{kind}(const uint8_t *w, const int16_t *g, const uint8_t *s, size_t slices,
                        size_t rows, size_t taps, size_t size, int32_t limit,
                        const {message} *const *x, {total} *d)
{{
    size_t k, i, t, j, n = 0;
    for (k = 0; k < slices; k++) {{
        for (i = 0; i < rows; i++) {{
            {sum} a = 0;
            for (t = 0; t < taps; t++) {{
                const {message} *const p = x[t];
                for (j = 0; j < size; j++, n++) {{
                    const int half = (n & 1u ? w[n / 2] >> 4 : w[n / 2]) & 15;
                    a += ({sum})((half ^ 8) - 8) * p[j];
                }}
            }}
            d[i] += ({total})lmu_ms(lmu_sat(a, limit), *g++, *s++);
        }}
    }}
}}
"""

SPARSE_DRIVE = """\
/* The same with the nonzero weights alone: n[] counts those of each row, j[] are their columns. */
static void lmu_sparse{kind}(const int8_t *w, const uint16_t *j, const uint16_t *n,
                        const int16_t *g, const uint8_t *s, size_t slices, size_t rows,
                        size_t size, int32_t limit, const {message} *const *x, {total} *d)
{{
    size_t k, i, m;
    for (k = 0; k < slices; k++) {{
        for (i = 0; i < rows; i++) {{
            {sum} a = 0;
            for (m = *n++; m > 0; m--) {{
                const size_t column = *j++;
                a += ({sum})*w++ * x[column / size][column % size];
            }}
            d[i] += ({total})lmu_ms(lmu_sat(a, limit), *g++, *s++);
        }}
    }}
}}
"""

LINES = """\
/* The least of lines; kind 0 is linear, 1 positive, 2 odd. */
static int64_t lmu_lines(int64_t z, const int16_t *slope, const int32_t *intercept, size_t n,
                         unsigned shift, int kind, int32_t limit)
{
    const int64_t p = kind == 2 ? (z < 0 ? -z : z) : (kind == 1 && z < 0 ? 0 : z);
    int64_t v = lmu_ms(p, slope[0], shift) + intercept[0];
    size_t k;
    for (k = 1; k < n; k++) {
        const int64_t line = lmu_ms(p, slope[k], shift) + intercept[k];
        if (line < v) {
            v = line;
        }
    }
    v = lmu_sat(v, limit);
    return kind == 2 && z < 0 ? -v : v;
}
"""

SEGMENTS = """\
/* Lines between breakpoints. */
static int64_t lmu_segments(int64_t z, const int32_t *points, const int16_t *slope,
                            const int32_t *intercept, size_t n, unsigned shift)
{
    size_t low = 0, high = n - 1;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (points[middle] <= z) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return lmu_ms(z, slope[low], shift) + intercept[low];
}
"""


def header(g: Generator) -> str:
    """Return the header: sizes, the struct, and the functions that a program calls."""
    name, network = g.name, g.network
    guard, entry = f"{name.upper()}_H", network.input
    fields = [f"    {kind} {declaration};" for kind, declaration, _ in g.fields]
    counts = [f"    int64_t {g.layout.names[p.place]}_count;" for p in network.populations]
    output = network[network.output]
    what = "the index of a token" if entry.tokens else "its messages"
    return "\n".join(
        [
            f"#ifndef {guard}",
            f"#define {guard}",
            "",
            "#include <stddef.h>",
            "#include <stdint.h>",
            "",
            f"#define {name.upper()}_INPUTS {entry.features}",
            f"#define {name.upper()}_OUTPUTS {network.n_out}",
            *_input_units(name.upper(), entry),
            f"#define {name.upper()}_INPUT_LIMIT {entry.message.limit}",
            "/* An output y stands for the real value y * OUTPUT_SCALE. */",
            f"#define {name.upper()}_OUTPUT_SCALE {output.scale!r}",
            "",
            "typedef struct {",
            *fields,
            *counts,
            f"}} {name}_t;",
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            "/* Prepare a network, or start a new sequence. */",
            f"void {name}_init({name}_t *s);",
            f"void {name}_reset({name}_t *s);",
            "",
            f"/* Take one frame of the input ({what}); return 1 if y is a new frame of the",
            " * output, otherwise 0. */",
            f"int {name}_step({name}_t *s, const int32_t x[{entry.features}], "
            f"int32_t y[{network.n_out}]);",
            "",
            "/* End the sequence: compute the next frame of the output that remains; return 0 if",
            " * there is none, so call it until then. Only a network that looks ahead or answers",
            " * once for a whole sequence needs it. */",
            f"int {name}_finish({name}_t *s, int32_t y[{network.n_out}]);",
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "",
            "#endif",
            "",
        ]
    )


def _input_units(upper: str, entry: Input) -> list[str]:
    """Return what turns real inputs into messages: one unit for all, or one for each channel."""
    scale = f"#define {upper}_INPUT_SCALE {entry.message.scale!r}"
    if entry.gain is None and entry.offset is None:
        sentence = "A real input x is the message rint(x / INPUT_SCALE), within +-INPUT_LIMIT."
        return [f"/* {sentence} */", scale]
    gain = np.ones(entry.size) if entry.gain is None else entry.gain
    offset = np.zeros(entry.size) if entry.offset is None else entry.offset
    return [
        "/* A real input x of channel i is the message",
        " * rint((x * INPUT_GAIN[i] + INPUT_OFFSET[i]) / INPUT_SCALE), within +-INPUT_LIMIT. */",
        scale,
        f"#define {upper}_INPUT_GAIN {{{', '.join(map(repr, gain.tolist()))}}}",
        f"#define {upper}_INPUT_OFFSET {{{', '.join(map(repr, offset.tolist()))}}}",
    ]


def interface(g: Generator) -> str:
    """Return the functions that a program calls: init, reset, step and finish."""
    name, network, layout = g.name, g.network, g.layout
    entry = network.input
    own = layout.names[entry.place]
    keys = layout.keys(entry.place)
    lines = [
        f"void {name}_init({name}_t *s)",
        "{",
        "    unsigned char *const bytes = (unsigned char *)s;",
        "    size_t i;",
        "    for (i = 0; i < sizeof(*s); i++) {",
        "        bytes[i] = 0;",
        "    }",
        f"    s->running = {len(layout.components)};",
    ]
    for population in layout.populations:
        initial = getattr(population, "initial", None)
        place, size = layout.names[population.place], population.size
        if initial is not None and len(initial) == 2 * size:
            start = _start(g, f"{place}_start", initial[size:])
            lines += [f"    {line}" for line in each(size, [f"s->{place}_state[i] = {start}[i];"])]
        first = getattr(population, "first_message", None)
        for key in layout.keys(population.place):
            if first is not None and key[1]:
                held, start = f"s->{layout.ring(key)}_held[i]", f"{place}_initial"
                if start not in g.used:  # no recurrent edge reads it
                    g.used.add(start)
                    _start(g, start, first, g.message)
                assign = each(size, [f"{held} = {start}[i];"])
                lines += [f"    {line}" for line in assign]
    lines += ["}", "", f"void {name}_reset({name}_t *s)", "{", f"    {name}_init(s);", "}", ""]
    take = [f"static void {name}_take({name}_t *s, const int32_t *x)", "{", "    size_t i;"]
    take.append(f"    int32_t h[{entry.size}];")
    if entry.tokens:
        value = round(1.0 / entry.message.scale)
        take += [
            f"    {line}"
            for line in each(entry.size, [f"h[i] = (int32_t)i == x[0] ? {value} : 0;"])
        ]
    else:
        limited = f"h[i] = lmu_sat(x[i], {entry.message.limit});"
        take += [f"    {line}" for line in each(entry.size, [limited])]
    for key in keys:
        take += [f"    {line}" if line[:1] != "#" else line for line in g.keep(key)]
    take += [f"    s->{own}_count++;", "    (void)h;", "}", ""]
    lines = take + lines
    answers = next(
        number
        for number, c in enumerate(layout.components)
        if any(p.place == network.output for p in c.populations)
    )
    calls = [
        f"frames = {name}_compute_{number}(s, y);"
        if number == answers
        else f"(void){name}_compute_{number}(s, y);"
        for number in range(len(layout.components))
    ]
    lines += [
        f"int {name}_step({name}_t *s, const int32_t x[{entry.features}], "
        f"int32_t y[{network.n_out}])",
        "{",
        "    int frames;",
        f"    {name}_take(s, x);",
        *(f"    {call}" for call in calls),
        "    return frames;",
        "}",
        "",
        f"int {name}_finish({name}_t *s, int32_t y[{network.n_out}])",
        "{",
        "    int frames = 0;",
        f"    {g.done(entry.place)} = 1;",
        "    while (s->running && !frames) {",
        *(f"        {call}" for call in calls),
        "    }",
        "    return frames;",
        "}",
        "",
    ]
    return "\n".join([*g.late, "\n".join(lines)])


def _start(g: Generator, name: str, values: np.ndarray, kind: str = "int32_t") -> str:
    """Add the states or messages before the first frame, behind the other tables."""
    g.late.append(array(kind, name, values))
    g.tables.bytes += BYTES[kind] * len(values)
    return name
