"""Ten visitors at once on scripted lanes: all answered, in order, none mixed; those who leave hold nobody up.

On the real lanes, for ten minutes, with the memory of the page: python -m tests.load
"""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import soundfile

from assistant.sound.audio import SAMPLE_RATE
from tests.browser.conftest import ScriptedLane, Server, silence
from tests.load import DOES, Visitor, drive, visit_together

VISITORS = 10


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    """A clip of its own length for each visitor."""
    paths = [tmp_path / f"{number}.wav" for number in range(VISITORS)]
    for number, path in enumerate(paths):
        soundfile.write(path, np.full(SAMPLE_RATE + number * SAMPLE_RATE // 4, 0.1), SAMPLE_RATE)
    return paths


@pytest.fixture
def server(samples: Path) -> Iterator[Server]:
    """A page of our own: nobody else is in its line."""
    server = Server({name: ScriptedLane(name) for name in ("end_to_end", "cascade")}, silence, samples)
    yield server
    server.close()


def test_all_are_answered_in_order_and_none_is_mixed(server: Server, clips: list[Path]) -> None:
    words = [f"a moment, visitor {number}" for number in range(VISITORS)]
    visitors = visit_together(server.url, clips, words)
    finished = [visitor.finished for visitor in visitors]
    assert finished == sorted(finished)
    for number, visitor in enumerate(visitors):
        assert "Both lanes have answered." in visitor.said
        for lane in ("end_to_end", "cascade"):
            assert f"{lane} was told {words[number]} about {1 + number / 4:.2f} seconds" in visitor.said
        for other in range(VISITORS):
            assert other == number or f"visitor {other}" not in visitor.said
    assert max(visitor.place for visitor in visitors) >= VISITORS // 2


def test_memory_stays_flat(server: Server, clips: list[Path]) -> None:
    words = ["quickly"] * VISITORS
    process = psutil.Process()
    sizes = []
    for _ in range(4):
        visit_together(server.url, clips, words)
        sizes.append(process.memory_info().rss / 2**20)
    print(f"memory after each round of {VISITORS} visitors, MiB: {[round(size) for size in sizes]}")
    assert sizes[-1] - sizes[1] < 20  # the first rounds import and cache


def test_a_visitor_who_leaves_or_never_listens_holds_nobody_up(server: Server, clips: list[Path]) -> None:
    lane = server.lanes["end_to_end"]
    with httpx.Client(timeout=30) as client:
        gone = Visitor(server.url, clips[0], "slowly")
        gone.join(client)
        gone.listen(client, until="told slowly")  # and closes the connection in the middle of the reply
        assert lane.closed.wait(15)  # type: ignore[attr-defined]
        deaf = Visitor(server.url, clips[1], "never read")
        deaf.join(client)
        waiting = Visitor(server.url, clips[2], "in a hurry")
        waiting.join(client)
        began = time.monotonic()
        waiting.listen(client)
        assert "cascade was told in a hurry" in waiting.said and time.monotonic() - began < 15


def test_people_who_stop_reload_leave_and_bring_bad_files_see_only_what_is_theirs(server: Server) -> None:
    crowd = drive(server.url, seconds=6)
    assert crowd.mixed == [] and crowd.failed == []
    assert set(DOES) <= set(crowd.done)
    for what in ("answered", "recordings_compared", "sessions_looked_into"):
        assert crowd.done[what] > 0
