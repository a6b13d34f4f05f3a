"""Processes of our own: calls one after the other in each of them, and jobs that outlive a process that is lost."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.memory import keep_memory

ATTEMPTS = 2  # a job whose process was lost is given to a new one so many times in all
PRELOADED = ("onnxruntime", "scipy.stats", "skimage", "harness.board.cells")


class WorkerLost(OSError):
    """A process ended without an answer: killed, for want of memory perhaps, or crashed."""


@cache
def _context() -> BaseContext:
    """Fresh processes. Where the system can, they branch off a server that has loaded the libraries once and has
    neither data nor threads, which takes a tenth of a second instead of several; elsewhere each starts from nothing."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        return context
    return multiprocessing.get_context("spawn")


class Worker:
    """A process that does calls one after the other and keeps its state between them; close it, or use `with`.

    As with all of Python's processes, a script that starts one needs `if __name__ == "__main__":`.

    Args:
        threads: of PyTorch and ONNX Runtime in it; default: what they choose.
    """

    def __init__(self, *, threads: int | None = None) -> None:
        import zoo

        self._busy = False
        self._end, other = _context().Pipe()
        self._process = _context().Process(  # type: ignore[attr-defined]
            target=_serve, args=(other, threads, zoo.plugin_files()), daemon=True
        )
        self._process.start()
        other.close()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return int(self._process.pid)

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function of a module there; what it raises is raised here.

        Raises:
            WorkerLost: the process ended before it answered.
        """
        self._busy = True
        try:
            self._end.send((function, args, kwargs))
            good, value = self._end.recv()
            self._busy = False
        except (EOFError, OSError) as error:
            self._process.join(10)
            code = self._process.exitcode
            how = f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"
            raise WorkerLost(
                f"the process of {getattr(function, '__name__', 'a call')} ended {how}; signal 9 often means too "
                "little memory, then use fewer workers"
            ) from error
        if not good:
            raise value
        return value

    def close(self) -> None:
        """End the process: at once where it is in a call; else it leaves by itself and leaves nothing behind."""
        if not self._busy:
            self._end.close()
            self._process.join(5)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(10)
        self._end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _serve(end: Connection, threads: int | None, plugins: Sequence[Path]) -> None:
    """The life of a worker: calls until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started it
    _prepare(threads, plugins)
    while True:
        try:
            function, args, kwargs = end.recv()
        except (EOFError, OSError):
            return
        try:
            answer = (True, function(*args, **kwargs))
        except Exception as error:
            answer = (False, error)
        try:
            end.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception:  # an answer that cannot be sent
            end.send((False, RuntimeError(f"{type(answer[1]).__name__}: {answer[1]}")))


def _prepare(threads: int | None, plugins: Sequence[Path]) -> None:
    import torch

    import zoo

    keep_memory()
    if threads:
        torch.set_num_threads(threads)
    for file in plugins:
        zoo.load_plugin(file)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A call that depends on no other one. Function and arguments must be picklable."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()

    def __call__(self) -> Any:
        return self.function(*self.arguments)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a job gave: a value, or the error that ended it."""

    job: Job
    value: Any = None
    error: Exception | None = None


def run_jobs(
    jobs: Sequence[Job], *, workers: int = 1, threads: int | None = None, cluster: str | None = None
) -> Iterator[Outcome]:
    """Do jobs, and give the outcome of each as soon as it is there, in no certain order.

    An error of one job is its outcome and stops no other. A job whose process is lost is done once more in a new one.

    Args:
        jobs: long ones first is best.
        workers: processes; 1 works in this one.
        threads: of each process.
        cluster: address of a Dask scheduler (or a file that holds it), whose workers do the jobs instead. They need
            this program, the same versions, and the same files under the same paths.

    Raises:
        ValueError: less than one worker, or `cluster` without the extra `cluster`.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers; give at least 1")
    if cluster is not None:
        yield from _on_cluster(jobs, cluster)
    elif workers == 1:
        for job in jobs:
            yield _outcome(job, job)
    else:
        yield from _in_processes(jobs, min(workers, len(jobs)), threads)


def _outcome(job: Job, call: Callable[[], Any]) -> Outcome:
    try:
        return Outcome(job=job, value=call())
    except Exception as error:
        return Outcome(job=job, error=error)


def _in_processes(jobs: Sequence[Job], workers: int, threads: int | None) -> Iterator[Outcome]:
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    finished: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    alive: set[Worker] = set()
    stopped = threading.Event()
    for job in jobs:
        waiting.put(job)

    def work() -> None:
        worker: Worker | None = None
        while not stopped.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                break
            for _ in range(ATTEMPTS):
                if worker is None:
                    worker = Worker(threads=threads)
                    alive.add(worker)
                outcome = _outcome(job, lambda job=job, worker=worker: worker.call(job.function, *job.arguments))  # type: ignore[misc]
                if not isinstance(outcome.error, WorkerLost) or stopped.is_set():
                    break
                alive.discard(worker)
                worker.close()
                worker = None
            finished.put(outcome)
        if worker is not None:
            alive.discard(worker)
            worker.close()

    pool = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in pool:
        thread.start()
    try:
        for _ in jobs:
            yield finished.get()
    finally:
        stopped.set()
        for worker in list(alive):
            with contextlib.suppress(OSError):
                worker.close()


def _on_cluster(jobs: Sequence[Job], cluster: str) -> Iterator[Outcome]:
    try:
        import distributed
    except ImportError:
        raise ValueError("a Dask cluster needs the extra: pip install 'smlm-zoo[cluster]'") from None
    import zoo

    where = {"scheduler_file": cluster} if Path(cluster).is_file() else {"address": cluster}
    plugins = zoo.plugin_files()
    with distributed.Client(**where) as client:
        waiting = {client.submit(_as_task, job, plugins, pure=False): job for job in jobs}
        for future in distributed.as_completed(list(waiting)):
            yield _outcome(waiting[future], future.result)


def _as_task(job: Job, plugins: Sequence[Path]) -> Any:
    _prepare(None, plugins)
    return job()
