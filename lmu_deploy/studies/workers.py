"""Dask workers that run the trials, and the lock of a sweep's folder.

By default a local cluster is started for the sweep, with one thread per process, so that trials do
not compete for cores. It starts with the first job; a sweep without jobs starts none.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from lmu_deploy.core.errors import InputError, MissingDependencyError, RunError
from lmu_deploy.studies.plan import Job, Training
from lmu_deploy.studies.records import FAILED, Record
from lmu_deploy.studies.trial import run_and_record, train_and_save

_SECONDS_FOR_AN_ANSWER = 10
_QUIET = ("distributed", "distributed.worker", "distributed.nanny", "distributed.scheduler")


class Workers:
    """Workers that run jobs; a context manager that closes the cluster at its end.

    Parameters
    ----------
    folder : path
        Folder of the sweep, into which workers that have it write.
    scheduler : str, optional
        Address of a running scheduler, such as tcp://host:8786; by default a local cluster is
        started.
    workers : int, optional
        Number of processes of the local cluster; by default the number of cores.
    """

    def __init__(self, folder: Path, scheduler: str | None, workers: int | None) -> None:
        if scheduler is not None and workers is not None:
            raise InputError(
                f"workers is {workers}, and the cluster at {scheduler} has its own; leave one out."
            )
        if workers is not None and workers < 1:
            raise InputError(f"workers is {workers}; give at least 1.")
        self._folder, self._scheduler = folder.absolute(), scheduler
        self._count = workers or os.cpu_count() or 1
        self._open = ExitStack()
        self._client: Any = None
        self._trained: dict[str, Any] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def run(self, jobs: Sequence[Job]) -> Iterator[Record]:
        """Run jobs and yield their records as they end.

        Raises
        ------
        InputError
            If no scheduler answers.
        RunError
            If the connection to the scheduler is lost.
        """
        if not jobs:
            return
        client = self._connected()
        futures = {self._submit(client, job): job.key for job in jobs}
        for future in _distributed().as_completed(futures):
            yield _result(future, futures[future])

    def _submit(self, client: Any, job: Job) -> Any:
        trained = None
        if isinstance(training := job.network, Training):
            if training.key not in self._trained:
                self._trained[training.key] = client.submit(
                    train_and_save, training, self._folder, key=f"train-{training.key}"
                )
            trained = self._trained[training.key]
        return client.submit(run_and_record, job, self._folder, trained, key=f"trial-{job.key}")

    def _connected(self) -> Any:
        if self._client is None:
            distributed = _distributed()
            for name in _QUIET:
                logging.getLogger(name).setLevel(logging.CRITICAL)
            address: Any = self._scheduler
            if address is None:
                self._open.enter_context(_script_left_alone())
                address = self._open.enter_context(
                    distributed.LocalCluster(
                        n_workers=self._count,
                        threads_per_worker=1,
                        processes=True,
                        dashboard_address="localhost:0",
                        silence_logs=logging.CRITICAL,
                    )
                )
            try:
                self._client = distributed.Client(address, timeout=_SECONDS_FOR_AN_ANSWER)
            except (OSError, ValueError, TimeoutError) as error:
                raise InputError(
                    f"no scheduler answers at {self._scheduler} ({error}); start one with "
                    "`dask scheduler`, and workers with `dask worker ADDRESS`."
                ) from error
            self._open.enter_context(self._client)
        return self._client


@contextmanager
def _script_left_alone() -> Iterator[None]:
    """Start processes that do not run the calling script again.

    A new process imports the main module of its parent, as pickled functions may be defined there;
    a script without ``if __name__ == "__main__"`` would start its sweep in every worker. Jobs are
    functions of this package.
    """
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    main.__spec__ = None
    if "__file__" in hidden:
        del main.__file__
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)


def _result(future: Any, key: str) -> Record:
    """Return the record of a job, or one with the error of its worker."""
    distributed = _distributed()
    try:
        record: Record = future.result()
    except (distributed.CancelledError, distributed.comm.CommClosedError) as error:
        raise RunError(
            f"the connection to the scheduler was lost ({error}); start the sweep again, and "
            "finished trials are not repeated."
        ) from error
    except distributed.KilledWorker as error:
        return Record(key, FAILED, error=f"its worker died at every attempt ({error}).")
    except Exception as error:  # such as a worker on which this package is not installed
        return Record(key, FAILED, error=f"a worker could not run it: {error!r}.")
    return record


def _distributed() -> Any:
    try:
        return import_module("distributed")
    except ImportError as error:
        raise MissingDependencyError(
            f"sweeps need dask.distributed ({error}); run: pip install 'lmu-deploy[sweep]'"
        ) from error


try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder of a sweep for this process; without effect on systems without flock.

    Raises
    ------
    InputError
        If another sweep runs in it, or it cannot be written.
    """
    try:
        file = (folder / LOCK).open("w")
    except OSError as error:
        raise InputError(
            f"cannot write into {folder}: {error.strerror}; choose another folder."
        ) from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"another sweep is running in {folder}; wait for it or choose another folder."
                ) from error
        yield
