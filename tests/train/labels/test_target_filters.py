"""Which targets are kept: one example for each reason, and good targets of every task."""

import pytest

from assistant.model.completion import Completion
from train.labels.instructions import InstructionPool
from train.labels.target_filters import language_of, rejection

TASKS = InstructionPool.load().tasks
SAID = "I really enjoyed the concert last night"


def judge(task: str, target: str, text: str = SAID, instruction: str = "", ended: bool = True) -> str | None:
    return rejection(TASKS[task], instruction, text, language_of(text), Completion(target, 9, ended))


@pytest.mark.parametrize(
    ("task", "target", "text"),
    [
        ("repetition", "I really enjoyed the concert last night.", SAID),
        ("repetition", "Sure! Here it is: I really enjoyed the concert last night.", SAID),
        ("intent", "The speaker wants to say that they enjoyed the concert.", SAID),
        ("sentiment", "Positive", SAID),
        ("keywords", "enjoyed, concert, last night", SAID),
        ("translation", "我真的很喜欢昨晚的音乐会。", SAID),
        ("translation", "我昨天去了 New York City 看音乐会。", SAID),
        ("translation", "I really like tea.", "我很喜欢喝茶。"),
        ("continuation", "The band played all my favourite songs!", SAID),
        ("answer", "That sounds wonderful. Who was playing?", SAID),
        ("answer", "北京。", "中国的首都是哪里？"),
        ("repetition", "I'm sorry, but I can't help you.", "I'm sorry, but I can't help you"),
    ],
)
def test_good_targets_are_kept(task: str, target: str, text: str) -> None:
    assert judge(task, target, text) is None


@pytest.mark.parametrize(
    ("reason", "task", "target"),
    [
        ("empty", "intent", "  "),
        ("empty", "keywords", "..."),
        ("truncated", "continuation", "The band played all my"),
        ("refusal", "answer", "As an AI language model, I have no feelings."),
        ("refusal", "answer", "I'm sorry, but I can't assist with that."),
        ("refusal", "translation", "对不起，我无法翻译。"),
        ("code", "intent", "```python\nprint('enjoy')\n```"),
        ("echo", "keywords", "I, really, enjoyed, the, concert, last, night"),
        ("echo", "translation", "I really enjoyed the concert last night."),
        ("echo", "continuation", "I really enjoyed the concert last night!"),
        ("wrong language", "translation", "This means that someone liked music."),
        ("wrong language", "sentiment", "积极"),
        ("not repeated", "repetition", "That is great to hear!"),
    ],
)
def test_bad_targets_are_named(reason: str, task: str, target: str) -> None:
    assert judge(task, target) == reason


def test_the_token_limit_and_leaked_instructions() -> None:
    assert judge("sentiment", "Positive", ended=False) == "truncated"
    assert judge("translation", "Into Chinese, please: 我喜欢。", instruction="Into Chinese, please") == (
        "instruction leaked"
    )
    assert judge("repetition", "answer this", "Answer this", "Repeat this") is None


@pytest.mark.parametrize(
    ("text", "language"),
    [("hello", "english"), ("你好", "chinese"), ("我在 Google 工作", "chinese"), ("Say 你好 to my friend", "english")],
)
def test_the_language_is_that_of_most_words(text: str, language: str) -> None:
    assert language_of(text) == language
