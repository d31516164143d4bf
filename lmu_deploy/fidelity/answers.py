"""What came of each sample, packed so small that two reports of the same samples can be paired.

Of a classifier one bit an answer says whether it was right; of a signal two numbers a sample, the
sums of squared errors and of squared targets, say what it adds to an NRMSE. 10,000 samples take
2 kB, or 100 kB, of fidelity.json.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np

from lmu_deploy.errors import InputError
from lmu_deploy.fidelity.intervals import squared_sums
from lmu_deploy.fidelity.metric import answers
from lmu_deploy.fidelity.schema import Answers
from lmu_deploy.tasks.base import Task

MOST_ANSWERS = 2**20
"""More of them (131 kB of bits) are not kept."""


def keep_answers(outputs: np.ndarray, targets: np.ndarray, task: Task) -> Answers | None:
    """Pack what came of each sample; parameters as in :func:`lmu_deploy.fidelity.metric.measure`.

    Returns
    -------
    Answers, or None
        None where there are more than :data:`MOST_ANSWERS`.
    """
    if task.kind != "classification":
        errors, norms = squared_sums(outputs, targets, task.washout)
        if len(errors) > MOST_ANSWERS // 32:
            return None
        return Answers(count=len(errors), errors=_numbers(errors), norms=_numbers(norms))
    given, wanted = answers(outputs, task), answers(targets, task)
    if len(given) > MOST_ANSWERS:
        return None
    right = given.argmax(axis=1) == wanted
    return Answers(count=len(right), right=_text(np.packbits(right)))


def right_answers(found: Answers) -> np.ndarray | None:
    """Unpack which answers were right, bool of shape (answers,); None of a regression.

    Raises
    ------
    InputError
        When what was packed is damaged.
    """
    if found.right is None:
        return None
    bits = np.unpackbits(_array(found.right, np.uint8))
    if not 0 <= len(bits) - found.count < 8:
        raise _damaged()
    return bits[: found.count].astype(bool)


def error_sums(found: Answers) -> tuple[np.ndarray, np.ndarray] | None:
    """Unpack squared errors and squared targets, float64 of shape (samples,); None of classes.

    Raises
    ------
    InputError
        When what was packed is damaged.
    """
    if found.errors is None or found.norms is None:
        return None
    errors, norms = (_array(text, np.dtype("<f4")) for text in (found.errors, found.norms))
    if not len(errors) == len(norms) == found.count or not np.isfinite([errors, norms]).all():
        raise _damaged()
    return errors.astype(np.float64), norms.astype(np.float64)


def _numbers(values: np.ndarray) -> str:
    return _text(values.astype("<f4"))


def _text(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def _array(text: str, kind: np.dtype | type) -> np.ndarray:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), kind)
    except (binascii.Error, ValueError) as error:
        raise _damaged() from error


def _damaged() -> InputError:
    return InputError(
        "the answers in fidelity.json are damaged: they are not as many as it says; make it again "
        "with lmu-deploy validate."
    )
