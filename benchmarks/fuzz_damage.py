"""Ways to damage a file, for `fuzz_importers.py`: bytes in, bytes out, random by a seed."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from typing import Any


def _flip_bits(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _write_bytes(data: bytearray, rng: random.Random) -> bytearray:
    at, size = rng.randrange(len(data)), rng.choice([1, 2, 4, 16, 256])
    data[at : at + size] = rng.randbytes(size)
    return data


def _write_number(data: bytearray, rng: random.Random) -> bytearray:
    """Write an absurd number where a size, an offset or a count may be."""
    size = rng.choice([1, 2, 4, 8])
    value = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1, 10**9])
    at = rng.randrange(max(1, len(data) - size))
    data[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, rng.choice(["little", "big"]))
    return data


def _truncate(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data))]


def _cut_out(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice([1, 4, 64, 1024])]
    return data


def _repeat(data: bytearray, rng: random.Random) -> bytearray:
    at, size = rng.randrange(len(data)), rng.choice([1, 8, 256, 4096])
    return data[:at] + data[at : at + size] * rng.choice([2, 3, 100]) + data[at + size :]


def _swap(data: bytearray, rng: random.Random) -> bytearray:
    size = rng.choice([4, 8, 64])
    a, b = (rng.randrange(max(1, len(data) - size)) for _ in range(2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return data


def _change_digits(data: bytearray, rng: random.Random) -> bytearray:
    """Change text: the numbers of JSON headers and configurations."""
    places = [i for i, byte in enumerate(data[:200_000]) if chr(byte) in '0123456789.-ef{}[]",:']
    for _ in range(rng.choice([1, 2, 5])):
        if places:
            data[rng.choice(places)] = ord(rng.choice('0123456789-e.{}[]",:'))
    return data


def _change_value(data: bytearray, rng: random.Random) -> bytearray:
    """Replace a value in valid JSON: the whole file, or a .safetensors header."""
    if data[:1] == b"{":
        return bytearray(json.dumps(_with_odd_value(json.loads(data), rng)).encode())
    if data[8:9] != b"{":
        return _write_number(data, rng)
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    if rng.random() < 0.7 and "__metadata__" in header:
        inner = _with_odd_value(json.loads(header["__metadata__"]["lmu_deploy"]), rng)
        header["__metadata__"]["lmu_deploy"] = json.dumps(inner)
    else:
        header = _with_odd_value(header, rng)
    text = json.dumps(header).encode()
    return bytearray(len(text).to_bytes(8, "little") + text + data[end:])


def _with_odd_value(root: Any, rng: random.Random) -> Any:
    """Replace one value anywhere in a JSON tree."""
    places: list[tuple[Any, Any]] = []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        places += [(node, key) for key in keys]
        waiting += [node[key] for key in keys if isinstance(node[key], dict | list)]
    node, key = rng.choice(places)
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    odd = [None, -1, 0, 1, 3, 1024, 10**6, 2**63, 10**40, 0.5, 1e308, float("nan"), float("inf")]
    odd += [True, "", "x" * 10_000, "../../etc/passwd", [], {}, [1, "a", {}], deep]
    node[key] = rng.choice(odd)
    return root


def _nothing(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.choice([0, 1, 8])]


DAMAGES: dict[str, Callable[[bytearray, random.Random], bytearray]] = {
    "bits flipped": _flip_bits,
    "bytes overwritten": _write_bytes,
    "number overwritten": _write_number,
    "truncated": _truncate,
    "cut out": _cut_out,
    "repeated": _repeat,
    "swapped": _swap,
    "text changed": _change_digits,
    "value changed": _change_value,
    "emptied": _nothing,
}


def damage_inside(data: bytes, how: str, rng: random.Random) -> tuple[bytes, str]:
    """Damage an entry of an archive and pack it again, so that its checksum is right."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w") as new:
        names = [name for name in old.namelist() if old.getinfo(name).file_size]
        chosen = rng.choice(names)
        for name in names:
            content = old.read(name)
            broken = DAMAGES[how](bytearray(content), rng) if name == chosen else content
            new.writestr(name, bytes(broken))
    return packed.getvalue(), f" in {chosen}"
