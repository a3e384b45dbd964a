"""When an utterance starts and is over: real people, real pauses, noise, clicks, silence; in pieces of any size."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from assistant.files import ROOT, SAMPLES
from assistant.limits import MAX_DURATION
from assistant.sound.audio import SAMPLE_RATE, LiveResampler, Utterance, load_utterance
from assistant.sound.endpointing import CHUNK, Closed, Endpointer, Event, Paused, Resumed, Started, Thresholds

SPOKEN_ON = ("lobster", "peaceful_night", "newgate", "phone_number", "alarm", "capital")  # without a long stop inside
DEV = ROOT.parent / "shared" / "data" / "speech" / "dev"
GAP = 1.5  # seconds of silence between clips
THRESHOLDS = Thresholds()


def joined(clips: list[Utterance], noise_db: float | None = None) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Clips with silence around them, and where (seconds) each begins and ends; noise that many dB below the speech."""
    silence = np.zeros(int(GAP * SAMPLE_RATE), np.float32)
    parts, places, at = [silence], [], GAP
    for clip in [replace(clip, samples=clip.resampled(), rate=SAMPLE_RATE) for clip in clips]:
        loud = np.flatnonzero(np.abs(clip.samples) > 0.1 * np.abs(clip.samples).max()) / SAMPLE_RATE
        places.append((at + loud[0], at + loud[-1]))
        parts += [clip.samples, silence]
        at += clip.duration + GAP
    stream = np.concatenate(parts)
    if noise_db is not None:
        power = np.mean([np.mean(clip.samples**2) for clip in clips])
        noise = np.random.default_rng(0).normal(0, np.sqrt(power / 10 ** (noise_db / 10)), len(stream))
        stream = stream + noise.astype(np.float32)
    return stream, places


def hear(stream: np.ndarray, pieces: int = 480) -> list[tuple[float, Event]]:
    """Every event with the time in seconds at which it was told."""
    endpointer, told = Endpointer(), []
    for start in range(0, len(stream), pieces):
        told += [
            (min(start + pieces, len(stream)) / SAMPLE_RATE, event)
            for event in endpointer.feed(stream[start : start + pieces])
        ]
    return told


def closed(told: list[tuple[float, Event]]) -> list[tuple[float, Utterance]]:
    return [(at, event.utterance) for at, event in told if isinstance(event, Closed)]


@pytest.mark.parametrize("noise_db", [None, 20, 10])
def test_every_clip_is_one_utterance_even_in_noise(noise_db: float | None) -> None:
    clips = [load_utterance(SAMPLES / f"{name}.flac") for name in SPOKEN_ON]
    stream, places = joined(clips, noise_db)
    found = closed(hear(stream))
    assert len(found) == len(clips)
    for (told_at, utterance), (begins, ends) in zip(found, places, strict=True):
        assert utterance.endpoint == pytest.approx(THRESHOLDS.close * 1000, abs=33)
        assert ends + 0.5 < told_at < ends + GAP + 0.1
        last = told_at - utterance.endpoint / 1000 + THRESHOLDS.pause  # where the samples end
        assert last > ends - 0.1, "the end was cut off"
        assert last - utterance.duration < begins + 0.1, "the beginning was cut off"


@pytest.mark.skipif(not DEV.is_dir(), reason="the development speech is not here")
@pytest.mark.parametrize("name", ["librispeech", "asterisk"])
@pytest.mark.thorough
def test_many_readers_are_heard_whole(name: str) -> None:
    """People pause; they are cut into pieces there, but next to nothing of what they say is lost."""
    lines = (DEV / name / "manifest.jsonl").read_text("utf-8").splitlines()
    clips = [load_utterance(DEV / name / json.loads(line)["audio"]) for line in lines[:: max(1, len(lines) // 12)][:12]]
    stream, _ = joined(clips)
    found = closed(hear(stream))
    assert len(clips) <= len(found) <= 2 * len(clips)
    energy = sum(float((utterance.samples**2).sum()) for _, utterance in found)
    assert energy > 0.98 * float((stream**2).sum())


def test_a_pause_is_told_before_the_end_and_hears_the_same() -> None:
    stream, _ = joined([load_utterance(SAMPLES / "lobster.flac")])
    told = hear(stream)
    kinds = [type(event) for _, event in told]
    assert kinds[0] is Started and kinds[-2:] == [Paused, Closed]
    (paused_at, paused), (closed_at, over) = told[-2:]
    assert isinstance(paused, Paused) and isinstance(over, Closed)
    assert over.utterance.samples is paused.utterance.samples
    assert closed_at - paused_at == pytest.approx(THRESHOLDS.close - THRESHOLDS.pause, abs=0.07)
    assert paused.utterance.endpoint is None


def test_going_on_after_a_short_pause_is_one_utterance() -> None:
    first, second = (load_utterance(SAMPLES / name).samples for name in ("capital.flac", "alarm.flac"))
    trimmed = first[: np.flatnonzero(np.abs(first) > 0.02)[-1]]
    onset = second[np.flatnonzero(np.abs(second) > 0.02)[0] :]
    silence = np.zeros(SAMPLE_RATE, np.float32)
    stream = np.concatenate([silence, trimmed, silence[:6400], onset, silence, silence])
    kinds = [type(event) for _, event in hear(stream)]
    assert kinds.count(Closed) == 1 and kinds.count(Started) == 1
    assert kinds.index(Paused) < kinds.index(Resumed) < kinds.index(Closed)


def test_pieces_of_any_size_make_no_difference() -> None:
    stream, _ = joined([load_utterance(SAMPLES / "newgate.flac")])
    whole, *others = (closed(hear(stream, pieces)) for pieces in (len(stream), 1600, 333))
    for other in others:
        assert [len(utterance.samples) for _, utterance in other] == [len(utterance.samples) for _, utterance in whole]
        assert np.array_equal(other[0][1].samples, whole[0][1].samples)


def cough() -> np.ndarray:
    """Two bursts of shaped noise, 90 ms each: what a cough looks like to a microphone."""
    rng = np.random.default_rng(1)
    burst = rng.normal(0, 0.3, 1440) * np.exp(-np.arange(1440) / 400)
    return np.concatenate([burst, np.zeros(800), burst * 0.6]).astype(np.float32)


@pytest.mark.parametrize("noise", ["silence", "hiss", "cough", "click", "hum"])
def test_what_is_not_speech_does_nothing(noise: str) -> None:
    stream = np.random.default_rng(0).normal(0, 0.003 if noise == "hiss" else 1e-5, 20 * SAMPLE_RATE).astype(np.float32)
    for at in range(2, 20, 3):
        place = slice(at * SAMPLE_RATE, None)
        if noise == "cough":
            stream[place][: len(cough())] += cough()
        elif noise == "click":
            stream[place][:3] = (0.9, -0.9, 0.5)
    if noise == "hum":
        stream += (0.05 * np.sin(2 * np.pi * 50 * np.arange(len(stream)) / SAMPLE_RATE)).astype(np.float32)
    assert hear(stream) == []


def test_a_word_fragment_is_too_short_but_yes_is_not() -> None:
    clip = load_utterance(SAMPLES / "capital.flac").samples
    start = np.flatnonzero(np.abs(clip) > 0.05)[0]
    silence = np.zeros(SAMPLE_RATE, np.float32)
    assert hear(np.concatenate([silence, clip[start : start + 1600], silence, silence])) == []
    half_second = np.concatenate([silence, clip[start : start + 8000], silence, silence])
    assert len(closed(hear(half_second))) == 1


def test_a_click_in_the_closing_silence_costs_no_work_and_no_time() -> None:
    stream, _ = joined([load_utterance(SAMPLES / "lobster.flac")])
    plain = hear(stream)
    paused_at = next(at for at, event in reversed(plain) if isinstance(event, Paused))
    place = int((paused_at + 0.1) * SAMPLE_RATE)
    stream[place : place + 3] = (0.9, -0.9, 0.5)
    assert [type(event) for _, event in hear(stream)] == [type(event) for _, event in plain]


@pytest.mark.thorough
def test_endless_speech_is_closed_at_the_limit_and_memory_stays_small() -> None:
    speech = load_utterance(SAMPLES / "lobster.flac").samples
    loud = speech[np.flatnonzero(np.abs(speech) > 0.05)[0] : np.flatnonzero(np.abs(speech) > 0.05)[-1]]
    endpointer = Endpointer(Thresholds(pause=3.0))  # nobody stops for three seconds in this stream
    endpointer.feed(loud)
    tracemalloc.start()
    told: list[Event] = []
    for _ in range(int(MAX_DURATION * SAMPLE_RATE / len(loud)) + 1):
        told += endpointer.feed(loud)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    over = [event.utterance for event in told if isinstance(event, Closed)]
    assert len(over) == 1
    assert MAX_DURATION - 1 < over[0].duration <= MAX_DURATION
    assert peak < 40 * 2**20


def test_silence_holds_no_memory() -> None:
    endpointer = Endpointer()
    for _ in range(200):
        assert endpointer.feed(np.zeros(4000, np.float32)) == []
    held = sum(len(chunk) for chunk in endpointer._before) + len(endpointer._rest) + len(endpointer._heard)
    assert held <= THRESHOLDS.before * SAMPLE_RATE + 2 * CHUNK


def test_after_a_reset_nothing_of_the_past_is_left() -> None:
    stream, _ = joined([load_utterance(SAMPLES / "capital.flac")])
    endpointer = Endpointer()
    endpointer.feed(stream[: int(2.5 * SAMPLE_RATE)])
    endpointer.reset()
    again = [event for event in endpointer.feed(stream) if isinstance(event, Closed)]
    assert np.array_equal(again[0].utterance.samples, closed(hear(stream))[0][1].samples)


def test_numbers_that_are_none_are_silence_and_wrong_shapes_are_refused() -> None:
    assert hear(np.full(SAMPLE_RATE, np.nan, np.float32)) == []
    with pytest.raises(ValueError, match="mono float samples"):
        Endpointer().feed(np.zeros((10, 2), np.float32))
    with pytest.raises(ValueError, match="mono float samples"):
        Endpointer().feed(np.zeros(10, np.int16))


@pytest.mark.parametrize("rate", [44_100, 48_000, 16_000])
def test_live_speech_at_any_rate_is_heard(rate: int) -> None:
    import soxr

    clip = load_utterance(SAMPLES / "lobster.flac")
    stream, _ = joined([clip])
    wide = np.stack([soxr.resample(stream, SAMPLE_RATE, rate)] * 2, axis=1)
    resampler, endpointer, told = LiveResampler(rate), Endpointer(), []
    for piece in np.array_split((wide * 32767).astype(np.int16), 97):
        told += endpointer.feed(resampler.feed(piece))
    over = [event.utterance for event in told if isinstance(event, Closed)]
    assert len(over) == 1
    assert over[0].duration == pytest.approx(closed(hear(stream))[0][1].duration, abs=0.07)


def test_a_television_behind_the_speaker_is_no_speaker() -> None:
    """A voice 30 dB below goes on for a minute; one question is asked near its beginning."""
    question = load_utterance(SAMPLES / "capital.flac").resampled()
    programmes = [np.tile(load_utterance(SAMPLES / f"{name}.flac").resampled(), 12) for name in ("jfk", "newgate")]
    for programme in programmes:
        stream = programme[: 40 * SAMPLE_RATE] * np.float32(10 ** (-30 / 20))
        stream[2 * SAMPLE_RATE : 2 * SAMPLE_RATE + len(question)] += question
        found = closed(hear(stream))
        assert 1 <= len(found) <= 2


def test_who_shouts_once_is_still_heard_when_they_speak_again() -> None:
    question = load_utterance(SAMPLES / "capital.flac").resampled()
    pause = np.zeros(2 * SAMPLE_RATE, np.float32)
    shout = (question / np.abs(question).max()).clip(-1, 1)
    stream = np.concatenate([pause, shout, pause, question * np.float32(10 ** (-15 / 20)), pause])
    assert len(closed(hear(stream))) == 2
