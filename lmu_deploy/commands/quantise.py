"""`quantise`: a float network into integers, for a digital chip's widths."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lmu_deploy.commands.task_data import limited, task_for
from lmu_deploy.files import save
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.network import LMUNetwork
from lmu_deploy.progress import progress_bar
from lmu_deploy.representations import load_float

CALIBRATION_SAMPLES = 512


def quantise(
    network: LMUNetwork | Path | str,
    *,
    profile: str = "loihi2",
    task: str | None = None,
    out: Path | str | None = None,
    **options: Any,
) -> IntegerNetwork:
    """Quantise a float network after training, with ranges measured on its training data.

    Parameters
    ----------
    network : LMUNetwork or path
    profile : str
        A digital chip; see ``lmu-deploy doctor`` for the names.
    task : str, optional
        Whose training inputs calibrate; by default the one that the network was trained for.
    out : path, optional
        Where to write the `.safetensors` file.
    **options
        Passed to :func:`converters.quantise.quantise`: slices, message_bits, hidden_bits, ...

    Raises
    ------
    InputError
        When the file, task or profile is wrong, or the network does not fit the profile's widths.
    """
    from converters.quantise import quantise as convert

    if not isinstance(network, LMUNetwork):
        network = load_float(network, "quantise")
    inputs = limited(task_for(network, task).load().train, CALIBRATION_SAMPLES).inputs
    with progress_bar("quantise") as progress:
        integer = convert(network, inputs, profile, progress=progress, **options)
    if reason := integer.provenance.get("realisation"):
        print(f"realisation {reason}", file=sys.stderr)
    if out is not None:
        save(integer, out)
    return integer
