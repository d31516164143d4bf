"""Dask workers that run the trials of sweeps and the chips of yields, and locks.

By default a local cluster is started, with one thread per process, so that jobs do not compete for
cores. It starts with the first job; a study without jobs starts none. A worker process that dies is
replaced, and its job runs on another one, up to three times.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from lmu_deploy.core.errors import InputError, LmuDeployError, MissingDependencyError, RunError

_SECONDS_FOR_AN_ANSWER = 10
_QUIET = ("distributed", "distributed.worker", "distributed.nanny", "distributed.scheduler")


K = TypeVar("K")


@dataclass(frozen=True)
class Failure:
    """Why a job has no result: its worker died at every attempt, or the job raised this."""

    sentence: str
    error: Exception


class Cluster:
    """Connection to workers; a context manager that closes it, and its own cluster, at the end.

    Parameters
    ----------
    scheduler : str, optional
        Address of a running scheduler, such as tcp://host:8786; by default a local cluster is
        started.
    workers : int, optional
        Number of processes of the local cluster; by default the number of cores.

    Raises
    ------
    InputError
        If both are given, or the number is below 1.
    """

    def __init__(self, scheduler: str | None, workers: int | None) -> None:
        if scheduler is not None and workers is not None:
            raise InputError(
                f"workers is {workers}, and the cluster at {scheduler} has its own; leave one out."
            )
        if workers is not None and workers < 1:
            raise InputError(f"workers is {workers}; give at least 1.")
        self._scheduler = scheduler
        self._count = workers or os.cpu_count() or 1
        self._open = ExitStack()
        self._client: Any = None

    def __enter__(self: C) -> C:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    @property
    def size(self) -> int:
        """Number of jobs that can run at the same time, at least 1."""
        if self._scheduler is None:
            return self._count
        return max(1, sum(self._connected().nthreads().values()))

    def submit(self, function: Callable[..., Any], *arguments: Any, key: str) -> Any:
        """Return the future of a call; arguments can be futures of other calls.

        Two calls with one key have one result, so the key must cover the function and its
        arguments.

        Raises
        ------
        InputError
            If no scheduler answers.
        """
        return self._connected().submit(function, *arguments, key=key)

    def as_completed(self, futures: Mapping[Any, K]) -> Iterator[tuple[K, Any]]:
        """Yield the key and the result of each future when it ends; the result can be a Failure.

        Raises
        ------
        RunError
            If the connection to the scheduler is lost.
        """
        if not futures:
            return
        for future in _distributed().as_completed(futures):
            yield futures[future], _result(future)

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


C = TypeVar("C", bound=Cluster)


class Study(Protocol):
    """Data and options that many jobs share."""

    @property
    def inputs(self) -> str:
        """Hash of everything on which results depend."""


S = TypeVar("S", bound=Study)


@dataclass(frozen=True)
class Call:
    """A call of a method of a study."""

    method: str
    arguments: tuple[Any, ...]


class Spread(Generic[S]):
    """Calls of the methods of a study, here one after the other or on workers.

    Parameters
    ----------
    build : callable
        Builds the study, such as a partial of its class. A worker builds it once and keeps it.
    cluster : Cluster, optional
        By default the calls run in this process.

    Attributes
    ----------
    study : Study
    """

    def __init__(self, build: Callable[[], S], cluster: Cluster | None = None) -> None:
        self.study, self._build, self._cluster = build(), build, cluster

    @property
    def size(self) -> int:
        """Number of calls that can run at the same time."""
        return 1 if self._cluster is None else self._cluster.size

    def run(self, calls: Iterable[Call]) -> Iterator[tuple[Call, Any]]:
        """Yield each call and its result, as they end.

        Raises
        ------
        RunError
            After all other calls, if a worker died at every attempt at a call, or it has other
            data or another version. What a call raises itself is raised at once.
        """
        if self._cluster is None:
            for call in calls:
                yield call, getattr(self.study, call.method)(*call.arguments)
            return
        inputs, futures = self.study.inputs, {}
        for call in calls:
            study = self._cluster.submit(self._build, key=f"study-{inputs}")
            name = f"{call.method}-{inputs}-{call.arguments}"
            futures[self._cluster.submit(_called, study, inputs, call, key=name)] = call
        lost = []
        for call, result in self._cluster.as_completed(futures):
            if not isinstance(result, Failure):
                yield call, result
            elif isinstance(result.error, LmuDeployError):
                raise result.error
            else:
                lost.append(f"{call.method} of {call.arguments[0]}: {result.sentence}")
        if lost:
            raise RunError(f"{lost[0]} Start the study again; what has finished is kept.")


def _called(study: Any, inputs: str, call: Call) -> Any:
    """Make a call on a worker."""
    if study.inputs != inputs:
        raise RunError(
            "a worker has other data, other profiles or another version of lmu-deploy than the "
            "process that started the study; install the same everywhere."
        )
    with exclusively():
        return getattr(study, call.method)(*call.arguments)


_LOCK = Lock()
"""Global random generators belong to the process, so threads of a worker take turns."""


@contextmanager
def exclusively() -> Iterator[None]:
    """Run one job at a time in this process, and discard what it prints to standard error."""
    with _LOCK, Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
        yield


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


def _result(future: Any) -> Any:
    """Return the result of a job, or why there is none."""
    distributed = _distributed()
    try:
        return future.result()
    except (distributed.CancelledError, distributed.comm.CommClosedError) as error:
        raise RunError(
            f"the connection to the scheduler was lost ({error}); start the study again, and "
            "what has finished is not repeated."
        ) from error
    except distributed.KilledWorker as error:
        return Failure(f"its worker died at every attempt ({error}).", error)
    except Exception as error:  # such as a worker on which this package is not installed
        return Failure(f"a worker could not run it: {error!r}.", error)


def _distributed() -> Any:
    try:
        return import_module("distributed")
    except ImportError as error:
        raise MissingDependencyError(
            f"workers need dask.distributed ({error}); run: pip install 'lmu-deploy[sweep]'"
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
