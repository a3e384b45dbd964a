"""Many turns: what each lane remembers, what is read again, what is forgotten, what visitors see of each other."""

import gc
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from assistant.files import SAMPLES
from assistant.lanes.cascade import CascadeLane
from assistant.lanes.conversation import Conversation
from assistant.lanes.dialogue import Turn
from assistant.lanes.end_to_end import EndToEndLane
from assistant.lanes.lane import Chunk, Heard, Lane, Reply, TextDelta
from assistant.latency import StageClock
from assistant.limits import MAX_SPEECH
from assistant.model import llm as llm_module
from assistant.model.heads import Speech
from assistant.model.llm import LLM
from assistant.model.prompt import Memory, Message, Prompt, user_turn
from assistant.sound.audio import SAMPLE_RATE, AudioError, Utterance, load_utterance
from tests.conftest import WIDTH

NAMES = ("end_to_end", "cascade")


class Ears:
    """Stands for both the recogniser and the speech model: hears whatever a clip is named."""

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self.heard: list[int] = []

    def transcribe(self, samples: np.ndarray, clock: StageClock) -> str:
        self.heard.append(len(samples))
        return "" if len(samples) < SAMPLE_RATE else f"clip of {len(samples)}"

    def hear(self, samples: np.ndarray, clock: StageClock) -> Speech:
        self.heard.append(len(samples))
        return Speech(torch.full((4, WIDTH), len(samples) / 1e5), (" vectors",), torch.ones(1))


@pytest.fixture
def tiny_lanes(tiny_llm: LLM) -> dict[str, Lane]:
    """Both lanes on a random LLM; what they hear is scripted."""
    ears = Ears(tiny_llm)
    return {
        "end_to_end": EndToEndLane(ears, tiny_llm, max_tokens=6),  # type: ignore[arg-type]
        "cascade": CascadeLane(ears, tiny_llm, max_tokens=6),  # type: ignore[arg-type]
    }


def clip(seconds: float = 1.0) -> Utterance:
    return Utterance(np.zeros(int(seconds * SAMPLE_RATE), np.float32))


def ask(conversation: Conversation, name: str, turn: Turn | None = None) -> Reply:
    if turn is not None:
        conversation.say(turn)
    reply = list(conversation.answer(name))[-1]
    assert isinstance(reply, Reply)
    return reply


def told(lane: Lane, conversation: Conversation, name: str) -> str:
    """The conversation as the lane's LLM would read it now; speech is shown as zero bytes."""
    prompt = lane.llm.prompt(conversation._dialogues[name].messages(), reply=False)  # type: ignore[attr-defined]
    ids = prompt.ids.masked_fill(prompt.speech, 0)
    return str(lane.llm.tokenizer.decode(ids))  # type: ignore[attr-defined]


def test_each_lane_remembers_its_own_side(tiny_lanes: dict[str, Lane]) -> None:
    conversation = Conversation(tiny_lanes)
    conversation.say(Turn((clip(1), clip(2)), "Compare:"))
    replies = {name: ask(conversation, name).text for name in NAMES}
    conversation.say(Turn(text="And now?"))
    for name in NAMES:
        ask(conversation, name)
    seen = {name: told(tiny_lanes[name], conversation, name) for name in NAMES}
    assert seen["cascade"].startswith("<user>Compare: clip of 16000\nclip of 32000</s><assistant>")
    assert seen["end_to_end"].startswith(f"<user>Compare: {'<pad>' * 4}\n{'<pad>' * 4}</s><assistant>")
    for name in NAMES:
        said = [exchange.said[name] for exchange in conversation.exchanges]
        assert said[0].reply.strip() == replies[name]
        assert seen[name].count("<user>And now?</s>") == 1
        assert [one.latency is not None for one in said] == [True, True]


def test_text_alone_is_the_same_for_both_lanes(tiny_lanes: dict[str, Lane]) -> None:
    conversation = Conversation(tiny_lanes)
    conversation.say(Turn(text="What is the time?"))
    replies = [ask(conversation, name) for name in NAMES]
    assert replies[0].text == replies[1].text
    assert [reply.heard for reply in replies] == [None, None]
    assert [reply.latency.rtf for reply in replies] == [None, None]
    assert replies[0].latency.encode is None and replies[0].latency.prefill


def test_a_turn_costs_only_what_is_new_and_answers_the_same(
    tiny_lanes: dict[str, Lane], tiny_llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    extend = tiny_llm._extend

    def counting(embedded: torch.Tensor, cache: object) -> torch.Tensor:
        read.append(embedded.shape[1])
        return extend(embedded, cache)  # type: ignore[arg-type]

    monkeypatch.setattr(tiny_llm, "_extend", counting)
    for name in NAMES:
        conversation = Conversation(tiny_lanes)
        for number in range(4):
            read.clear()
            with_memory = ask(conversation, name, Turn((clip(1 + number),), "Say it"))
            assert sum(read) < 60, "the whole conversation was read again"
        dialogue = conversation._dialogues[name]
        prompt = tiny_llm.prompt(dialogue.messages()[:-1])
        with tiny_llm.lora(name == "end_to_end"):
            fresh = "".join(tiny_llm.stream(prompt, StageClock(tiny_llm.device), 6))
        assert fresh.strip() == with_memory.text


def test_memory_knows_other_speech_from_the_same_words(tiny_llm: LLM) -> None:
    one, two = torch.randn(3, WIDTH), torch.randn(3, WIDTH)
    first, second = (
        tiny_llm.prompt([Message("user", ["Say ", clip, "!"])]) for clip in (one, torch.cat([one[:2], two]))
    )
    assert first.shared(second) == len("<user>Say ") + 2
    memory, clock = Memory(), StageClock(tiny_llm.device)
    tiny_llm.read(first, clock, memory)
    with torch.inference_mode():
        expected = tiny_llm._prefill(second)[0]
        assert torch.allclose(tiny_llm._prefill(second, memory)[0], expected, atol=1e-4)


def test_memory_of_lora_is_not_used_without(tiny_llm: LLM) -> None:
    torch.manual_seed(3)
    tiny_llm.add_lora({"r": 4, "lora_alpha": 64, "target_modules": ["q_proj"], "init_lora_weights": False})
    prompt, memory, clock = tiny_llm.prompt([Message("user", ["Hello"])]), Memory(), StageClock(tiny_llm.device)
    with tiny_llm.lora():
        tiny_llm.read(prompt, clock, memory)
        assert memory.shared(prompt, True) == len(prompt.ids)
    assert memory.shared(prompt, False) == 0
    with torch.inference_mode():
        assert torch.equal(tiny_llm._prefill(prompt, memory)[0], tiny_llm._prefill(prompt)[0])


def test_only_so_many_conversations_keep_their_keys_and_values(tiny_llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_module, "MEMORIES", 2)
    memories = [Memory() for _ in range(4)]
    prompt, clock = tiny_llm.prompt([Message("user", ["Hello"])]), StageClock(tiny_llm.device)
    for memory in (*memories, memories[2]):
        tiny_llm.read(prompt, clock, memory)
    assert [memory.read is not None for memory in memories] == [False, False, True, True]
    tiny_llm.read(prompt, clock, memories[0])
    assert [memory.read is not None for memory in memories] == [True, False, True, False]
    del memories, memory
    gc.collect()
    assert all(reference() is None for reference in tiny_llm._recent)


def test_the_older_half_is_forgotten_when_it_does_not_fit(
    tiny_lanes: dict[str, Lane], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_module, "CONTEXT", 160)
    conversation = Conversation(tiny_lanes)
    sizes = []
    for number in range(8):
        ask(conversation, "cascade", Turn(text=f"Number {number}"))
        sizes.append(len(conversation._dialogues["cascade"].exchanges))
    assert max(sizes) < 8 and sizes != sorted(sizes)
    assert "Number 7" in told(tiny_lanes["cascade"], conversation, "cascade")
    assert len(conversation.exchanges) == 8  # what is shown stays
    conversation.say(Turn(text="x" * 200))
    with pytest.raises(AudioError, match="smaller parts"):
        list(conversation.answer("cascade"))


def test_edit_clear_and_ask_about_the_same_clip_again(tiny_lanes: dict[str, Lane]) -> None:
    conversation = Conversation(tiny_lanes)
    first = conversation.say(Turn((clip(1),), "Repeat"))
    for name in NAMES:
        ask(conversation, name)
    ask(conversation, "cascade", Turn(text="A mistake"))
    conversation.edit_last(Turn(text="What I meant"))
    ask(conversation, "cascade")
    ask(conversation, "cascade", Turn(first.turn.clips, "Translate"))
    seen = told(tiny_lanes["cascade"], conversation, "cascade")
    assert "A mistake" not in seen
    assert seen.index("Repeat: clip of 16000") < seen.index("What I meant") < seen.index("Translate: clip of 16000")
    assert "What I meant" not in told(tiny_lanes["end_to_end"], conversation, "end_to_end")
    conversation.clear()
    assert conversation.exchanges == []

    ask(conversation, "cascade", Turn(text="Hello"))
    assert told(tiny_lanes["cascade"], conversation, "cascade").startswith("<user>Hello</s>")


def test_visitors_share_nothing(tiny_lanes: dict[str, Lane]) -> None:
    visitors = [Conversation(tiny_lanes) for _ in range(3)]
    alone = [ask(Conversation(tiny_lanes), "cascade", Turn(text=f"I am {n}")).text for n in range(3)]
    threads = [
        threading.Thread(target=ask, args=(visitor, "cascade", Turn(text=f"I am {n}")))
        for n, visitor in enumerate(visitors)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for n, visitor in enumerate(visitors):
        assert visitor.exchanges[0].said["cascade"].reply.strip() == alone[n]
        assert told(tiny_lanes["cascade"], visitor, "cascade").count("<user>") == 1


def test_what_cannot_be_a_turn_is_said(tiny_lanes: dict[str, Lane]) -> None:
    conversation = Conversation(tiny_lanes)
    with pytest.raises(AudioError, match="nothing to answer"):
        conversation.say(Turn(text="  "))
    with pytest.raises(AudioError, match="130 s of speech"):
        conversation.say(Turn((clip(65), clip(65))))
    conversation.say(Turn((clip(0.5),)))  # in which the cascade hears nothing
    with pytest.raises(AudioError, match="No words were heard"):
        list(conversation.answer("cascade"))
    assert "cascade" not in conversation.exchanges[0].said
    assert ask(conversation, "cascade", Turn(text="Hello")).text is not None


def test_recordings_are_not_kept_for_ever(tiny_lanes: dict[str, Lane]) -> None:
    conversation = Conversation(tiny_lanes)
    for _ in range(12):
        conversation.say(Turn((clip(100),)))
    assert sum(exchange.turn.duration for exchange in conversation.exchanges) <= MAX_SPEECH
    for number in range(120):
        conversation.say(Turn(text=str(number)))
    assert len(conversation.exchanges) == 100 and conversation.exchanges[-1].turn.text == "119"


# Interruption -----------------------------------------------------------------------------------------------------


def test_a_turn_that_cannot_be_said_takes_no_place(tiny_lanes: dict[str, Lane]) -> None:
    conversation = Conversation(tiny_lanes)
    ask(conversation, "cascade", Turn((clip(1),)))
    with pytest.raises(AudioError, match="fit in one turn"):
        conversation.edit_last(Turn((clip(70), clip(70))))
    assert [one.turn.duration for one in conversation.exchanges] == [1.0]


def test_closing_keeps_what_was_said(tiny_lanes: dict[str, Lane]) -> None:
    conversation = Conversation(tiny_lanes)
    whole = ask(conversation, "cascade", Turn(text="Tell me")).text
    conversation.edit_last(Turn(text="Tell me"))
    chunks = conversation.answer("cascade")
    pieces = []
    for chunk in chunks:
        if isinstance(chunk, TextDelta):
            pieces.append(chunk.text)
            if len(pieces) == 2:
                chunks.close()
    said = conversation.exchanges[-1].said["cascade"]
    assert said.reply == "".join(pieces) and whole.startswith(said.reply.strip()) and said.latency is None
    conversation.cut("cascade", pieces[0])
    ask(conversation, "cascade", Turn(text="Go on"))
    assert f"<assistant>{pieces[0]}</s><user>Go on" in told(tiny_lanes["cascade"], conversation, "cascade")


def test_stop_ends_a_reply_within_one_token(tiny_lanes: dict[str, Lane]) -> None:
    conversation = Conversation(tiny_lanes)
    conversation.say(Turn(text="Tell me"))
    stop, after = threading.Event(), 0
    chunks: list[Chunk] = []
    for chunk in conversation.answer("cascade", stop=stop):
        chunks.append(chunk)
        after += stop.is_set() and isinstance(chunk, TextDelta)
        if isinstance(chunk, TextDelta):
            stop.set()
    assert after == 0 and isinstance(chunks[-1], Reply)
    assert [type(chunk) for chunk in chunks] == [Heard, TextDelta, Reply]


# Hearing early ----------------------------------------------------------------------------------------------------


def settled(early: object) -> None:
    early._thread.join(30)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_heard_early_is_answered_the_same_without_hearing_again(
    tiny_lanes: dict[str, Lane], tiny_llm: LLM, name: str
) -> None:
    lane = tiny_lanes[name]
    ears = lane.model if isinstance(lane, EndToEndLane) else lane.transcriber  # type: ignore[attr-defined]
    turn = Turn((clip(1),), "Repeat")
    plain = ask(Conversation(tiny_lanes), name, turn)
    conversation = Conversation(tiny_lanes)
    ears.heard.clear()
    early = conversation.anticipate(name, turn)
    settled(early)
    assert conversation.exchanges == [] and len(ears.heard) == 1
    conversation.say(turn)
    chunks = list(conversation.answer(name, early))
    assert isinstance(chunks[-1], Reply)
    assert (chunks[-1].text, chunks[-1].heard) == (plain.text, plain.heard)
    assert len(ears.heard) == 1
    latency = chunks[-1].latency
    assert latency.prefill and latency.first_token is not None


def test_a_bet_that_was_lost_changes_nothing(tiny_lanes: dict[str, Lane]) -> None:
    longer = Turn((clip(3),))
    plain = ask(Conversation(tiny_lanes), "end_to_end", longer)
    conversation = Conversation(tiny_lanes)
    early = conversation.anticipate("end_to_end", Turn((clip(1),)))
    settled(early)
    early.drop()
    assert ask(conversation, "end_to_end", longer).text == plain.text
    early = conversation.anticipate("end_to_end", Turn((clip(1),)))  # and one handed in all the same
    settled(early)
    conversation.edit_last(longer)
    assert list(conversation.answer("end_to_end", early))[-1].text == plain.text  # type: ignore[union-attr]


def test_nobody_is_kept_waiting_by_a_bet(tiny_lanes: dict[str, Lane]) -> None:
    """While another visitor is being answered nothing is heard early, and the bet is off without waiting."""
    other = Conversation(tiny_lanes)
    other.say(Turn(text="Hello"))
    chunks = other.answer("cascade")
    next(chunks)
    conversation = Conversation(tiny_lanes)
    turn = Turn((clip(1),))
    early = conversation.anticipate("end_to_end", turn)
    time.sleep(0.05)
    start = time.perf_counter()
    assert early.take(turn) is None
    assert time.perf_counter() - start < 1
    chunks.close()
    settled(early)
    assert ask(conversation, "end_to_end", turn).heard == "vectors"


@pytest.fixture(scope="module")
def real(lanes: dict[str, Lane]) -> Iterator[dict[str, Lane]]:
    yield lanes


def test_a_conversation_with_the_real_models(real: dict[str, Lane]) -> None:
    """Speech, then a written question about it that only memory can answer; early hearing makes no difference."""
    turn = Turn((load_utterance(SAMPLES / "capital.flac"),))
    plain = {name: ask(Conversation(real), name, turn).text for name in NAMES}
    conversation = Conversation(real)
    early = conversation.anticipate("end_to_end", turn)
    settled(early)
    conversation.say(turn)
    start = time.perf_counter()
    chunks = list(conversation.answer("end_to_end", early))
    first = chunks[-1].latency  # type: ignore[union-attr]
    assert chunks[-1].text == plain["end_to_end"]  # type: ignore[union-attr]
    assert first.encode > 0 and first.connect > 0 and first.prefill > 0
    assert first.first_token < first.encode + first.connect + first.prefill  # they were done before zero
    assert first.total <= (time.perf_counter() - start) * 1000
    ask(conversation, "cascade")
    conversation.say(Turn(text="Which country did I ask about? Answer with one word."))
    for name in NAMES:
        assert "france" in ask(conversation, name).text.lower(), name


def test_prompts_of_several_clips_and_of_text() -> None:
    vectors = torch.zeros(2, 3)
    assert user_turn([vectors], None).parts == [vectors]
    assert user_turn(["a", "b"], "Compare.").parts == ["Compare: ", "a", "\n", "b"]
    assert user_turn("heard", "Repeat").parts == ["Repeat: ", "heard"]
    assert user_turn([], " Hello. ").parts == ["Hello."]


def test_followed_by_text() -> None:
    prompt = Prompt(torch.tensor([5, 0]), torch.tensor([False, True]), torch.zeros(1, 3))
    longer = prompt.followed_by([7, 8])
    assert longer.ids.tolist() == [5, 0, 7, 8] and longer.speech.tolist() == [False, True, False, False]
    assert prompt.shared(longer) == 2
