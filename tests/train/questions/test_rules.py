"""Rules against replies that a person would call right or wrong, in English and Chinese."""

import pytest

from assistant.lanes.lane import NOTHING_HEARD
from train.labels.instructions import InstructionPool
from train.questions.rules import RULES, SENTIMENTS, Case, failure, merely_transcribed, says_nothing_was_heard

TEXT = "The museum in the old town opens at nine on Sunday."
ZH = "老城区的博物馆星期天九点开门。"
CHOICES = {"get weather": ("get weather",), "play music": ("play music",)}


@pytest.mark.parametrize(
    ("task", "reply"),
    [
        ("recognition", "the museum in the old town opens at nine on sunday"),
        ("repetition", "You said: The museum in the old town opens at 9 on Sunday."),
        ("intent", "The speaker wants to say when one can visit the museum."),
        ("sentiment", "Neutral."),
        ("sentiment", "The sentiment is neutral, for it states a fact."),
        ("sentiment", "这句话是中性的。"),
        ("keywords", "museum, old town, nine, Sunday"),
        ("keywords", "museum, old town, opens, nine, Sunday"),
        ("keywords", "- museum\n- opens\n- Sunday"),
        ("translation", "老城区的博物馆星期天九点开门。"),
        ("continuation", "It closes at five in the afternoon, so come early."),
        (
            "continuation",
            "The museum in the old town opens at nine on Sunday. Admission is free for children and students.",
        ),
        ("answer", "Thanks, I will come on Sunday morning."),
    ],
)
def test_what_does_as_told(task: str, reply: str) -> None:
    assert failure(Case(task, reply, TEXT, labels=SENTIMENTS if task == "sentiment" else {})) is None


@pytest.mark.parametrize(
    ("task", "reply", "why"),
    [
        ("recognition", "It is about a museum.", "does not say the same"),
        ("repetition", ZH, "does not say the same"),
        ("intent", TEXT, "merely transcribed"),
        ("intent", "word " * 60, "too long"),
        ("intent", "说话人想去博物馆。", "in another language"),
        ("sentiment", "It could be positive or negative.", "names several labels"),
        ("sentiment", "A museum.", "names no label"),
        ("keywords", TEXT, "merely transcribed"),
        ("keywords", "Berlin, weather, dinner", "words that were not said"),
        ("keywords", "a large museum that is in the town, dinner at nine", "not a list of keywords"),
        ("translation", TEXT, "merely transcribed"),
        ("translation", "It says that a place can be visited.", "not translated"),
        ("translation", "好", "too short"),
        ("continuation", "museum opens Sunday", "adds nothing"),
        ("answer", "好的，谢谢你告诉我。", "in another language"),
        ("answer", "Sure. " * 200, "too long"),
        ("answer", "I'm sorry, but I can't assist with that.", "refuses, or asks for the text"),
        ("translation", "Please provide the text to translate.", "refuses, or asks for the text"),
        ("answer", " \n", "empty"),
        ("answer", NOTHING_HEARD, "nothing was heard"),
    ],
)
def test_what_does_not(task: str, reply: str, why: str) -> None:
    assert failure(Case(task, reply, TEXT, labels=SENTIMENTS if task == "sentiment" else {})) == why


@pytest.mark.parametrize(
    ("task", "reply", "why"),
    [
        ("translation", "The museum in the old town opens at nine on Sundays.", None),
        ("translation", ZH, "merely transcribed"),
        ("repetition", "老城區的博物館星期天九點開門", None),
        ("keywords", "博物馆、星期天、九点", None),
        ("sentiment", "中性", None),
        ("answer", "好的，我星期天早上过去。", None),
        ("answer", "I will go there.", "in another language"),
    ],
)
def test_chinese_speech(task: str, reply: str, why: str | None) -> None:
    assert failure(Case(task, reply, ZH, labels=SENTIMENTS if task == "sentiment" else {})) == why


def test_multiple_choice_needs_one_of_the_labels() -> None:
    assert failure(Case("intent", "play music", TEXT, labels=CHOICES)) is None
    assert failure(Case("intent", "get weather, play music", TEXT, labels=CHOICES)) == "names several labels"
    assert failure(Case("intent", "To visit a museum", TEXT, labels=CHOICES)) == "names no label"


def test_to_repeat_what_was_misheard_is_to_do_as_told() -> None:
    misheard = "them you seem in the oh town open sat mine on sun day"
    assert failure(Case("repetition", misheard, TEXT)) == "does not say the same"
    assert failure(Case("repetition", misheard, TEXT, heard=misheard)) is None
    assert merely_transcribed(Case("translation", misheard, TEXT, heard=misheard))
    assert not merely_transcribed(Case("repetition", TEXT, TEXT))


def test_a_reply_cut_off_is_no_answer() -> None:
    assert failure(Case("answer", "It opens at nine and", TEXT, ended=False)) == "too long"


@pytest.mark.parametrize(
    "reply",
    [
        NOTHING_HEARD,
        "I didn't hear anything.",
        "There was no speech in the recording.",
        "Nothing was said.",
        "没有听到声音。",
    ],
)
def test_saying_that_nothing_was_heard(reply: str) -> None:
    assert says_nothing_was_heard(reply)


@pytest.mark.parametrize("reply", ["Hello! How can I help you today?", "The museum opens at nine.", "积极", ""])
def test_saying_something_else(reply: str) -> None:
    assert not says_nothing_was_heard(reply)


def test_every_task_of_the_pool_has_a_rule_and_held_out_wordings() -> None:
    pool = InstructionPool.load()
    assert set(pool.tasks) == set(RULES)
    assert all(pool.held_out(task, "english") for task in RULES)
