"""Which words two transcripts do not share, once case and punctuation are set aside."""

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

# Chinese and Japanese have no spaces: each of their characters is a word. Other words may hold
# apostrophes and hyphens, and numbers their points.
_SPACELESS = r"\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_SPACELESS}]|\d+(?:[.,:]\d+)+|[^\W_{_SPACELESS}]+(?:['’-][^\W_{_SPACELESS}]+)*")


@dataclass(frozen=True)
class Piece:
    """A stretch of a transcript as it was written: a word, or what stands between words (`word` is false)."""

    text: str
    word: bool
    differs: bool = False


def word_difference(one: str, other: str) -> tuple[list[Piece], list[Piece]]:
    """Both transcripts in pieces; joined, they are the transcripts again. Words that the other lacks are marked."""
    sides = [_words(one), _words(other)]
    first, second = ([_normal(match.group()) for match in side] for side in sides)
    differing: tuple[set[int], set[int]] = (set(), set())
    for kind, start, end, other_start, other_end in SequenceMatcher(a=first, b=second, autojunk=False).get_opcodes():
        if kind != "equal":
            differing[0].update(range(start, end))
            differing[1].update(range(other_start, other_end))
    return _pieces(one, sides[0], differing[0]), _pieces(other, sides[1], differing[1])


def _words(text: str) -> list[re.Match[str]]:
    return list(_WORD.finditer(text))


def _normal(word: str) -> str:
    return re.sub("['’-]", "", word).casefold()


def _pieces(text: str, words: list[re.Match[str]], differing: set[int]) -> list[Piece]:
    pieces, position = [], 0
    for index, match in enumerate(words):
        if between := text[position : match.start()]:
            pieces.append(Piece(between, word=False))
        pieces.append(Piece(match.group(), word=True, differs=index in differing))
        position = match.end()
    if rest := text[position:]:
        pieces.append(Piece(rest, word=False))
    return pieces
