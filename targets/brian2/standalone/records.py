"""What a program writes down as it runs: states at the ends of holds, and the spikes of sample 0.

Brian2's monitors do not fit. One of states would need a clock of its own for the holds, which is
compared with that of the steps to 1e-14 s, whatever the time: beyond 64 s the last bits of two
clocks differ by more, and a state would be taken a step late. One of spikes cannot watch a part of
a group that has linked variables, and would keep all samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ENDS, SPIKES = "ends.bin", "spikes.bin"
_ENDS_CODE = """
        static std::ofstream ends("../FILE", std::ios::binary);
        static int64_t step = 0;
        if (step > 0 && step % HOLD == 0) ends.write((const char*)STATES, COUNT * sizeof(double));
        step++;"""

_SPIKES_CODE = """
        static std::ofstream record("../FILE", std::ios::binary);
        int32_t fired = 0;
        while (spike + fired < end && spike[fired] < NEURONS) fired++;
        record.write((const char*)&fired, sizeof(fired));
        record.write((const char*)spike, fired * sizeof(fired));"""


@dataclass(frozen=True)
class Records:
    """Two files that a program fills.

    Attributes
    ----------
    folder : Path
        The program's own is in it.
    hold : int
        Steps of one.
    neurons : int
        Of a sample.
    raster : bool
        Whether spikes are written down.
    """

    folder: Path
    hold: int
    neurons: int
    raster: bool

    def code(self, b2: Any, states: Any) -> str:
        """Give the C++ for the moment of a step when its spikes are known and no state has moved.

        There, `spike` and `end` are pointers to the first of the step's sorted spikes and behind
        the last. The states are those of the step before, so that the last hold's are left out.
        """
        x = b2.get_device().get_array_name(states.variables["x"])
        values = {
            "HOLD": self.hold,
            "STATES": f"brian::{x}",
            "COUNT": len(states),
            "NEURONS": self.neurons,
        }
        code = _ENDS_CODE.replace("FILE", ENDS)
        if self.raster:
            code += _SPIKES_CODE.replace("FILE", SPIKES)
        for name, value in values.items():
            code = code.replace(name, str(value))
        return code

    def read_ends(self, last: np.ndarray) -> np.ndarray:
        """Give the states at the ends of all holds, shape (holds, states); `last` is the last."""
        return np.vstack([np.fromfile(self.folder / ENDS).reshape(-1, len(last)), last])

    def read_raster(self, steps: int) -> np.ndarray:
        """Give which neurons fired, shape (steps, neurons), uint8; no steps if not recorded."""
        if not self.raster:
            return np.zeros((0, self.neurons), np.uint8)
        raster = np.zeros((steps, self.neurons), np.uint8)
        numbers, place = np.fromfile(self.folder / SPIKES, np.int32), 0
        for step in raster:  # how many fired, and which
            beyond = place + 1 + numbers[place]
            step[numbers[place + 1 : beyond]] = 1
            place = beyond
        return raster
