"""Check an implementation of the integer semantics, 50 lines of plain Python, with test vectors.

Usage: python check_vectors.py VECTORS.json        (written by lmu-deploy vectors)

It covers memories of integrators, pointwise units and outputs, which is what most networks have.
"""

import json
import sys
from pathlib import Path


def sat(v, bits):
    """Limit an integer to a width."""
    limit = 2 ** (bits - 1) - 1
    return max(-limit, min(limit, v))


def ms(v, g, s):
    """Multiply and shift, rounding half up."""
    return (v * g + (2 ** (s - 1) if s else 0)) >> s


def apply(f, z, bits):
    """Return the message of a unit for its drive."""
    if f["kind"] == "Segments":
        k = sum(point <= z for point in f["breakpoints"])
        return sat(ms(z, f["slope"][k], f["shift"]) + f["intercept"][k], bits)
    p = {"odd": abs(z), "positive": max(z, 0), "linear": z}.get(f["function_kind"])
    v = min(ms(p, g, f["shift"]) + c for g, c in zip(f["slope"], f["intercept"], strict=True))
    return -sat(v, bits) if f["function_kind"] == "odd" and z < 0 else sat(v, bits)


def drive(edge, sent, n):
    """Return D of one edge for frame n of its target."""
    frames = [edge["stride"] * n + offset for offset in edge["offsets"]]
    size = len(edge["weights"][0][0]) // len(frames)
    rows = [sent[f] if 0 <= f < len(sent) else [0] * size for f in frames]
    x = [value for row in rows for value in row]
    total = [0] * len(edge["weights"][0])
    for weights, gains, shifts in zip(edge["weights"], edge["gains"], edge["shifts"], strict=True):
        for i, row in enumerate(weights):
            a = sat(sum(w * v for w, v in zip(row, x, strict=True)), edge["accumulator_bits"])
            total[i] += ms(a, gains[i], shifts[i])
    return total


def step(p, drives, m):
    """Return the states and the messages of a population after one frame."""
    biases = p["bias"] or [0] * p["size"]
    z = [sum(d) + b for *d, b in zip(*drives, biases, strict=True)]
    bits = p["message"]["bits"]
    if p["kind"] == "Integrators":
        m = [sat(a + b, p["state"]["bits"]) for a, b in zip(m, z, strict=True)]
        return m, [sat(ms(v, 1, p["message_shift"]), bits) for v in m]
    if p["kind"] == "Pointwise":
        return m, [apply(p["function"], sat(v, p["drive"]["bits"]), bits) for v in z]
    return m, [sat(v, bits) for v in z]


def main(path):
    """Compare every state of every frame."""
    tree = json.loads(Path(path).read_text())
    compared = 0
    for sample in tree["samples"]:
        sent = {p["place"]: [] for p in tree["populations"]}
        m = {p["place"]: [0] * p["size"] for p in tree["populations"]}
        for n, x in enumerate(sample["input"]):
            sent["input"].append(x)
            for p in tree["populations"][1:]:
                place = p["place"]
                into = [e for e in tree["edges"] if e["target"] == place]
                m[place], h = step(p, [drive(e, sent[e["source"]], n) for e in into], m[place])
                sent[place].append(h)
                found = m[place] if p["kind"] == "Integrators" else h
                assert found == sample[place][n], f"{place} differs in frame {n}"
                compared += len(found)
    print(f"{compared} integers are equal")


if __name__ == "__main__":
    main(sys.argv[1])
