"""What is asked about which clips: a suite is a set of questions that belong together in the report."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from train.labels.instructions import InstructionPool
from train.questions.clips import CONDITIONS, REAL, SPOKEN, Clip
from train.questions.measures import words
from train.questions.rules import RULES, SENTIMENTS

ENGLISH_SPEECH = tuple(name for name in REAL if name != "audio_cmn_words")


@dataclass(frozen=True)
class Suite:
    """`tasks` are asked about at most `each` clips of every set; `reads`: what was heard is measured on all of them."""

    title: str
    sets: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    each: int | None = None
    reads: bool = False


SUITES: dict[str, Suite] = {
    "reading": Suite("Reading: what each system heard", (*REAL, "samples", *SPOKEN), reads=True),
    "following": Suite("Following instructions", (*ENGLISH_SPEECH, "samples", "tatoeba"), tuple(RULES), each=25),
    "intent": Suite("Intent, one of five", ("snips", "clinc150"), ("intent",)),
    "sentiment": Suite("Sentiment", ("sentiment",), ("sentiment",)),
    "translation": Suite("Translation into Chinese", ("tatoeba",), ("translation",)),
    "questions": Suite("Spoken questions", ("natural questions", "boolq"), ("answer",)),
    "no speech": Suite("No speech", ("no speech",), tuple(RULES)),
    "conditions": Suite(
        "Noise and reverberation", ("clean", *CONDITIONS), ("repetition", "translation"), each=25, reads=True
    ),
    "code-switched": Suite("English and Chinese in one sentence", ("code-switched",), ("repetition",), reads=True),
}
RETENTION = "retention"  # asks in text; see retention.py
FEWEST_WORDS = 5  # in a clip that all tasks are asked about: of two words, the keywords are the transcript


@dataclass(frozen=True)
class Question:
    """One instruction about one clip; `labels` are those that it offers, with the forms that name them."""

    suite: str
    task: str
    clip: Clip
    instruction: str | None
    labels: dict[str, Sequence[str]] = field(default_factory=dict)
    label: str | None = None  # the right one, where it is known


def questions(name: str, clips: dict[str, list[Clip]], pool: InstructionPool) -> list[Question]:
    """The questions of a suite, with wordings that training never sees; decided by the clips alone."""
    suite, asked = SUITES[name], []
    for group in suite.sets:
        chosen = [clip for clip in clips.get(group, []) if name != "following" or len(words(clip.text)) >= FEWEST_WORDS]
        for number, clip in enumerate(chosen[: suite.each]):
            # Silence is asked about once, with one task after the other; speech with every task of the suite.
            tasks = (suite.tasks[number % len(suite.tasks)],) if name == "no speech" and suite.tasks else suite.tasks
            asked += [_question(name, task, clip, pool) for task in tasks]
    return asked


def _question(suite: str, task: str, clip: Clip, pool: InstructionPool) -> Question:
    rng = random.Random(f"{suite}\n{task}\n{clip.facts.get('of', clip.name)}")
    wording = rng.choice(pool.held_out(task, "english"))
    if clip.set == "boolq":
        return Question(
            suite, task, clip, "Answer with yes or no", {"yes": ("yes",), "no": ("no",)}, clip.facts["answer"]
        )
    if suite == "questions":  # the speech is the instruction
        return Question(suite, task, clip, None)
    if choices := clip.facts.get("choices"):
        offered = f"{wording.rstrip('.?!')}. Answer with one of these: {', '.join(choices)}"
        return Question(suite, task, clip, offered, {choice: (choice,) for choice in choices}, clip.facts["intent"])
    return Question(suite, task, clip, wording, SENTIMENTS if task == "sentiment" else {}, clip.facts.get("sentiment"))
