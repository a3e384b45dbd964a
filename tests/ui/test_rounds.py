"""What the page computes of a session: who begins, what is compared, what is explained, what is taken away."""

import csv
import io
import json
import re
import threading
import time
import zipfile
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import pytest

import ui
from assistant.files import SAMPLES
from assistant.lanes.dialogue import Turn
from assistant.lanes.lane import Chunks, Heard, Lane, Reply, TextDelta
from assistant.lanes.names import LANES
from assistant.latency import Latency
from assistant.limits import MAX_ROUNDS, MAX_SPEECH, MAX_WAITING
from assistant.sound.audio import SAMPLE_RATE, AudioError, Utterance
from ui.comparison import comparison
from ui.explanation import explain
from ui.export import write_export
from ui.lane_card import card
from ui.machine import Crowded, Machine
from ui.progress import Progress, one_after_the_other, order_of
from ui.rounds import Answer, Round, measurements, with_round
from ui.texts import CHINESE, ENGLISH
from ui.word_difference import word_difference

FAST = Latency(features=10, encode=200, connect=40, prefill=100, first_token=360, total=1250)
SLOW = Latency(features=10, encode=700, transcribe=812, prefill=100, first_token=1630, total=2500)
UTTERANCE = Utterance(np.full(SAMPLE_RATE, 0.1, np.float32))
SPOKEN = Turn((UTTERANCE,))


def one_round(cascade: Latency | None = SLOW, text: str = "yes", said: Turn = SPOKEN, duration: float = 5.0) -> Round:
    """A round about five seconds of speech."""
    answers = {"end_to_end": Answer(text, "red", None, FAST), "cascade": Answer("no", "read", None, cascade)}
    return Round(0, said, LANES, duration, answers)


class Rival(Lane):
    """Answers in three steps, and writes down when it ran."""

    def __init__(self, name: str, journal: list[str], problem: Exception | None = None) -> None:
        self.name, self.journal, self.problem = name, journal, problem

    def answer(self, *said: object, **options: object) -> Chunks:
        """Heard, one delta, the reply."""
        try:
            self.journal.append(f"{self.name} begins")
            yield Heard("words")
            time.sleep(0.05)
            if self.problem:
                raise self.problem
            yield TextDelta("well")
            yield Reply("well", "words", FAST)
        finally:
            self.journal.append(f"{self.name} ends")


def rivals(**problems: Exception) -> tuple[dict[str, Lane], list[str]]:
    """Both lanes and their common journal."""
    journal: list[str] = []
    return {name: Rival(name, journal, problems.get(name)) for name in LANES}, journal


def run(lanes: dict[str, Lane], order: Sequence[str]) -> Generator[Progress, None, None]:
    """The lanes on one utterance, which nobody stops."""
    return one_after_the_other(lambda name: lanes[name].answer(SPOKEN), order, threading.Event())


def test_a_lane_does_not_start_after_stop() -> None:
    lanes, journal = rivals()
    stop = threading.Event()
    for step in one_after_the_other(lambda name: lanes[name].answer(SPOKEN), LANES, stop):
        if step.done:
            stop.set()
    assert journal == ["end_to_end begins", "end_to_end ends"]


def test_lanes_take_turns_at_beginning_and_never_overlap() -> None:
    lanes, journal = rivals()
    for number in range(3):
        done = [step.lane for step in run(lanes, order_of(number)) if step.done]
        assert done == list(order_of(number))
    starts = [line.split()[0] for line in journal if line.endswith("begins")]
    assert starts == ["end_to_end", "cascade", "cascade", "end_to_end", "end_to_end", "cascade"]
    assert all(one.split()[0] == two.split()[0] for one, two in zip(journal[::2], journal[1::2], strict=True))


def test_a_lane_that_hears_nothing_leaves_the_other_alone() -> None:
    lanes, _ = rivals(end_to_end=AudioError("No words."))
    done = {step.lane: step for step in run(lanes, LANES) if step.done}
    assert done["end_to_end"].problem == "No words." and done["end_to_end"].latency is None
    assert done["cascade"].text == "well"


def test_closing_or_a_failure_ends_every_lane_that_began() -> None:
    lanes, journal = rivals()
    running = run(lanes, LANES)
    next(step for step in running if step.heard)
    running.close()
    assert journal == ["end_to_end begins", "end_to_end ends"]
    lanes, journal = rivals(cascade=RuntimeError("broken"))
    with pytest.raises(RuntimeError, match="broken"):
        list(run(lanes, LANES))
    assert sum(line.endswith("begins") for line in journal) == sum(line.endswith("ends") for line in journal) == 2


def test_only_rounds_that_both_lanes_answered_are_compared() -> None:
    rounds = [one_round(), one_round(cascade=None), one_round(cascade=Latency(total=5)), one_round()]
    rounds += [one_round(duration=0)]
    rounds[3].interrupted = True
    assert {one.clip for one in measurements(rounds)} == {0}
    assert "Turns compared: 1; left out: 4" in comparison(rounds, ENGLISH)
    assert ENGLISH.comparison_empty in comparison(rounds[1:], ENGLISH)


def test_a_visit_forgets_its_oldest_rounds() -> None:
    rounds: list[Round] = []
    for number in range(MAX_ROUNDS + 5):
        rounds = with_round(rounds, one_round(text=str(number)))
    assert len(rounds) == MAX_ROUNDS and rounds[-1].answers["end_to_end"].text == str(MAX_ROUNDS + 4)


def test_the_difference_is_explained_by_the_stages_that_made_it() -> None:
    pairs = [{"end_to_end": FAST, "cascade": SLOW}]
    assert explain(pairs, ENGLISH) == (
        "The cascade's first word came 1,270 ms later on average. "
        "The cascade spent 812 ms transcribing and 500 ms more encoding."
    )
    assert explain(pairs, CHINESE) == (
        "平均而言，级联通道的第一个词晚 1,270 毫秒。级联通道在转写上花了 812 毫秒，在编码上多花了 500 毫秒。"
    )
    swapped = [{"end_to_end": SLOW, "cascade": FAST}]
    assert explain(swapped, ENGLISH).startswith("The end-to-end lane's first word came 1,270 ms later")
    assert explain([{"end_to_end": FAST, "cascade": FAST}], ENGLISH) == ENGLISH.level


def test_words_are_compared_without_case_and_punctuation() -> None:
    one, other = word_difference("i don't read 2.50 books", "I don’t, red 2.50 Books!")
    assert "".join(piece.text for piece in one) == "i don't read 2.50 books"
    assert "".join(piece.text for piece in other) == "I don’t, red 2.50 Books!"
    assert [piece.text for piece in one if piece.differs] == ["read"]
    assert [piece.text for piece in other if piece.differs] == ["red"]
    chinese, _ = word_difference("今天天气很好", "今天的天气好")
    assert [piece.text for piece in chinese if piece.differs] == ["很"]


def test_a_card_marks_differences_shows_doubt_and_escapes() -> None:
    html = card("end_to_end", ENGLISH, Answer("<b>", "the <red> book", (0.9, 0.2, 0.7)), Answer("", "the blue book"))
    assert "&lt;b&gt;" in html and "<red>" not in html and "<b>" not in html
    assert '<mark class="doubtful" title="20 % sure">red</mark>' in html
    assert "1 of 3 words differ" in html and "Confidence: 60 % on average." in html


def test_a_card_says_so_when_only_the_other_lane_heard_a_word() -> None:
    shorter, longer = Answer("", "Ask you can do."), Answer("", "ask what you can do")
    assert "1 of 5 words differ" in card("cascade", ENGLISH, longer, shorter)
    html = card("end_to_end", ENGLISH, shorter, longer)
    assert "only the other lane heard: 1;" in html and "<mark" not in html and ENGLISH.same_words not in html
    assert ENGLISH.same_words in card("end_to_end", ENGLISH, shorter, shorter)


@pytest.mark.parametrize("kind", ["json", "csv", "zip"])
def test_an_export_holds_the_session(tmp_path: Path, kind: str) -> None:
    rounds = [one_round(text="=1+1 你好"), one_round(said=Turn(text="Written."), duration=0)]
    path = write_export(kind, rounds, "a machine", tmp_path)
    if kind == "json":
        session = json.loads(path.read_text("utf-8"))
        assert session["turns"][0]["lanes"]["end_to_end"]["text"] == "=1+1 你好"
        assert [found["audio"] for found in session["turns"]] == ["audio/001.flac", None]
        assert session["comparison"]["clips"] == 1
    elif kind == "csv":
        rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"))))
        assert len(rows) == 4 and rows[0]["text"] == "'=1+1 你好"  # no formula in anybody's spreadsheet
        assert rows[1]["transcribe"] == "812" and rows[0]["transcribe"] == ""
    else:
        with zipfile.ZipFile(path) as archive:
            assert sorted(archive.namelist()) == ["audio/001.flac", "session.csv", "session.json"]


def test_visitors_are_served_in_the_order_they_came_once_the_models_are_there() -> None:
    machine = Machine()
    with machine.place() as one, machine.place() as two:
        assert machine.loading is not None and one.ahead(0.01) == 0 and two.ahead(0.01) == 1
        machine.provide({})
        assert machine.loading is None and one.ahead(0.01) is None and two.ahead(0.01) == 1
        with machine.place() as three:
            assert three.ahead(0.01) == 2
    with machine.place() as four:  # those who left are not waited for
        assert four.ahead(0.01) is None


def test_a_line_that_is_too_long_is_refused() -> None:
    machine = Machine({})
    places = [machine.place() for _ in range(MAX_WAITING)]
    for place in places:
        place.__enter__()
    with pytest.raises(Crowded), machine.place():
        pass
    places[0].__exit__(None, None, None)
    with machine.place():
        pass


def test_old_recordings_are_let_go_of_before_their_rounds() -> None:
    rounds: list[Round] = []
    for _ in range(3):
        rounds = with_round(rounds, one_round(duration=MAX_SPEECH / 2))
    assert [len(one.said.clips) for one in rounds] == [0, 1, 1]
    assert all(one.duration for one in rounds)


def test_every_text_is_there_in_both_languages_and_is_used() -> None:
    english, chinese = ENGLISH.words, CHINESE.words
    assert english.keys() == chinese.keys()
    for name, words in english.items():
        if isinstance(words, dict) and words:
            assert words.keys() == chinese[name].keys(), name
        if isinstance(words, str):
            assert set(re.findall(r"\{\w+\}", words)) == set(re.findall(r"\{\w+\}", chinese[name])), name
    sources = "".join(path.read_text("utf-8") for path in Path(ui.__file__).parent.glob("*.py"))
    asked = set(re.findall(r"(?:texts|TEXTS\[[\w.]+\]|ENGLISH|self)\.(\w+)", sources))
    assert english.keys() - asked == set()


def test_every_preset_and_clip_and_error_has_a_chinese_name(tmp_path: Path) -> None:
    from assistant.lanes.lane import NOTHING_HEARD
    from assistant.sound.audio import load_utterance, prepare
    from ui.layout import read_presets, read_samples

    titles = [title for title, _ in read_presets()] + [clip["title"] for clip in read_samples(SAMPLES)]
    assert [title for title in titles if CHINESE.name(title) == title] == []
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("words")
    problems = [NOTHING_HEARD]
    for attempt in (
        lambda: load_utterance(tmp_path / "empty.wav"),
        lambda: load_utterance(tmp_path / "text.wav"),
        lambda: load_utterance(tmp_path / "missing.wav"),
        lambda: prepare(np.zeros(10), SAMPLE_RATE),
        lambda: prepare(np.zeros(SAMPLE_RATE), SAMPLE_RATE),
        lambda: prepare(np.full(SAMPLE_RATE, np.nan), SAMPLE_RATE),
        lambda: prepare(np.ones(SAMPLE_RATE * 130), SAMPLE_RATE),
        lambda: prepare(np.ones((2, 2, 2)), SAMPLE_RATE),
    ):
        with pytest.raises(AudioError) as raised:
            attempt()
        problems.append(str(raised.value))
    assert [problem for problem in problems if CHINESE.error(problem) == problem] == []
