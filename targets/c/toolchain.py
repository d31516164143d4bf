"""Compilers for the generated C code, and the machines on which its programs run.

In: generated text. Out: a program that reads messages from its standard input, and the bytes and
instructions that the network takes on its machine. A host program runs as a process; one for a
Cortex-M4 runs on QEMU's ``mps2-an386``, whose clock counts instructions (``-icount``).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.c.generator import Source
from lmu_deploy.core.errors import MissingDependencyError, RunError

SECONDS = 600.0
COMPILERS = ("cc", "gcc", "clang")
_WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror")

# Records go to the standard output: kind, number, frame, size, and as many 32-bit integers.
_RECORD = """\
static void record(int32_t kind, int32_t number, int64_t frame, const int32_t *v, int32_t n)
{
    int32_t head[4];
    head[0] = kind;
    head[1] = number;
    head[2] = (int32_t)frame;
    head[3] = n;
    fwrite(head, 4, 4, stdout);
    fwrite(v, 4, (size_t)n, stdout);
}
"""

_TRACE = """\
#define LMU_TRACE_FRAME(number, frame, v, n) record(0, number, frame, v, n)
#define LMU_TRACE_EVENTS(number, frame, v, n) record(1, number, frame, v, n)
#define LMU_TRACE_INNER(number, frame, v, n) record(3, number, frame, v, n)
"""

_PROGRAM = """\
{clock}
#include <stdint.h>
#include <stdio.h>

{record}
{trace}
#include "{name}.c"

static {name}_t network;
static int32_t x[{upper}_INPUTS], y[{upper}_OUTPUTS];

int main(void)
{{
    int32_t size[2], sample, step, spent[2];
    if (fread(size, 4, 2, stdin) != 2) {{
        return 1;
    }}
    START_CLOCK;
    for (sample = 0; sample < size[0]; sample++) {{
        {name}_init(&network);
        record(2, sample, 0, y, 0);
        for (step = 0; step < size[1]; step++) {{
            int64_t before, after;
            if (fread(x, 4, {upper}_INPUTS, stdin) != {upper}_INPUTS) {{
                return 1;
            }}
            before = CLOCK;
            (void){name}_step(&network, x, y);
            after = CLOCK;
            spent[0] = (int32_t)(after - before);
            {spent}
        }}
        while ({name}_finish(&network, y)) {{
        }}
    }}
    return 0;
}}
"""

# Nanoseconds.
_HOST_CLOCK = """\
#define _POSIX_C_SOURCE 199309L
#include <time.h>
static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}
#define START_CLOCK (void)0
#define CLOCK now()
"""

# SysTick counts down at 25 MHz; with "-icount shift=0" an instruction takes 1 ns.
INSTRUCTIONS_PER_TICK = 40
_TICKS = 2**24
_CHIP_CLOCK = """\
#define SYSTICK ((volatile unsigned long *)0xE000E010)
#define START_CLOCK (SYSTICK[1] = 0xFFFFFF, SYSTICK[2] = 0, SYSTICK[0] = 5)
#define CLOCK (-(int64_t)SYSTICK[2])
"""

_VECTORS = """\
/* The end of RAM, declared as the table needs it. */
extern void stack_top(void);
extern void _start(void);
static void stop(void)
{
    for (;;) {
    }
}
__attribute__((section(".vectors"), used)) static void (*const vectors[])(void) = {
    stack_top, _start, stop, stop, stop, stop, stop};
"""

# Memory of the board mps2-an386. The loader of QEMU fills .data, so nothing copies it.
_LAYOUT = """\
ENTRY(_start)
MEMORY {
  FLASH (rx) : ORIGIN = 0x00000000, LENGTH = 4M
  RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 4M
}
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text*) *(.init) *(.fini) *(.rodata*) *(.eh_frame*) } > FLASH
  .ARM.exidx : { *(.ARM.extab*) *(.ARM.exidx*) } > FLASH
  .init_array : {
    __preinit_array_start = .; KEEP(*(.preinit_array*)) __preinit_array_end = .;
    __init_array_start = .; KEEP(*(.init_array*)) __init_array_end = .;
    __fini_array_start = .; KEEP(*(.fini_array*)) __fini_array_end = .;
  } > FLASH
  .data : { *(.data*) } > RAM
  .bss : { __bss_start__ = .; *(.bss*) *(COMMON) __bss_end__ = .; } > RAM
  end = .;
  __end__ = .;
  stack_top = ORIGIN(RAM) + LENGTH(RAM);
}
"""


@dataclass(frozen=True)
class Sizes:
    """Bytes that a network takes, without the program around it.

    Attributes
    ----------
    code, constants : int
        Machine code and constant arrays, in flash.
    ram, stack : int
        The struct, and the deepest frame of a function of the network.
    """

    code: int
    constants: int
    ram: int
    stack: int

    @property
    def flash(self) -> int:
        """Return the bytes of flash."""
        return self.code + self.constants


class Toolchain(ABC):
    """A compiler and the machine that runs what it makes."""

    clock: str

    @abstractmethod
    def compiler(self) -> str:
        """Return the path of the compiler, or raise MissingDependencyError."""

    @abstractmethod
    def options(self, folder: Path) -> tuple[str, ...]:
        """Return the options of the machine; write what they name into the folder."""

    @abstractmethod
    def command(self, program: Path) -> list[str]:
        """Return what starts a program."""

    @abstractmethod
    def spent(self, counts: np.ndarray) -> np.ndarray:
        """Return the unit of the clock's differences: nanoseconds, or instructions."""

    def version(self) -> str:
        """Return what the compiler calls itself."""
        done = subprocess.run(
            [self.compiler(), "--version"], capture_output=True, text=True, timeout=60, check=False
        )
        return (done.stdout.splitlines() or ["unknown"])[0]

    def compile(self, source: Source, folder: Path, record: bool = True, *options: str) -> Path:
        """Compile a network and the program around it.

        Parameters
        ----------
        source : Source
        folder : Path
            Empty.
        record : bool
            Whether the program writes what every population computes; it writes what each step took
            if not.
        *options : str
            Of the compiler; ``-O2`` if absent.

        Raises
        ------
        RunError
            When the compiler fails or takes too long.
        """
        (folder / f"{source.name}.h").write_text(source.header)
        (folder / f"{source.name}.c").write_text(source.code)
        text = _PROGRAM.format(
            name=source.name,
            upper=source.name.upper(),
            clock=self.clock,
            record=_RECORD,
            trace=_TRACE if record else "",
            spent="(void)spent;" if record else "record(4, 0, step, spent, 1);",
        )
        (folder / "run.c").write_text(text)
        chosen = [*_WARNINGS, *(options or ("-O2",)), *self.options(folder)]
        self._call([*chosen, "run.c", "-o", "run"], folder)
        return folder / "run"

    def sizes(self, source: Source, folder: Path, *options: str) -> Sizes:
        """Return what a network takes: of the object file, its struct and its stack frames."""
        (folder / f"{source.name}.h").write_text(source.header)
        (folder / f"{source.name}.c").write_text(source.code)
        machine = [option for option in self.options(folder) if option.startswith("-m")]
        chosen = ["-std=c99", *(options or ("-O2",)), *machine]
        self._call([*chosen, "-fstack-usage", "-c", f"{source.name}.c"], folder)
        size = re.sub(r"(gcc|cc|clang)$", "size", self.compiler())
        listing = subprocess.run(
            [size, "-A", f"{source.name}.o"], cwd=folder, capture_output=True, text=True, check=True
        ).stdout
        sections = re.findall(r"^(\.\S+)\s+(\d+)", listing, re.MULTILINE)
        code = sum(int(n) for name, n in sections if name.startswith(".text"))
        constants = sum(int(n) for name, n in sections if name.startswith(".rodata"))
        frames = (folder / f"{source.name}.su").read_text().splitlines()
        deepest = max(int(line.split("\t")[1]) for line in frames)
        return Sizes(code, constants, source.ram, deepest)

    def execute(self, program: Path, messages: np.ndarray) -> np.ndarray:
        """Run a program on a batch, (samples, steps, features).

        Returns
        -------
        ndarray of int32, shape (samples, integers)
            The records of every sample, which differ in their values alone.

        Raises
        ------
        RunError
            When it fails or takes too long.
        """
        size = np.array(messages.shape[:2], np.int32)
        try:
            done = subprocess.run(
                self.command(program),
                input=size.tobytes() + np.ascontiguousarray(messages, np.int32).tobytes(),
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RunError(f"target c: the program took more than {SECONDS:g} s.") from error
        if done.returncode:
            raise RunError(f"target c: the program ended with status {done.returncode}.")
        return np.frombuffer(done.stdout, np.int32).reshape(len(messages), -1)

    def time(self, source: Source, folder: Path, messages: np.ndarray, *options: str) -> np.ndarray:
        """Return what every step takes, (samples, steps): nanoseconds, or instructions."""
        program = self.compile(source, folder, False, *options)
        records = self.execute(program, messages)
        samples, steps = messages.shape[:2]
        # A sample is a head of four integers, and a head and one integer for each step.
        table = records[:, 4:].reshape(samples, steps, 5)
        return self.spent(table[:, :, 4])

    def _call(self, options: list[str], folder: Path) -> None:
        try:
            done = subprocess.run(
                [self.compiler(), *options],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RunError(f"target c: the compiler took more than {SECONDS:g} s.") from error
        if done.returncode:
            raise RunError(f"target c: the compiler failed: {done.stderr.strip()[:500]}")


class Host(Toolchain):
    """The compiler of this machine: that of the environment variable CC, or the first found."""

    clock = _HOST_CLOCK

    def compiler(self) -> str:
        """Return the path of the compiler; see :class:`Toolchain`."""
        wanted = os.environ.get("CC", "").split()[:1] or list(COMPILERS)
        for name in wanted:
            if (path := shutil.which(name)) is not None:
                return path
        raise MissingDependencyError(
            f"target c needs a C compiler ({', '.join(wanted)}); install one, or name it in CC."
        )

    def options(self, folder: Path) -> tuple[str, ...]:
        """Return none; see :class:`Toolchain`."""
        return ()

    def command(self, program: Path) -> list[str]:
        """Return the program; see :class:`Toolchain`."""
        return [str(program)]

    def spent(self, counts: np.ndarray) -> np.ndarray:
        """Return nanoseconds."""
        return counts


class CortexM4(Toolchain):
    """GCC for Arm without an operating system, and QEMU."""

    clock = _CHIP_CLOCK
    packages = "gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm (names in Debian)"

    def compiler(self) -> str:
        """Return the path of the compiler; see :class:`Toolchain`."""
        return self._found("arm-none-eabi-gcc")

    def options(self, folder: Path) -> tuple[str, ...]:
        """Return machine, libraries and layout of memory; see :class:`Toolchain`."""
        (folder / "vectors.c").write_text(_VECTORS)
        (folder / "layout.ld").write_text(_LAYOUT)
        files = ("--specs=rdimon.specs", "-T", "layout.ld", "vectors.c")
        return ("-mcpu=cortex-m4", "-mthumb", *files)

    def command(self, program: Path) -> list[str]:
        """Return QEMU with the program in flash; see :class:`Toolchain`."""
        machine = "-M mps2-an386 -cpu cortex-m4 -nographic -monitor none -serial none"
        counted = "-icount shift=0 -semihosting-config enable=on,target=native"
        emulator = self._found("qemu-system-arm")
        return [emulator, *machine.split(), *counted.split(), "-kernel", str(program)]

    def spent(self, counts: np.ndarray) -> np.ndarray:
        """Return instructions, to 40; the counter has 24 bits and counts down."""
        return (counts.astype(np.int64) % _TICKS) * INSTRUCTIONS_PER_TICK

    def available(self) -> bool:
        """Return whether compiler and emulator are installed."""
        return all(map(shutil.which, ("arm-none-eabi-gcc", "qemu-system-arm")))

    def _found(self, name: str) -> str:
        path = shutil.which(name)
        if path is None:
            raise MissingDependencyError(
                f"target cortex-m4 needs {name}, which is not installed; install {self.packages}."
            )
        return path
