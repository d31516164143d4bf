"""`export`: a network as a file that other tools read."""

from __future__ import annotations

import sys
from pathlib import Path

from lmu_deploy.checks import check_choice
from lmu_deploy.errors import InputError
from lmu_deploy.network import LMUNetwork
from lmu_deploy.representations import load_any, load_float
from lmu_deploy.spiking_network import SpikingNetwork

FORMS = ("onnx", "onnx-step", "nir")


def export(network: LMUNetwork | SpikingNetwork | Path | str, *, to: str, out: Path | str) -> Path:
    """Export `network`.

    Parameters
    ----------
    network : LMUNetwork, SpikingNetwork or path
        Only NIR takes a spiking network.
    to : {"onnx", "onnx-step", "nir"}
        The whole sequence as one ONNX graph; one step with its states as inputs and outputs; or
        a NIR graph of its memories and what NIR has nodes for, Euler steps of 1 ms for a float
        network. What of a float network is not in it is said on standard error.
    out : path

    Returns
    -------
    path
        `out`, written whole.

    Raises
    ------
    InputError
        When the form is unknown, or the file holds no network of that form.
    """
    check_choice("export form", to, FORMS)
    if to == "nir":
        return _export_nir(network, Path(out))
    from converters.onnx import save_onnx, to_onnx, to_onnx_step

    if isinstance(network, SpikingNetwork):
        raise InputError(f"{to} needs a float network, not a SpikingNetwork; export it as nir.")
    if not isinstance(network, LMUNetwork):
        network = load_float(network, "export")
    save_onnx({"onnx": to_onnx, "onnx-step": to_onnx_step}[to](network), out)
    return Path(out)


def _export_nir(network: LMUNetwork | SpikingNetwork | Path | str, out: Path) -> Path:
    from converters.nir import left_to_host, to_nir, write_nir

    loaded = load_any(network) if isinstance(network, Path | str) else network
    if not isinstance(loaded, LMUNetwork | SpikingNetwork):
        raise InputError(
            f"export to nir needs a float or a spiking network, not {type(loaded).__name__}; give "
            "the float file that it was made from."
        )
    write_nir(to_nir(loaded), out)
    if isinstance(loaded, LMUNetwork) and (parts := left_to_host(loaded)):
        print(f"not in the NIR graph, which ends before: {'; '.join(parts)}", file=sys.stderr)
    return out
