"""Processes that share the work of a command. One that dies ends the command with the reason, and none outlives it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class WorkerError(RuntimeError):
    """A process that shared the work is gone; the message says why, as far as that can be known, and what to do."""


def shared_out(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    processes: int | None,
    chunk: int = 1,
    start: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """The results of `work`, in the order of the jobs, from processes that begin with `start(*arguments)`.

    What `work` or `start` raises is raised here. `chunk` jobs at a time are handed to a process.

    Raises
    ------
    WorkerError
        A process was killed, by somebody or by a system that ran out of memory.
    """
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin, (start, arguments))
    workers: set[Any] = set()
    try:
        results = executor.map(partial(_do, work), jobs, chunksize=chunk)
        workers = set(multiprocessing.active_children()) - before
        yield from results
    except BrokenProcessPool as error:
        executor.shutdown()  # only then is it known how each has ended
        raise WorkerError(
            f"A process that shared the work {_ending([worker.exitcode for worker in workers])}. What was finished "
            "stays: give the same command again, with fewer --processes where memory is short."
        ) from error
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()


def _ending(codes: Iterable[int | None]) -> str:
    """What became of the process that ended first; the others were told to end because of it."""
    known = [code for code in codes if code]
    code = next((code for code in known if code != -signal.SIGTERM), known[0] if known else None)
    if code is None:
        return "ended of itself"
    if code > 0:
        return f"ended with an error (exit code {code}; it stands above)"
    name = signal.Signals(-code).name
    reason = ", as a system does that runs out of memory" if name == "SIGKILL" else ""
    return f"was killed (by {name}{reason})"


_failures: list[Exception] = []  # of this worker, when it began


def _begin(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of them: the command says what it means
    try:
        if start:
            start(*arguments)
    except Exception as error:  # whatever it is, the command has to hear of it, and does with the first job
        _failures.append(error)


def _do(work: Callable[[Job], Result], job: Job) -> Result:
    if _failures:
        raise _failures[0]
    return work(job)


def _end_with_parent() -> None:
    """Waiting for more work, a worker would not notice that the command was killed, and keep its memory for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
