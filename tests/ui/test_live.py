"""The live line without a browser: who may use it, what it understands, and what becomes of a visitor who leaves."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from assistant.lanes.dialogue import Turn
from assistant.lanes.lane import Lane
from assistant.lanes.names import LANES
from assistant.limits import MAX_EARS, MAX_VISITORS
from assistant.sound.audio import SAMPLE_RATE, Utterance
from tests.browser.conftest import ScriptedLane, free_port, hums
from ui import live, serving
from ui.live import REFUSED
from ui.machine import Crowded, Machine
from ui.serving import Address
from ui.visit import Visit, Visits

UTTERANCE = Utterance(np.full(2 * SAMPLE_RATE, 0.1, np.float32))


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> list[Visits]:
    """The visitors of the page that is served next."""
    made: list[Visits] = []

    def make(machine: Machine) -> Visits:
        made.append(Visits(machine))
        return made[-1]

    monkeypatch.setattr(serving, "Visits", make)
    return made


@pytest.fixture
def port(visits: list[Visits], tmp_path: Path) -> Iterator[int]:
    """A page on scripted lanes."""
    address = Address(port=free_port())
    lanes: dict[str, Lane] = {name: ScriptedLane(name) for name in LANES}
    page = serving.launch(Machine(lanes), hums, tmp_path, address)
    yield address.port
    page.close(verbose=False)


def line(port: int, origin: str | None = None) -> ClientConnection:
    """A line as a page from `origin` (that page's own by default) would open it."""
    return connect(f"ws://127.0.0.1:{port}/live", origin=origin or f"http://127.0.0.1:{port}")  # type: ignore[arg-type]


def until(condition: Callable[[], bool]) -> None:
    """Wait, but not for ever."""
    give_up = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_only_the_page_itself_and_only_its_visitors_get_a_line(port: int, visits: list[Visits]) -> None:
    with pytest.raises(Exception, match="403"):
        line(port, "http://elsewhere.test")
    for hello in ('{"key": "guessed"}', "{}", "[1]", "not json"):
        with line(port) as socket:
            socket.send(hello)
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(15)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == REFUSED


@pytest.mark.parametrize(
    "message",
    ["[]", "{", '{"rate": 5}', '{"rate": "loud"}', '{"heard": "x", "of": 0}', b"\0" * (live.LONGEST + 2)],
)
def test_what_is_not_understood_closes_the_line_and_nothing_else(
    port: int, visits: list[Visits], message: str | bytes
) -> None:
    visit = visits[0].of(None)
    for _ in range(2):
        with line(port) as socket:
            socket.send(json.dumps({"key": visit.key}))
            socket.send(message)
            with pytest.raises(ConnectionClosed):
                socket.recv(15)
    assert visits[0].find(visit.key) is visit
    assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200


def test_a_visitor_who_left_is_forgotten_and_one_who_comes_back_is_not(
    port: int, visits: list[Visits], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "GRACE", 0.5)
    stays, leaves = visits[0].of(None), visits[0].of(None)
    stays.say(Turn((UTTERANCE,)))
    with line(port) as socket:
        socket.send(json.dumps({"key": leaves.key}))
        until(lambda: leaves.connected)
    with line(port) as socket:
        socket.send(json.dumps({"key": stays.key}))
        until(lambda: stays.connected)
    with line(port) as socket:  # back within the grace
        socket.send(json.dumps({"key": stays.key}))
        until(lambda: visits[0].find(leaves.key) is None)
        time.sleep(0.7)
        assert visits[0].find(stays.key) is stays and stays.connected
        clip = httpx.get(f"http://127.0.0.1:{port}/live/{stays.key}/0.wav")
        assert clip.status_code == 200 and clip.headers["cache-control"] == "no-store"
    until(lambda: visits[0].find(stays.key) is None)
    assert httpx.get(f"http://127.0.0.1:{port}/live/{stays.key}/0.wav").status_code == 404


def test_a_browser_that_does_not_listen_is_given_up(port: int, visits: list[Visits]) -> None:
    visit = visits[0].of(None)
    socket = line(port)
    socket.send(json.dumps({"key": visit.key}))
    until(lambda: visit.connected)
    for _ in range(60):
        visit.tell({"sound": 0, "rate": SAMPLE_RATE}, bytes(2**20))
    until(lambda: not visit.connected)
    socket.socket.close()


def test_the_visitor_who_was_quiet_for_longest_is_forgotten_first() -> None:
    visits = Visits(Machine({}))
    first = visits.of(None)
    others = [visits.of(None) for _ in range(MAX_VISITORS - 1)]
    visits.of(first.key)
    visits.of(None)
    assert visits.find(first.key) is first and visits.find(others[0].key) is None
    assert len({visit.key for visit in others}) == MAX_VISITORS - 1


def test_only_so_many_are_hands_free_at_a_time() -> None:
    visits = Visits(Machine({}))
    ears = [visits.listen(visits.of(None)) for _ in range(MAX_EARS)]
    with pytest.raises(Crowded):
        visits.listen(visits.of(None))
    ears[0].close()
    visits.listen(visits.of(None))


def test_sound_that_stops_and_goes_on_is_one_turn_heard_early_anew() -> None:
    from tests.browser.test_live_page import clips, quiet

    lane = ScriptedLane(LANES[0])
    visits = Visits(Machine({LANES[0]: lane}))
    visit = visits.of(None)
    told: list[object] = []
    visit.connect(lambda about, _: told.append(about.get("state")))
    ear = visits.listen(visit)
    speech = clips(1)[0]
    loud = np.flatnonzero(np.abs(speech) > 0.02)
    speech = speech[loud[0] : loud[-1]]
    sound = np.concatenate([quiet(0.5), speech, quiet(0.45), speech, quiet(1)])
    for block in np.array_split(sound, len(sound) // 640):
        ear.hear((block * 32767).astype("<i2").tobytes() + b"\0")  # half a sample is not heard
    heard = ear.next(1)
    assert heard is not None and heard[1] is not None
    assert heard[0].duration > 2 * len(speech) / SAMPLE_RATE
    assert heard[1].take(heard[0]) is not None and ear.next(0.01) is None
    assert [state for state in told if state] == ["hearing", "thinking"]


def voices() -> int:
    """Threads that speak just now."""
    return sum(thread.name == "voice" for thread in threading.enumerate())


def test_what_was_heard_is_told_after_or_before_the_lane_has_ended() -> None:
    before = voices()
    for told_first in (False, True):
        visit = Visit(Machine({name: ScriptedLane(name) for name in LANES}), "k" * 22)
        newest = visit.say(Turn((), "sentences"))
        chunks = visit.answer(LANES[0], newest.number, hums("natural", 1), None, visit.stop)
        if told_first:
            while not (visit._spoken and len(visit._spoken.pieces) == 3):
                next(chunks)
            visit.heard(newest.number, 1.5)
        visit.stop.set() if told_first else list(chunks)
        chunks.close()
        if not told_first:
            visit.heard(newest.number, 1.5)
        visit.heard(newest.number + 1, 3)  # another round's, which came late
        said = visit.conversation.exchanges[-1].said[LANES[0]].reply
        assert said.startswith("The first sentence is here.") and said.endswith("The second")
    until(lambda: voices() <= before)  # none goes on for nobody
