"""Talking at a terminal, with a sound card made of arrays: real speech in, speech out, devices that misbehave."""

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import soxr

import launch
from assistant.commands.talk import Talk, TalkOptions
from assistant.files import SAMPLES
from assistant.lanes.anticipation import Anticipation
from assistant.lanes.dialogue import Dialogue, Said, Turn
from assistant.lanes.lane import Chunks, Heard, Lane, Reply, TextDelta
from assistant.latency import Latency
from assistant.model.llm import Message
from assistant.sound.audio import SAMPLE_RATE, load_utterance
from assistant.sound.microphone import LOST, Microphone, level
from assistant.sound.sound_devices import SoundDeviceError, devices_in_words
from assistant.voice.loudspeaker import Loudspeaker
from assistant.voice.spoken_reply import Sound
from assistant.voice.tts import Voice
from tests.commands.sound_card import SoundCard

PATIENCE = 180  # seconds; the test machine may be busy


class ScriptedLane(Lane):
    """Says how long the clip was, in as many words as it is told to, and remembers what it was asked."""

    def __init__(self, name: str, words: int = 5, pause: float = 0.0) -> None:
        self.name, self.words, self.pause = name, words, pause
        self.turns: list[Turn] = []
        self.bets: list[Anticipation] = []
        self.early: list[bool] = []

    def answer(self, turn, dialogue=None, early=None, stop=None) -> Chunks:  # type: ignore[no-untyped-def]
        assert isinstance(turn, Turn) and isinstance(dialogue, Dialogue)
        self.turns.append(turn)
        self.early.append(early is not None and early in self.bets and turn.same(early.turn))
        exchange = Said(Message("user", [turn.text]), "words")
        dialogue.exchanges.append(exchange)
        yield Heard("words")
        for number in range(self.words):
            if stop is not None and stop.is_set():
                break
            time.sleep(self.pause)
            word = f"word{number}{'.' if number % 5 == 4 else ''} "
            exchange.reply += word
            yield TextDelta(word)
        yield Reply(exchange.reply, "words", Latency(first_token=1.0, total=2.0, endpoint=turn.endpoint))

    def anticipate(self, turn: Turn, dialogue: Dialogue | None = None) -> Anticipation:
        self.bets.append(Anticipation(turn, threading.Lock(), lambda wanted: None))
        return self.bets[-1]


class Beeping(Voice):
    """One second of tone for every piece of text."""

    def speak(self, text: str) -> Iterator[np.ndarray]:
        yield np.full(self.sample_rate, 0.25, np.float32)


def scripted(**options: float) -> dict[str, ScriptedLane]:
    return {name: ScriptedLane(name, **options) for name in ("end_to_end", "cascade")}  # type: ignore[arg-type]


@contextmanager
def talking(
    lanes: dict, voice: Voice | None = None, **options
) -> Iterator[tuple[Talk, "queue.SimpleQueue[str | None]"]]:  # type: ignore[no-untyped-def, type-arg]
    typed: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    talk = Talk(lanes, voice, TalkOptions(**options), typed)
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            talk._step()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield talk, typed
    finally:
        ended.set()
        thread.join(PATIENCE)
        talk._ended, talk._options = True, TalkOptions(push_to_talk=True)
        talk.run()  # nothing can come any more: it closes its devices and returns
    assert not thread.is_alive()


def wait_for(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.01)


def clip(name: str, rate: int = SAMPLE_RATE) -> np.ndarray:
    """A clip with a second of silence around it."""
    silence = np.zeros(SAMPLE_RATE, np.float32)
    samples = np.concatenate([silence, load_utterance(SAMPLES / f"{name}.flac").samples, silence])
    return samples if rate == SAMPLE_RATE else soxr.resample(samples, SAMPLE_RATE, rate)


# Hands-free -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.thorough
def test_two_utterances_are_answered_by_both_lanes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rate: int
) -> None:
    card = SoundCard(rate).install(monkeypatch)
    lanes = scripted()
    with talking(lanes, instruction="Repeat"):
        for number, name in enumerate(("capital", "lobster"), 1):
            card.say(clip(name, rate))
            wait_for(lambda number=number: len(lanes["cascade"].turns) == number)
    for lane in lanes.values():
        assert [turn.text for turn in lane.turns] == ["Repeat", "Repeat"]
        assert [turn.endpoint for turn in lane.turns] == [pytest.approx(704, abs=33)] * 2
    assert 3.5 < lanes["cascade"].turns[1].duration < 5.5
    assert lanes["end_to_end"].early == [True, True] and lanes["cascade"].early == [False, False]
    shown = capsys.readouterr().out
    for words in ("end-to-end", "cascade", "heard: words", "word0 word1", "first token 1 ms", "closed 704 ms after"):
        assert words in shown
    assert bool(card.refused) == (rate != 16_000)


@pytest.mark.thorough
def test_replies_are_spoken_and_the_microphone_is_closed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SoundCard(speed=2.0).install(monkeypatch)
    lanes = scripted()
    with talking(lanes, Beeping()) as (talk, _):
        card.say(clip("capital"))
        wait_for(lambda: talk._loudspeaker and talk._loudspeaker.playing)
        card.say(load_utterance(SAMPLES / "capital.flac").samples[:SAMPLE_RATE])  # its own voice, say
        wait_for(lambda: not talk._busy())
        time.sleep(0.8)
        assert len(lanes["end_to_end"].turns) == 1
        card.say(clip("lobster"))
        wait_for(lambda: len(lanes["cascade"].turns) == 2)
    assert np.abs(np.concatenate(card.played)).max() == pytest.approx(0.25, abs=0.02)


@pytest.mark.thorough
def test_barging_in_stops_everything_and_keeps_what_was_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = SoundCard(speed=2.0).install(monkeypatch)
    lanes = scripted(words=80, pause=0.02)
    with talking(lanes, Beeping(), barge_in=True) as (talk, _):
        card.say(clip("capital"))
        wait_for(lambda: talk._loudspeaker and talk._loudspeaker.playing)
        card.say(clip("lobster"))
        wait_for(lambda: len(lanes["end_to_end"].turns) == 2)
        exchange = talk._conversation.exchanges[0]
        said = exchange.said["end_to_end"].reply.split()
        assert 0 < len(said) < 50 and said == [f"word{n}{'.' if n % 5 == 4 else ''}" for n in range(len(said))]
        assert "cascade" not in exchange.said  # it had not come to that
    assert "(interrupted)" in capsys.readouterr().out


def test_enter_stops_and_a_written_line_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    SoundCard().install(monkeypatch)
    lanes = scripted(words=500, pause=0.02)
    with talking(lanes) as (talk, typed):
        typed.put("What is the time?")
        wait_for(lambda: talk._conversation.exchanges and talk._conversation.exchanges[0].said)
        typed.put("")
        wait_for(lambda: not talk._busy())
        assert len(talk._conversation.exchanges[0].said["end_to_end"].reply.split()) < 400
    assert [turn.text for turn in lanes["end_to_end"].turns] == ["What is the time?"]


# Push-to-talk -----------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_push_to_talk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    card = SoundCard().install(monkeypatch)
    lanes = scripted()
    with talking(lanes, push_to_talk=True) as (_, typed):
        card.say(clip("capital"))
        time.sleep(1.5)  # nobody has pressed Enter: nothing is heard
        typed.put("")
        wait_for(lambda: "Recording" in capsys.readouterr().out)
        card.say(clip("lobster"))
        time.sleep(2.0)
        typed.put("")
        wait_for(lambda: lanes["cascade"].turns)
        typed.put("")
        typed.put("")  # at once: too short
        wait_for(lambda: "too short" in capsys.readouterr().out)
    assert len(lanes["cascade"].turns) == 1
    assert lanes["cascade"].turns[0].duration > 4
    assert lanes["cascade"].turns[0].endpoint is None


# Devices that misbehave -------------------------------------------------------------------------------------------


def test_a_microphone_unplugged_in_mid_sentence_comes_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("assistant.commands.talk.RETRY", 0.1)
    card = SoundCard().install(monkeypatch)
    lanes, shown = scripted(), ""

    def told(words: str) -> bool:
        nonlocal shown
        shown += capsys.readouterr().out
        return words in shown

    with talking(lanes) as (_, typed):
        card.say(clip("lobster")[: 3 * SAMPLE_RATE])
        time.sleep(0.4)
        card.unplugged = True
        wait_for(lambda: told(LOST))
        wait_for(lambda: told("No microphone was found"))
        typed.put("Are you there?")
        wait_for(lambda: lanes["cascade"].turns)
        card.unplugged = False
        wait_for(lambda: told("The microphone is there."))
        card.to_hear.clear()
        card.say(clip("capital"))
        wait_for(lambda: len(lanes["cascade"].turns) == 2)
    assert card.opened > 0  # PortAudio was made to look again


def test_without_portaudio_one_can_still_write(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Absent:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    lanes = scripted()
    typed: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for line in ("Hello", None):
        typed.put(line)
    Talk(lanes, Beeping(), TalkOptions(), typed).run()  # returns, since nothing more can come
    shown = capsys.readouterr().out
    assert "PortAudio is missing" in shown and "You can still write." in shown
    assert "The reply is written only." in shown and "word4" in shown
    assert launch.main(["talk", "--list-devices"]) == 2
    assert "PortAudio is missing" in capsys.readouterr().err


def test_devices_are_listed_and_unknown_ones_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    SoundCard(48_000, microphones=2).install(monkeypatch)
    assert devices_in_words() == "  0  Test card: microphone (2 channels), loudspeaker (1 channels), 48000 Hz"
    with pytest.raises(SoundDeviceError, match="There is no microphone 'usb'"):
        Microphone("usb")
    SoundCard(microphones=0, loudspeakers=0).install(monkeypatch)
    assert "No sound devices" in devices_in_words()
    with pytest.raises(SoundDeviceError, match="No loudspeaker was found"):
        Loudspeaker()


def test_a_device_that_takes_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SoundCard().install(monkeypatch)
    card.rate = 44_100
    monkeypatch.setattr(
        card, "query_devices", lambda *_: {"name": "X", "default_samplerate": 8e3, "max_input_channels": 1}
    )
    with pytest.raises(SoundDeviceError, match=r"The microphone X cannot be opened \(.*Invalid sample rate"):
        Microphone()


def test_a_reader_that_is_late_loses_the_oldest_sound_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assistant.sound.microphone.WAITING", 10)
    card = SoundCard(speed=50).install(monkeypatch)
    microphone = Microphone()
    card.say(np.full(SAMPLE_RATE, 0.5, np.float32))
    time.sleep(0.5)
    heard = microphone.read()
    microphone.close()
    assert len(heard) <= 12 * 512 and np.abs(heard).max() == 0


def test_the_loudspeaker_knows_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    SoundCard(24_000, speed=1.0).install(monkeypatch)
    loudspeaker = Loudspeaker()
    loudspeaker.play(Sound(np.zeros(4800, np.float32), 24_000, "All of this "))
    loudspeaker.play(Sound(np.zeros(240_000, np.float32), 24_000, "and only a few words out of these ten here"))
    time.sleep(2.0)
    said = loudspeaker.stop()
    assert said.startswith("All of this and") and "ten" not in said
    assert not loudspeaker.playing
    loudspeaker.close()


def test_levels() -> None:
    assert level(np.zeros(100, np.float32)) == level(np.zeros(0, np.float32)) == -60
    assert level(np.ones(100, np.float32)) == 0
    assert level(np.full(100, 0.1, np.float32)) == pytest.approx(-20)


# The whole way ----------------------------------------------------------------------------------------------------


def test_from_the_end_of_speech_to_the_spoken_reply(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lanes: dict[str, Lane]
) -> None:
    """Real speech, real models, the packaged voice; the card runs in real time, so that hearing early can help."""
    card = SoundCard(speed=1.0).install(monkeypatch)
    voice = Voice()
    voice.warm_up()
    with talking(lanes, voice) as (talk, _):
        card.say(clip("capital"))
        wait_for(lambda: talk._conversation.exchanges and len(talk._conversation.exchanges[0].said) == 2)
        wait_for(lambda: not talk._busy())
        said = talk._conversation.exchanges[0].said
    assert "paris" in said["end_to_end"].reply.lower() and "paris" in said["cascade"].reply.lower()
    latency = said["end_to_end"].latency
    assert latency is not None and latency.endpoint and latency.first_token and latency.first_audio
    assert latency.first_token < latency.first_audio
    assert np.abs(np.concatenate(card.played)).max() > 0.05
    assert "first audio" in capsys.readouterr().out
