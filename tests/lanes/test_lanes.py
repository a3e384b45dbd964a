"""Both lanes on the real weights: real speech in, a sensible answer out, every latency term where it belongs."""

import re
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from assistant.files import SAMPLES
from assistant.lanes.cascade import CascadeLane
from assistant.lanes.dialogue import Turn
from assistant.lanes.end_to_end import EndToEndLane
from assistant.lanes.lane import Chunk, Heard, Lane, Reply, TextDelta
from assistant.lanes.loading import ModelOptions, load_lanes, precision_in_words
from assistant.latency import STAGES, StageClock
from assistant.model.llm import LLM
from assistant.model.transcriber import Transcriber
from assistant.sound.audio import AudioError, Utterance, load_utterance, prepare
from tests.conftest import tiny_connector
from train.questions.sounds import SOUNDS

EITHER = pytest.mark.parametrize("name", ["end_to_end", "cascade"])


def say(lane: Lane, clip: str, instruction: str | None = None) -> Reply:
    return lane.reply(Turn.spoken(load_utterance(SAMPLES / clip), instruction))


def finish(chunks: Iterator[Chunk]) -> Reply:
    reply = list(chunks)[-1]
    assert isinstance(reply, Reply)
    return reply


def words(text: str | None) -> set[str]:
    return set(re.findall(r"\w+", (text or "").lower()))


def brief(lane: Lane) -> Lane:
    """The same lane with short replies, where only the start matters."""
    assert isinstance(lane, EndToEndLane | CascadeLane)
    return replace(lane, max_tokens=4)


def test_one_llm_and_one_whisper_serve_both_lanes(lanes: dict[str, Lane]) -> None:
    speech, cascade = lanes["end_to_end"], lanes["cascade"]
    assert isinstance(speech, EndToEndLane) and isinstance(cascade, CascadeLane)
    assert speech.model.llm is cascade.llm
    assert speech.model.whisper is cascade.transcriber.whisper
    assert "LLM" in precision_in_words(lanes)


@EITHER
def test_a_real_person_is_heard(lanes: dict[str, Lane], name: str) -> None:
    heard = words(say(brief(lanes[name]), "jfk.flac").heard)
    spoken = words("and so my fellow americans ask not what your country can do for you")
    assert len(spoken & heard) >= 0.7 * len(spoken)


def test_the_end_to_end_lane_says_how_sure_it_is_of_each_word(lanes: dict[str, Lane]) -> None:
    heard = next(lanes["end_to_end"].answer(Turn.spoken(load_utterance(SAMPLES / "jfk.flac"))))
    assert isinstance(heard, Heard) and heard.text and heard.confidence
    assert len(heard.confidence) == len(heard.text.split())
    assert all(0 < sure <= 1 for sure in heard.confidence)
    assert min(heard.confidence) < max(heard.confidence)
    transcript = next(lanes["cascade"].answer(Turn.spoken(load_utterance(SAMPLES / "jfk.flac"))))
    assert isinstance(transcript, Heard) and transcript.confidence is None


@EITHER
def test_repeats_when_told_to(lanes: dict[str, Lane], name: str) -> None:
    reply = say(lanes[name], "jfk.flac", "Repeat what was said, word for word.")
    assert len(words("ask what your country can do for you") & words(reply.text)) >= 6


@EITHER
def test_translates_when_told_to(lanes: dict[str, Lane], name: str) -> None:
    text = say(lanes[name], "good_day.flac", "Translate what was said into Chinese.").text
    assert len(re.findall(r"[\u4e00-\u9fff]", text)) >= 4
    assert "今天" in text


@EITHER
def test_judges_sentiment_when_told_to(lanes: dict[str, Lane], name: str) -> None:
    wording = "Is what was said positive, negative or neutral? Answer with one word."
    assert "negative" in say(lanes[name], "review.flac", wording).text.lower()


@EITHER
def test_answers_a_spoken_question(lanes: dict[str, Lane], name: str) -> None:
    assert "paris" in say(lanes[name], "capital.flac").text.lower()


@EITHER
def test_an_answer_streams_and_accounts_for_its_time(lanes: dict[str, Lane], name: str) -> None:
    chunks = list(lanes[name].answer(Turn.spoken(load_utterance(SAMPLES / "capital.flac"))))
    assert isinstance(chunks[0], Heard) and isinstance(chunks[-1], Reply)
    pieces = [chunk.text for chunk in chunks if isinstance(chunk, TextDelta)]
    assert len(pieces) > 2 and "".join(pieces).strip() == chunks[-1].text
    latency = chunks[-1].latency
    only = {"end_to_end": "connect", "cascade": "transcribe"}
    for stage in STAGES:
        expected = stage not in only.values() or stage == only[name]
        assert (getattr(latency, stage) is not None) == expected, stage
    stages = sum(getattr(latency, stage) or 0 for stage in STAGES)
    assert stages <= latency.first_token <= latency.total
    assert latency.first_token - stages < 0.2 * latency.first_token + 20  # nothing large goes unaccounted
    assert latency.rtf == pytest.approx(latency.total / 1000 / 2.15, rel=0.05)


@EITHER
def test_the_same_clip_gives_the_same_answer(lanes: dict[str, Lane], name: str) -> None:
    first, second = (say(brief(lanes[name]), "lobster.flac") for _ in range(2))
    assert (first.text, first.heard) == (second.text, second.heard)


@EITHER
def test_a_minute_of_speech_is_answered(lanes: dict[str, Lane], name: str) -> None:
    clip = load_utterance(SAMPLES / "jfk.flac")
    minute = prepare(np.tile(clip.samples, 6)[: 60 * clip.rate], clip.rate, "minute")
    reply = brief(lanes[name]).reply(Turn.spoken(minute))
    assert (reply.heard or "").lower().count("country") >= 6


@EITHER
def test_48_khz_stereo_is_heard_like_16_khz_mono(lanes: dict[str, Lane], name: str) -> None:
    import soxr

    clip = load_utterance(SAMPLES / "capital.flac")
    wide = soxr.resample(clip.samples, clip.rate, 48_000)
    reply = brief(lanes[name]).reply(Turn.spoken(prepare(np.stack([wide, wide], axis=1), 48_000)))
    assert {"capital", "france"} <= words(reply.heard)


@EITHER
@pytest.mark.parametrize("sound", SOUNDS)
def test_what_is_not_speech_is_not_answered(lanes: dict[str, Lane], name: str, sound: str) -> None:
    rng = np.random.default_rng(7)
    samples = SOUNDS[sound](48_000, rng).astype(np.float32)
    with pytest.raises(AudioError, match=r"No words were heard|Nothing was heard"):
        brief(lanes[name]).reply(Turn.spoken(prepare(samples, 16_000)))


def test_a_transcript_of_nothing_is_refused(lanes: dict[str, Lane], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transcriber, "transcribe", lambda *_: "")
    with pytest.raises(AudioError, match="No words were heard"):
        say(lanes["cascade"], "capital.flac")


def test_a_stopped_answer_frees_the_machine(lanes: dict[str, Lane]) -> None:
    answer = lanes["cascade"].answer(Turn.spoken(load_utterance(SAMPLES / "capital.flac")))
    assert isinstance(next(answer), Heard)
    answer.close()
    assert say(brief(lanes["end_to_end"]), "capital.flac").text


def test_visitors_at_once_wait_and_are_not_mixed(lanes: dict[str, Lane]) -> None:
    clips = {"capital.flac": "france", "alarm.flac": "alarm", "lobster.flac": "lobster"}
    heard: dict[str, str | None] = {}

    def visit(clip: str) -> None:
        heard[clip] = say(brief(lanes["cascade"]), clip).heard

    visitors = [threading.Thread(target=visit, args=[clip]) for clip in clips]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(timeout=120)
    for clip, word in clips.items():
        assert word in (heard[clip] or "").lower()
        assert not {other for other in clips.values() if other != word} & words(heard[clip])


def test_speech_streamed_in_pieces_is_the_same_speech(lanes: dict[str, Lane]) -> None:
    """However the samples arrived, the utterance that is closed gives the same tokens."""
    lane = lanes["end_to_end"]
    assert isinstance(lane, EndToEndLane)
    clip = load_utterance(SAMPLES / "lobster.flac")
    pieces = np.array_split(clip.samples, 17)
    heard = [
        lane.model.hear(samples, StageClock(torch.device("cpu")))
        for samples in (clip.samples, Utterance(np.concatenate(pieces)).resampled())
    ]
    assert torch.equal(heard[0].vectors, heard[1].vectors)


@pytest.mark.weights
def test_both_lanes_take_any_llm(tiny_llm_folder) -> None:
    """One that was never trained with, and of another width: what is heard depends on no LLM."""
    lanes = load_lanes(ModelOptions(llm=str(tiny_llm_folder), precision="float32", max_tokens=3))
    for lane in lanes.values():
        assert "france" in (say(lane, "capital.flac").heard or "").lower()


def test_lora_serves_speech_only(tiny_llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cascade's LLM is the untouched one even right after the end-to-end lane has used LoRA."""
    torch.manual_seed(3)
    settings = {"r": 4, "lora_alpha": 64, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
    seen: list[bool] = []
    extend = tiny_llm._extend

    class Model:
        def hear(self, samples: np.ndarray, clock: StageClock) -> object:
            return connector_output

    def watched(embedded: torch.Tensor, cache: object) -> torch.Tensor:
        seen.append(tiny_llm._lora_on)
        return extend(embedded, cache)  # type: ignore[arg-type]

    tiny_llm.add_lora(settings)
    monkeypatch.setattr(tiny_llm, "_extend", watched)
    connector_output = tiny_connector("linear")(torch.randn(1, 40, 64), torch.tensor([40]))[0]
    lane = EndToEndLane(Model(), tiny_llm, max_tokens=3)  # type: ignore[arg-type]
    lane.reply(Turn.spoken(Utterance(np.ones(16_000, np.float32))))
    assert seen and all(seen) and not tiny_llm._lora_on
    seen.clear()
    lane.reply(Turn(text="Written."))
    assert seen and not any(seen)


@pytest.mark.weights
def test_an_llm_that_was_never_trained_with_answers_on_both_lanes() -> None:
    """One connector, another LLM: the default one answers above."""
    both = load_lanes(ModelOptions(llm="smollm2-135m-instruct"))
    for lane in both.values():
        assert "capital of france is paris" in say(lane, "capital.flac").text.lower()
