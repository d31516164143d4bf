"""Model files (one `.safetensors` file per network), atomic file writes and fingerprints.

A frozen dataclass is stored as ``{"type": name, "fields": {...}}`` in a JSON header, an array as
``{"tensor": key}`` with its data in the tensor of that key. A file therefore contains neither code
nor pickled objects. Loading instantiates only the classes that the caller names, each of which
validates its own fields, and allocates no more memory than the size of the file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lmu_deploy.core.errors import InputError

FORMAT = 1

HEADER = "lmu_deploy"

LATER: Mapping[str, bool] = {"later": True}
"""Field metadata: files written before the field existed lack it and get its default."""

_LONGEST_QUOTE = 200

_RENAMED: Mapping[str, str] = {
    "discretiser": "discretizer",
    "hold_ms": "presentation_ms",
    "realisation": "realization",
}
"""Field names in files written before version 0.2, with their present names."""

DAMAGED = (
    EOFError,
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    tokenize.TokenError,  # NumPy reads an array's header as Python's tokens
    zipfile.BadZipFile,
    zlib.error,
)
"""Exceptions that NumPy and zipfile raise when they read a damaged file."""

_NOT_COUNTED = ("provenance", "task", "names")


def save(instance: Any, path: Path | str) -> None:
    """Write a frozen dataclass of arrays, numbers, strings and further such dataclasses.

    Raises
    ------
    InputError
        When `path` cannot be written.
    """
    tree, tensors = to_tree(instance)
    header = {"format": FORMAT, "root": tree}
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={HEADER: json.dumps(header)})
        except SafetensorError as error:
            raise InputError(
                f"cannot write {path}: {error}; make room, or choose another folder."
            ) from error


def check_file(path: Path) -> None:
    """Raise InputError unless a path leads to a regular file, which can be read at any place."""
    if path.is_file():
        return
    if path.exists() and not path.is_dir():
        raise InputError(
            f"{path} is a pipe or a device; write its contents to a file, and give that."
        )
    raise InputError(f"{path}: no such file; check the name.")


def load(path: Path | str, classes: tuple[type, ...]) -> Any:
    """Read a representation written by :func:`save`.

    Parameters
    ----------
    path : path
    classes : tuple of type
        Every dataclass that may occur in the file, the root included.

    Returns
    -------
    instance of one of `classes`, whose arrays are read-only

    Raises
    ------
    InputError
        When the file does not exist, is not an lmu_deploy file, is corrupt, or contains another
        class.
    """
    path = Path(path)
    check_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if HEADER not in metadata:
                raise InputError(
                    f"{path} is not an lmu_deploy file; convert it with lmu-deploy import."
                )
            header = json.loads(metadata[HEADER])
            if not isinstance(header, dict) or header.get("format") != FORMAT:
                raise InputError(
                    f"{path} has a format that this version cannot read; update lmu_deploy."
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return from_tree(header.get("root"), tensors, classes)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from error
    except (SafetensorError, ValueError, TypeError, KeyError, OSError, RecursionError) as error:
        if _is_other(path):
            raise InputError(
                f"{path} is not a .safetensors file; convert a network of another program with "
                "lmu-deploy import."
            ) from error
        raise InputError(
            f"{path} is not a readable .safetensors file ({type(error).__name__}); create it again."
        ) from error


def fingerprint(instance: Any) -> str:
    """Return a SHA-256 hash of every number in a representation with its key, shape and type.

    Networks that compute the same with the same arrays have equal fingerprints.

    Parameters
    ----------
    instance : frozen dataclass
        What :func:`lmu_deploy.core.files.save` can write.

    Returns
    -------
    str
        64 hexadecimal digits. Provenance, the name of the task and the names of layers are
        excluded, because they do not affect what the network computes.
    """
    tree, tensors = to_tree(instance)
    digest = hashlib.sha256(json.dumps(_without(tree), sort_keys=True).encode())
    for key in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[key])
        digest.update(f"{key} {tensor.dtype.str} {tensor.shape}".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _is_other(path: Path) -> bool:
    """Return whether a file does not begin as .safetensors does, with a size and a brace."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(9)[8:] not in (b"{", b"")
    return False


def to_tree(instance: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """Split a representation into a JSON tree and the arrays that the tree refers to.

    Returns
    -------
    tree : JSON value
        An array is represented by ``{"tensor": key}``.
    tensors : dict of str to ndarray
        The arrays by key; a key is the array's path, such as ``layers.0.memory.a_bar``.
    """
    tensors: dict[str, np.ndarray] = {}
    return _encode(instance, "", tensors), tensors


def from_tree(tree: Any, tensors: Mapping[str, np.ndarray], classes: tuple[type, ...]) -> Any:
    """Rebuild a representation from :func:`to_tree`, instantiating only `classes`.

    Raises
    ------
    InputError
        When the tree is corrupt, its root is none of `classes`, it refers to another class or a
        missing tensor, or a class rejects its fields.
    """
    instance = _decode(tree, tensors, {_file_name(cls): cls for cls in classes})
    if not isinstance(instance, classes):
        wanted = " or ".join(sorted(_file_name(cls) for cls in classes))
        raise InputError(f"it contains no {wanted} at its root; create the file again.")
    return instance


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it to `path` when the block succeeds.

    When the block raises, the temporary file is removed and an older file at `path` is unchanged.
    A symbolic link stays, and the file that it names is written. Into a pipe or a device, which
    cannot be replaced, the contents are copied.

    Raises
    ------
    InputError
        When the folder does not exist or cannot be written, or `path` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file to write.")
    try:
        place = path.resolve()
        replaceable = place.is_file() or not place.exists()
        handle, name = tempfile.mkstemp(
            dir=place.parent if replaceable else None, prefix=f".{path.stem}-", suffix=path.suffix
        )
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise InputError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}; give a folder that "
            "exists."
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _put(temporary, place, replaceable)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; make room, or choose another folder."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _put(temporary: Path, place: Path, replaceable: bool) -> None:
    if not replaceable:
        with temporary.open("rb") as source, place.open("wb") as target:
            shutil.copyfileobj(source, target)
        return
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    temporary.replace(place)


def check_output(out: Path | str | None, source: Any) -> None:
    """Raise InputError, before any work, if a file cannot be written.

    `out` is a folder, or in a folder that does not exist, or the file `source`, which would be
    overwritten.

    Parameters
    ----------
    out : path or None
        A file to write.
    source : path or any object
        What is read; anything but a path is no file.
    """
    if out is None:
        return
    path = Path(out)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file to write.")
    if not path.absolute().parent.is_dir():
        raise InputError(
            f"cannot write {path}: there is no such folder; give a folder that exists."
        )
    if not isinstance(source, str | Path):
        return
    if Path(out).resolve() == Path(source).resolve():
        raise InputError(f"{out} is the file that is read; give another name to write.")


def write_text(path: Path | str, text: str) -> None:
    """Write `text` to `path` atomically, in UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _encode(value: Any, path: str, tensors: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        tensors[path] = np.ascontiguousarray(value)
        return {"tensor": path}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: _encode(getattr(value, f.name), f"{path}.{f.name}".lstrip("."), tensors)
            for f in dataclasses.fields(value)
        }
        return {"type": _file_name(type(value)), "fields": fields}
    if isinstance(value, Mapping):
        return {"map": {k: _encode(v, f"{path}.{k}", tensors) for k, v in value.items()}}
    if isinstance(value, tuple | list):
        return [_encode(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    name = path.lstrip(".") or "the instance"
    raise InputError(f"{name} is a {type(value).__name__}, which a model file cannot store.")


def _decode(node: Any, tensors: Mapping[str, np.ndarray], classes: dict[str, type]) -> Any:
    if isinstance(node, list):
        return tuple(_decode(item, tensors, classes) for item in node)
    if not isinstance(node, dict):
        return node
    if set(node) == {"tensor"}:
        if node["tensor"] not in tensors:
            raise InputError(
                f"tensor {_short(repr(node['tensor']))} is missing; the file is corrupt."
            )
        return tensors[node["tensor"]]
    if set(node) == {"map"} and isinstance(node["map"], dict):
        return {_RENAMED.get(k, k): _decode(v, tensors, classes) for k, v in node["map"].items()}
    if set(node) != {"type", "fields"} or not isinstance(node["fields"], dict):
        raise InputError("the header is corrupt; create the file again.")
    if node["type"] not in classes:
        raise InputError(
            f"it contains a {_short(node['type'])} where one of {', '.join(sorted(classes))} is "
            "expected."
        )
    cls = classes[node["type"]]
    fields = {_RENAMED.get(name, name): value for name, value in node["fields"].items()}
    _check_fields(cls, fields)
    return cls(**{name: _decode(value, tensors, classes) for name, value in fields.items()})


def _check_fields(cls: type, fields: Mapping[str, Any]) -> None:
    """Raise InputError when a field is unknown or a required one is missing."""
    known = {f.name: f for f in dataclasses.fields(cls)}
    if unknown := sorted(set(fields) - set(known)):
        raise InputError(
            f"{cls.__name__} has fields that this version does not know: "
            f"{_short(', '.join(unknown))}; update lmu_deploy, or create the file again."
        )
    if missing := [n for n, f in known.items() if n not in fields and not f.metadata.get("later")]:
        raise InputError(
            f"{cls.__name__} lacks {_short(', '.join(missing))}: an older version wrote the file, "
            "or it is corrupt; create it again (lmu-deploy quantize, spike, train or import)."
        )


def _file_name(cls: type) -> str:
    """Return the name of a class in files, where it is not the name in the code."""
    return str(getattr(cls, "FILE_NAME", cls.__name__))


def _short(value: Any) -> str:
    """Return `value` as text of limited length; text from a file may be as long as the file."""
    text = str(value)
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."


def _without(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without(value) for key, value in node.items() if key not in _NOT_COUNTED}
    return [_without(item) for item in node] if isinstance(node, list) else node
