"""A lane's column: what it heard, set against what the other lane heard, how sure it was, and its reply."""

import statistics
from collections.abc import Sequence
from html import escape

from assistant.lanes.names import LANES
from ui.rounds import Answer, Round
from ui.texts import Texts
from ui.word_difference import word_difference

UNSURE = 0.5  # probability below which a word is shown as doubtful


def card(name: str, texts: Texts, answer: Answer | None = None, other: Answer | None = None, live: bool = False) -> str:
    """One lane's column: what it heard, set against what the `other` heard when both are done, and its reply."""
    return (
        f'<article class="lane{" live" if live else ""}" aria-label="{escape(texts.lanes[name])}">'
        f'<h2>{escape(texts.lanes[name])}</h2><p class="note">{escape(texts.lane_how[name])}</p>'
        f"<h3>{escape(texts.heard)}</h3>{_heard(answer, other, texts)}"
        f'<h3>{escape(texts.reply)}</h3><p class="reply" aria-live="polite">{escape(answer.text) if answer else ""}</p>'
        "</article>"
    )


def cards(newest: Round | None, texts: Texts) -> dict[str, str]:
    """Both columns of a round that is over."""
    if newest is None:
        return {name: card(name, texts) for name in LANES}
    one, other = LANES
    pairs = {one: other, other: one}
    return {name: card(name, texts, newest.answers.get(name), newest.answers.get(pairs[name])) for name in LANES}


def _heard(answer: Answer | None, other: Answer | None, texts: Texts) -> str:
    """The words and a line about them, which is there from the start so that nothing moves when it fills."""
    if answer is None or answer.heard is None:
        absent = f'<span class="absent">{escape(texts.no_reading)}</span>' if answer else ""
        return f'<p class="heard">{absent}</p><p class="note heard-note"></p>'
    pieces, others = word_difference(answer.heard, other.heard if other and other.heard else answer.heard)
    words = [piece for piece in pieces if piece.word]
    sure = _spread(answer.confidence or [], answer.heard.split(), [piece.text for piece in words])
    values = iter(sure)
    shown = "".join(
        _word(piece.text, piece.differs, next(values, None), texts) if piece.word else escape(piece.text)
        for piece in pieces
    )
    notes = []
    if other is not None and other.heard:
        count, missed = (sum(piece.differs for piece in side) for side in (pieces, others))
        note = texts.words_differ if count else texts.words_missed if missed else texts.same_words
        notes.append(note.format(count=count or missed, total=len(words)))
    if sure:
        notes.append(texts.confidence_mean.format(percent=round(100 * statistics.fmean(sure))))
    return f'<p class="heard">{shown}</p><p class="note heard-note">{escape(" ".join(notes))}</p>'


def _word(text: str, differs: bool, sure: float | None, texts: Texts) -> str:
    tip = "" if sure is None else f' title="{escape(texts.confidence.format(percent=round(100 * sure)))}"'
    doubtful = ' class="doubtful"' if sure is not None and sure < UNSURE else ""
    tag = "mark" if differs else "span"
    return f"<{tag}{doubtful}{tip}>{escape(text)}</{tag}>" if differs or tip else escape(text)


def _spread(values: Sequence[float], parts: Sequence[str], words: Sequence[str]) -> list[float]:
    """One value for each word, from one for each part between spaces, which may hold several words or none."""
    found: list[float] = []
    if len(values) != len(parts):
        return found
    for value, part in zip(values, parts, strict=True):
        rest = part
        while len(found) < len(words) and words[len(found)] in rest:
            rest = rest.split(words[len(found)], 1)[1]
            found.append(value)
    return found
