"""Target `recorded`: results of a board or another program, read from an .npz file.

A recording is judged like the run of any target. docs/how-to/board.md describes the file.
"""

from __future__ import annotations

from targets.recorded.file import COUNTS, EVENTS, LIST, SPIKES, STATES, Recording
from targets.recorded.target import RecordedTarget

__all__ = ["COUNTS", "EVENTS", "LIST", "SPIKES", "STATES", "RecordedTarget", "Recording"]
