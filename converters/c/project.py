"""A folder with a network in C: sources, a test with vectors, a CMake file, and a page of sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from converters.c.front_end import IntegerLogMel, front_end_files
from converters.c.generator import Source, generate
from converters.c.rules import array
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import write_text
from lmu_deploy.core.integer.graph import enough_frames
from lmu_deploy.core.integer.network import IntegerNetwork

_TEST = """\
/* Feed vectors to the network and compare its outputs: exit status 0 means that all are equal. */
#include <stdio.h>

#include "{name}.h"

{inputs}
{outputs}
static {name}_t network;

int main(void)
{{
    int32_t y[{upper}_OUTPUTS];
    long n, frame = 0, wrong = 0;
    size_t i;
    {name}_init(&network);
    for (n = 0;; n++) {{
        const int is_new = n < {steps} ? {name}_step(&network, inputs + n * {upper}_INPUTS, y)
                                       : {name}_finish(&network, y);
        if (is_new) {{
            for (i = 0; i < {upper}_OUTPUTS && frame < {frames}; i++) {{
                wrong += y[i] != outputs[(size_t)frame * {upper}_OUTPUTS + i];
            }}
            frame++;
        }} else if (n >= {steps}) {{
            break;
        }}
    }}
    printf("{name}: %ld frames of the output, %ld values differ\\n", frame, wrong);
    return wrong != 0 || frame != {frames};
}}
"""

_CMAKE = """\
cmake_minimum_required(VERSION 3.13)
project({name} C)
set(CMAKE_C_STANDARD 99)
# -O3 lets GCC and Clang use vector instructions for the sums.
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
add_library({name} STATIC {name}.c)
target_include_directories({name} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
enable_testing()
add_executable(test_{name} test_{name}.c)
target_link_libraries(test_{name} {name})
add_test(NAME {name} COMMAND test_{name})
"""

_PAGE = """\
# {name}

An integer network in C99, made by lmu_deploy. A program needs `{name}.c` and `{name}.h` alone:

```c
#include "{name}.h"

static {name}_t network;
int32_t x[{upper}_INPUTS], y[{upper}_OUTPUTS];

{name}_init(&network);
/* for every step: fill x with messages, rint(real / {upper}_INPUT_SCALE) */
{name}_step(&network, x, y);
```

| | bytes |
|---|---|
| flash, constant arrays (code comes on top) | {flash:,} |
| RAM, the struct | {ram:,} |

{sound}`cmake -B build && cmake --build build && ctest --test-dir build` runs `test_{name}.c`, which
compares the outputs of {steps} steps with those of the specification.
"""

_SOUND_CMAKE = """\
target_sources({name} PRIVATE {name}_sound.c)
add_executable(test_{name}_sound test_{name}_sound.c)
target_link_libraries(test_{name}_sound {name})
add_test(NAME {name}_sound COMMAND test_{name}_sound)
"""

_SOUND_PAGE = """\
`{name}_sound.c` and `{name}_sound.h` make the frames that the network takes from 16-bit samples:

```c
#include "{name}_sound.h"

static {name}_sound_t sound;

{name}_sound_init(&sound);
/* for every {upper}_SOUND_HOP samples of the microphone: */
if ({name}_sound_push(&sound, samples, x)) {{
    {name}_step(&network, x, y);
}}
```

"""


def write_project(
    network: IntegerNetwork,
    folder: Path | str,
    name: str = "network",
    sparse: bool = False,
    pack: bool = False,
) -> Source:
    """Write a network as a C project into a folder, which is made if it is missing.

    A network that records a front end for sound gets that beside it.

    Parameters
    ----------
    network : IntegerNetwork
    folder : path
    name : str
        Prefix of the files and of all public names.
    sparse : bool
        Whether connections store only nonzero weights where that takes less memory.
    pack : bool
        Whether connections whose weights have at most 4 bits store two in a byte.

    Returns
    -------
    Source
        The text, and the bytes of flash and RAM.

    Raises
    ------
    InputError
        When nodes run on the host, the network's front end has no integer form, or the folder
        cannot be written.
    """
    source = generate(network, name, sparse, pack)
    front_end = IntegerLogMel.of_network(network)
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder for the C code.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror}; give another folder.") from error
    name, values = source.name, {"name": source.name, "upper": source.name.upper()}
    inputs, outputs = vectors(network)
    test = _TEST.format(
        **values,
        inputs=array("int32_t", "inputs", inputs),
        outputs=array("int32_t", "outputs", outputs),
        steps=len(inputs),
        frames=len(outputs),
    )
    write_text(folder / f"{name}.h", source.header)
    write_text(folder / f"{name}.c", source.code)
    write_text(folder / f"test_{name}.c", test)
    cmake, sound = _CMAKE.format(**values), ""
    if front_end is not None:
        cmake, sound = cmake + _SOUND_CMAKE.format(**values), _SOUND_PAGE.format(**values)
        for file, text in front_end_files(front_end, name).items():
            write_text(folder / file, text)
    write_text(folder / "CMakeLists.txt", cmake)
    page = _PAGE.format(
        **values, flash=source.flash, ram=source.ram, steps=len(inputs), sound=sound
    )
    write_text(folder / "README.md", page)
    return source


def vectors(
    network: IntegerNetwork, steps: int = 40, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return input messages of one sequence, (steps, features), and the outputs, by definition.

    There are more steps where the network needs more for an answer. The inputs are drawn over the
    whole range of a message, so that saturation is met too.
    """
    rng, steps = np.random.default_rng(seed), enough_frames(network, steps)
    entry = network.input
    if entry.tokens:
        inputs = rng.integers(0, entry.size, (steps, 1))
    else:
        limit = entry.message.limit
        inputs = rng.integers(-limit, limit + 1, (steps, entry.size))
    real = inputs if entry.tokens else entry.unscaled(inputs)
    return inputs, run_by_definition(network, real)


def run_by_definition(network: IntegerNetwork, inputs: np.ndarray) -> np.ndarray:
    """Return the integer outputs of one sequence, each population by its own rule.

    Parameters
    ----------
    network : IntegerNetwork
        All on the chip.
    inputs : ndarray, shape (steps, features)
        Real inputs, or tokens.

    Returns
    -------
    ndarray, shape (frames, n_out), int64
    """
    from converters.vectors import frames_of

    return frames_of(network, inputs)[str(network.output)]


def default_name(network: IntegerNetwork, given: str | None, path: Path | None) -> str:
    """Return the prefix of public names: as given, of the file, or of the task."""
    if given:
        return given
    if path is not None:
        return path.stem
    return network.task or "network"
