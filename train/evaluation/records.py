"""One record for each question: what every system heard and replied, why that fails, what it adds to each measure."""

from collections.abc import Sequence
from typing import Any

from assistant.model.completion import Completion
from train.evaluation.systems import UPPER_BOUND
from train.questions import measures
from train.questions.clips import Clip
from train.questions.rules import SAYS_AGAIN, Case, failure, merely_transcribed, says_nothing_was_heard
from train.questions.suites import RETENTION, Question

Record = dict[str, Any]


def reading_record(suite: str, clip: Clip, heard: dict[str, str | None]) -> Record:
    """How well each system that hears read a clip; one that reads no words has no score."""
    systems = {
        name: {
            "heard": text,
            "scores": {
                "wer": measures.word_errors(clip.text, text),
                "cer": measures.character_errors(clip.text, text),
            },
        }
        for name, text in heard.items()
        if text is not None and name != UPPER_BOUND
    }
    return {**_about(suite, "reading", clip), "systems": systems}


def reply_record(question: Question, heard: dict[str, str | None], answers: dict[str, Completion]) -> Record:
    """How well each system replied."""
    upper_bound = answers[UPPER_BOUND].text.strip()
    systems = {}
    for name, answer in answers.items():
        reply = answer.text.strip()
        case = Case(question.task, reply, question.clip.text, heard[name], answer.ended, question.labels)
        if question.suite == "no speech":
            if name == UPPER_BOUND:
                continue  # it is told that nothing was said
            scores: dict[str, Sequence[float]] = {"says_nothing_was_heard": [float(says_nothing_was_heard(reply)), 1]}
            failed = None
        else:
            failed = failure(case)
            scores = _scores(question, case, None if name == UPPER_BOUND else upper_bound)
            scores["follows"] = [float(failed is None), 1]
            if question.task not in SAYS_AGAIN:
                scores["merely_transcribed"] = [float(merely_transcribed(case)), 1]
        systems[name] = {
            "heard": heard[name],
            "reply": reply,
            "tokens": answer.tokens,
            "ended": answer.ended,
            "failure": failed,
            "scores": scores,
        }
    return {
        **_about(question.suite, question.task, question.clip),
        "instruction": question.instruction,
        "systems": systems,
    }


def _scores(question: Question, case: Case, keywords: str | None) -> dict[str, Sequence[float]]:
    """What can be measured of a reply, beyond whether it does as told; `keywords` are the upper bound's."""
    facts = question.clip.facts
    scores: dict[str, Sequence[float]] = {}
    if question.task in SAYS_AGAIN:
        scores["wer"] = measures.word_errors(case.text, case.reply)
    if question.task == "keywords" and keywords is not None:
        scores["keyword_f1"] = measures.keyword_f1(case.reply, keywords)
    if question.label is not None:
        scores["accuracy"] = [float(measures.named(case.reply, case.labels) == [question.label]), 1]
    if question.task == "translation" and "references" in facts:
        scores["bleu"] = measures.bleu_statistics(case.reply, facts["references"])
        scores["chrf"] = measures.chrf_statistics(case.reply, facts["references"])
    if "answers" in facts and question.suite == "questions":
        scores["match"] = measures.answers(case.reply, facts["answers"])
    return scores


def choice_record(asked: dict[str, Any], chosen: dict[str, str]) -> Record:
    """A multiple-choice question in text."""
    about = {"suite": RETENTION, "task": "multiple choice", "set": "mmlu_subset", "voice": "text"}
    systems = {
        name: {"reply": letter, "scores": {"accuracy": [float(letter == asked["answer"]), 1]}}
        for name, letter in chosen.items()
    }
    return {**about, "text": asked["question"], "facts": asked, "systems": systems}


def _about(suite: str, task: str, clip: Clip) -> Record:
    return {
        "suite": suite,
        "task": task,
        "set": clip.facts.get("sound", clip.set),
        "voice": clip.voice,
        "audio": str(clip.audio),
        "text": clip.text,
        "facts": clip.facts,
    }
