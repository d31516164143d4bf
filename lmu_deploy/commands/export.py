"""`export`: a float network as a file that other tools read."""

from __future__ import annotations

from pathlib import Path

from lmu_deploy.checks import check_choice
from lmu_deploy.network import LMUNetwork
from lmu_deploy.representations import load_float

FORMS = ("onnx", "onnx-step")


def export(network: LMUNetwork | Path | str, *, to: str, out: Path | str) -> Path:
    """Export `network`.

    Parameters
    ----------
    network : LMUNetwork or path
    to : {"onnx", "onnx-step"}
        The whole sequence as one graph, or one step with its states as inputs and outputs.
    out : path

    Returns
    -------
    path
        `out`, written whole.

    Raises
    ------
    InputError
        When the form is unknown, or the file is no float network.
    """
    check_choice("export form", to, FORMS)
    from converters.onnx import save_onnx, to_onnx, to_onnx_step

    if not isinstance(network, LMUNetwork):
        network = load_float(network, "export")
    save_onnx({"onnx": to_onnx, "onnx-step": to_onnx_step}[to](network), out)
    return Path(out)
