"""A reply is spoken while it is written: in order, soon, without Markdown, and never in the way of the text."""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from assistant.lanes.lane import Chunk, Chunks, Heard, Reply, TextDelta
from assistant.latency import Latency
from assistant.voice.spoken_reply import FIRST_WORDS, Pieces, Sound, Unspoken, speak
from assistant.voice.tts import SpeechUnavailable, SystemVoice, Voice, load_voice, speakable

TEXT = (
    "Sure, here is what I know about it. Paris is the capital of France, and Dr. Smith lives there.\n"
    "1. It has 2.1 million people.\n2. It is old.\n```python\nprint('a. b')\n```\nSee [the map. Now](http://x.y/z)!"
)


def tokens(text: str) -> list[str]:
    """Text in pieces of three characters, which is how an LLM might send it."""
    return ["".join(three) for three in itertools.zip_longest(*[iter(text)] * 3, fillvalue="")]


def pieces(text: str) -> list[str]:
    cutter = Pieces()
    return [piece for token in tokens(text) for piece in cutter.feed(token)] + [cutter.rest()]


def lane(text: Sequence[str], pause: float = 0.0, journal: list[str] | None = None) -> Chunks:
    try:
        yield Heard("words")
        first = None
        begun = time.perf_counter()
        for piece in text:
            time.sleep(pause)
            first = first or (time.perf_counter() - begun) * 1000
            yield TextDelta(piece)
        yield Reply("".join(text), "words", Latency(first_token=first, total=(time.perf_counter() - begun) * 1000))
    finally:
        if journal is not None:
            journal.append("closed")


class Humming(Voice):
    """Takes its time for every piece, then hums with half a second of silence in front."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.spoken: list[str] = []

    def speak(self, text: str) -> Iterator[np.ndarray]:
        time.sleep(self.seconds)
        if speakable(text):
            self.spoken.append(text)
            yield np.concatenate([np.zeros(12_000, np.float32), np.full(2400, 0.3, np.float32)])


def test_pieces_are_the_text_and_end_where_a_voice_breathes() -> None:
    cut = pieces(TEXT)
    assert "".join(cut) == TEXT
    aloud = [speakable(piece) for piece in cut if speakable(piece)]
    assert len(aloud[0].split()) <= FIRST_WORDS
    assert "Paris is the capital of France, and Dr. Smith lives there." in aloud
    assert aloud[-3:] == ["It has 2.1 million people.", "It is old.", "See the map. Now!"]
    assert not any("print" in piece for piece in aloud)


@pytest.mark.parametrize(
    "text, first",
    [
        ("Of course, I can do that.", "Of course,"),
        ("Yes. It is.", "Yes."),
        ("The capital of France is called Paris by everyone.", "The capital of France is called "),
        ("巴黎是法国的首都。它很美。", "巴黎是法国的首都。"),
    ],
)
def test_the_first_piece_is_short(text: str, first: str) -> None:
    assert pieces(text)[0] == first


def test_sounds_come_between_the_text_and_first_audio_counts_their_silence() -> None:
    voice = Humming()
    chunks = list(speak(lane(tokens(TEXT), pause=0.005), voice))
    kinds = [type(chunk) for chunk in chunks]
    assert kinds[0] is Heard and kinds[-1] is Reply
    assert kinds.index(Sound) < len(kinds) - 1 - kinds[::-1].index(TextDelta), "spoken only after the text"
    sounds = [chunk for chunk in chunks if isinstance(chunk, Sound)]
    assert [sound.text for sound in sounds] == voice.spoken
    reply = chunks[-1]
    assert isinstance(reply, Reply) and reply.latency.first_token and reply.latency.first_audio
    assert reply.latency.first_audio > reply.latency.first_token + 500  # half a second of silence comes first


def test_a_slow_voice_does_not_hold_the_text_up() -> None:
    begun = time.perf_counter()
    written = spoken = 0.0
    for chunk in speak(lane(tokens(TEXT)), Humming(0.2)):
        written = time.perf_counter() if isinstance(chunk, TextDelta) else written
        spoken = time.perf_counter() if isinstance(chunk, Sound) else spoken
    assert written - begun < 0.5 < spoken - begun


def test_stop_and_close_end_voice_and_lane_at_once() -> None:
    for way in ("stop", "close"):
        stop, journal, voice = threading.Event(), [], Humming(0.3)
        stream = speak(lane(tokens(TEXT), journal=journal), voice, stop)
        begun = 0.0
        for chunk in stream:
            if isinstance(chunk, Sound):
                begun = time.perf_counter()
                if way == "stop":
                    stop.set()
                else:
                    stream.close()
        assert time.perf_counter() - begun < 0.25, "went on speaking"
        assert journal == ["closed"]
        spoken = len(voice.spoken)
        time.sleep(0.7)
        assert len(voice.spoken) <= spoken + 1  # the piece under way


def test_silence_leaves_the_chunks_as_they_are() -> None:
    chunks: list[Chunk] = list(speak(lane(["a", "b"]), load_voice("silent")))  # type: ignore[arg-type]
    assert [type(chunk) for chunk in chunks] == [Heard, TextDelta, TextDelta, Reply]


@pytest.mark.parametrize("error, words", [(SpeechUnavailable("No voice."), "No voice."), (OSError("x"), "failed")])
def test_a_voice_that_fails_is_said_once_and_the_reply_is_whole(error: Exception, words: str) -> None:
    class Broken(Voice):
        def speak(self, text: str) -> Iterator[np.ndarray]:
            raise error

    chunks = list(speak(lane(tokens(TEXT)), Broken()))
    problems = [chunk.reason for chunk in chunks if isinstance(chunk, Unspoken)]
    assert len(problems) == 1 and words in problems[0]
    assert "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta)) == TEXT
    assert isinstance(chunks[-1], Reply) and chunks[-1].latency.first_audio is None


def test_the_packaged_voice_speaks_soon_after_the_first_token() -> None:
    """Not a benchmark: 30 tokens a second leave the voice plenty of time even on a busy machine."""
    voice = Voice()
    voice.warm_up()
    words = [
        f"{word} "
        for word in ["The", "capital", "of", "France", "is", "Paris.", "It", "lies", "on", "the", "river", "Seine."]
    ]
    chunks = list(speak(lane(words, pause=0.03), voice))
    reply = chunks[-1]
    assert isinstance(reply, Reply) and reply.latency.first_audio and reply.latency.first_token
    assert reply.latency.first_audio - reply.latency.first_token < 2500
    first = next(chunk for chunk in chunks if isinstance(chunk, Sound))
    assert first.rate == 24_000 and 0.5 < len(first.samples) / first.rate < 3


# Voices -----------------------------------------------------------------------------------------------------------


def test_speed_changes_the_pace() -> None:
    slow, fast = (
        len(np.concatenate(list(Voice(speed).speak("This is a sentence of some length.")))) for speed in (0.7, 1.5)
    )
    assert slow > 1.5 * fast


def test_unknown_voices_and_speeds_are_said() -> None:
    with pytest.raises(ValueError, match="natural, system, silent"):
        load_voice("loud")
    with pytest.raises(ValueError, match=r"0\.5 \(slow\) to 2"):
        load_voice("natural", 9)


def test_the_system_voice_speaks_or_says_what_is_missing(capfd: pytest.CaptureFixture[str]) -> None:
    voice = SystemVoice()
    try:
        said = [np.concatenate(list(voice.speak(text))) for text in ("Hello there. How are you?", "今天天气很好。")]
    except SpeechUnavailable as problem:
        assert "install" in str(problem)
    else:
        assert all(len(samples) > 0.5 * voice.sample_rate and np.abs(samples).max() > 0.05 for samples in said)
    assert capfd.readouterr().out == ""


def test_a_system_without_pyttsx3_gives_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "pyttsx3.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SpeechUnavailable, match="pip install pyttsx3"):
        list(SystemVoice().speak("Hello."))
