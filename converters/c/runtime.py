"""C text that every generated network contains: saturation, shifts, drives, functions, frames."""

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
