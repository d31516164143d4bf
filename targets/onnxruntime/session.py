"""A model made ready in ONNX Runtime on the CPU, and batch after batch through it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lmu_deploy.errors import MissingDependencyError, RunError

if TYPE_CHECKING:
    import onnx

PROVIDER = "CPUExecutionProvider"


def import_runtime() -> Any:
    """Give the library onnxruntime.

    Raises
    ------
    MissingDependencyError
        When it is absent or broken.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "target onnxruntime needs the library onnxruntime, which is absent or broken "
            f"({error}); install it with: pip install 'lmu-deploy[onnx]'."
        ) from error
    return onnxruntime


class Session:
    """A model whose input is called ``input``.

    Parameters
    ----------
    model : onnx.ModelProto
    threads : int
        Threads within one operation; 0 leaves the choice to ONNX Runtime.
    """

    def __init__(self, model: onnx.ModelProto, threads: int) -> None:
        runtime = import_runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(
            model.SerializeToString(), options, providers=[PROVIDER]
        )
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._errors = _errors_of(runtime)

    def batches(
        self, inputs: np.ndarray, batch_size: int
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Give, batch by batch, how many samples are done and the outputs by name.

        States after the last step, which end in ``.next``, are left out.

        Raises
        ------
        RunError
            When ONNX Runtime fails.
        """
        names = [name for name in self._outputs if not name.endswith(".next")]
        for first in range(0, len(inputs), batch_size):
            batch = inputs[first : first + batch_size]
            yield first + len(batch), dict(zip(names, self._run(names, batch), strict=True))

    def _run(self, names: list[str], batch: np.ndarray) -> list[np.ndarray]:
        try:
            return self._session.run(names, {"input": batch})
        except self._errors as error:
            raise RunError(f"ONNX Runtime failed: {error}") from error


def _errors_of(runtime: Any) -> tuple[type[Exception], ...]:
    """Give ONNX Runtime's errors, which share no base, and what its bindings raise besides."""
    own = vars(runtime.capi.onnxruntime_pybind11_state).values()
    named = [cls for cls in own if isinstance(cls, type) and issubclass(cls, Exception)]
    return (*named, RuntimeError, ValueError, MemoryError)
