"""Strategy of hypothesis that draws the options of an LMU layer in PyTorch."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st


@st.composite
def lmu_options(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what `LMU` and `LMUConfig` take besides the number of inputs."""
    hidden = draw(st.sampled_from(["recurrent", "feedforward", "none"]))
    train = draw(st.sampled_from(["nothing", "theta", "memory"]))
    return {
        "units": 0 if hidden == "none" else draw(st.integers(1, 6)),
        "order": draw(st.integers(1, 8)),
        "theta": draw(st.floats(1.0, 40.0)),
        "channels": draw(st.integers(1, 3)),
        "discretizer": draw(st.sampled_from(["zoh", "bilinear"])),
        "activation": draw(st.sampled_from(["linear", "relu", "tanh", "hard-tanh"])),
        "hidden": hidden,
        "input_to_hidden": draw(st.booleans()),
        "hidden_to_memory": hidden != "none" and draw(st.booleans()),
        "memory_to_memory": draw(st.booleans()),
        "memory_bias": draw(st.booleans()),
        "hidden_bias": draw(st.booleans()),
        "train_theta": train == "theta",
        "train_memory": train == "memory",
    }
