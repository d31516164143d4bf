"""Run an exported one-step model in ONNX Runtime, states in and states out.

This is all that another program needs, without lmu_deploy at run time. Run:
python examples/stream_onnx.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

import lmu_deploy
from lmu_deploy.tasks.base import get_task

NETWORK = Path(__file__).parent / "models" / "digits.safetensors"


def run(model: Path, inputs: np.ndarray) -> np.ndarray:
    """Return the output after the last step; `inputs` has shape (samples, steps, features)."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    given = [i for i in session.get_inputs() if i.name != "input"]
    states = {i.name: np.zeros((len(inputs), *i.shape[1:]), np.float32) for i in given}
    names = ["output", *(f"{name}.next" for name in states)]
    for step in range(inputs.shape[1]):
        output, *after = session.run(names, {"input": inputs[:, step], **states})
        states = dict(zip(states, after, strict=True))
    return np.asarray(output)


def main() -> None:
    """Export, run, and compare with the float64 reference."""
    test = get_task("digits").load().test
    with tempfile.TemporaryDirectory() as folder:
        model = lmu_deploy.export(NETWORK, to="onnx-step", out=Path(folder) / "step.onnx")
        outputs = run(model, test.inputs)
    network = lmu_deploy.load(NETWORK)
    reference = lmu_deploy.run_reference(network, test.inputs).outputs
    accuracy = np.mean(outputs.argmax(axis=1) == test.targets)
    print(f"accuracy {accuracy:.4f}, at most {np.abs(outputs - reference).max():.1e} from float64")


if __name__ == "__main__":
    main()
