"""Processes that share work: results in order, and a death, an error or a killed command leave nobody waiting."""

import os
import signal
import subprocess
import sys
import time

import pytest

from assistant.files import ROOT
from train.command_line import told
from train.workers import WorkerError, shared_out


def work(job: str) -> str:
    if job == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "full":
        raise OSError(28, "No space left on device")
    return job.upper()


def cannot_begin() -> None:
    raise ValueError("there is no such model")


def test_results_come_in_the_order_of_the_jobs() -> None:
    assert list(shared_out(work, list("abcdef"), 2, chunk=2)) == list("ABCDEF")


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_worker_that_is_killed_ends_the_command_with_the_reason() -> None:
    with pytest.raises(SystemExit, match=r"killed \(by SIGKILL.*memory.*same command again"), told():
        list(shared_out(work, ["a", "die", "b", "c"], 2))


def test_what_a_worker_raises_is_told() -> None:
    with pytest.raises(SystemExit, match=r"No space left.*make room"), told():
        list(shared_out(work, ["a", "full", "b"], 2))


def test_a_worker_that_cannot_begin_says_why() -> None:
    with pytest.raises(ValueError, match="there is no such model"):
        list(shared_out(work, ["a"], 1, start=cannot_begin))
    with pytest.raises(WorkerError, match="exit code 3"):
        list(shared_out(work, ["a"], 1, start=os._exit, arguments=(3,)))


SLEEPERS = """
import time
from train.workers import shared_out
if __name__ == "__main__":
    list(shared_out(time.sleep, [60, 60], 2))
"""


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="asks /proc")  # noqa: PTH112
def test_no_worker_outlives_a_command_that_is_killed(tmp_path) -> None:
    (tmp_path / "sleepers.py").write_text(SLEEPERS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = subprocess.Popen([sys.executable, str(tmp_path / "sleepers.py")], env=environment, stderr=subprocess.PIPE)
    children = f"/proc/{command.pid}/task/{command.pid}/children"
    deadline, workers = time.monotonic() + 20, []
    while len(workers) < 3 and time.monotonic() < deadline:  # two, and what looks after their semaphores
        with open(children) as file:  # noqa: PTH123
            workers = file.read().split()
        time.sleep(0.05)
    time.sleep(0.5)
    command.kill()
    command.communicate()
    while any(alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers and not any(alive(worker) for worker in workers)


def alive(process: str) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
