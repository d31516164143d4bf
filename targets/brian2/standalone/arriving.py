"""What spikes bring to the states in one step, as a function in C++ that Brian2's equations call.

Brian2's own Synapses look up each of a spike's synapses by number, in a queue; here a spike's row
of W is added at once, and all samples share one W.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_CODE = """
static double lmu_arrived[WIDTH];
static double lmu_arriving(const int state)
{
    static const int32_t* spike;
    static const int32_t* end;
    if (state == 0) {
        spike = SPIKES;
        end = spike + SPIKES[FIRING];RECORDING
    }
    if (state % WIDTH == 0) {
        const int32_t beyond = (state / WIDTH + 1) * SENDING;
        for (int k = 0; k < WIDTH; k++) lmu_arrived[k] = 0.0;
        for (; spike < end && *spike < beyond; spike++) {
            const double* effect = _namespacelmu_effects + (size_t)(*spike % NEURONS) * WIDTH;
            for (int k = 0; k < WIDTH; k++) lmu_arrived[k] += effect[k];
        }
    }
    return lmu_arrived[state % WIDTH];
}
"""


def arriving(b2: Any, neurons: Any, effects: np.ndarray, channels: int, recording: str) -> Any:
    """Give the function of a state's number, for code that goes through all states in order.

    Parameters
    ----------
    b2 : module
        Brian2, with the device of C++ programs.
    neurons : NeuronGroup
        Samples one after the other, each of `len(effects)` neurons.
    effects : ndarray, shape (neurons of a sample, states of a channel)
        What a spike adds to the states of its own channel. Neurons are ordered channel by channel,
        as many in each.
    channels : int
        Of a sample. States are ordered alike: samples, channels, states of a channel.
    recording : str
        C++ that is run once a step, before any state has moved.

    Returns
    -------
    brian2.Function
        Of one integer; spikes are those of the same step, so it belongs after thresholds. A spike
        list is sorted, so that each is read once, by the first state of its sample and channel.
    """
    count, width = effects.shape
    spikes = b2.get_device().get_array_name(neurons.variables["_spikespace"])
    values = {
        "SPIKES": f"brian::{spikes}",
        "FIRING": len(neurons),
        "SENDING": count // channels,
        "NEURONS": count,
        "WIDTH": width,
        "RECORDING": recording,
    }
    code = _CODE
    for name, value in values.items():
        code = code.replace(name, str(value))
    function = b2.Function(
        _never_in_python, arg_units=[1], return_unit=1, arg_types=["integer"], stateless=False
    )
    function.implementations.add_implementation(
        "cpp", code, namespace={"lmu_effects": effects.reshape(-1)}, name="lmu_arriving"
    )
    return function


def _never_in_python(state: Any) -> Any:
    raise NotImplementedError("it runs in the compiled program alone")
