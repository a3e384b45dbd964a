"""Sentences without sense that say the words which a collection of sentences says too rarely, or never.

    python -m train.data.vocabulary runs/synthetic/manifest.jsonl --out runs/vocabulary.jsonl
    python -m train.synthesis.synthesize runs/vocabulary.jsonl --out runs/vocabulary --count 100000

English is not spelt as it sounds: a connector that has not heard a word writes what it hears (`jectpept` for Egypt).
Which words people use comes from `wordfreq`, most frequent first.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from wordfreq import top_n_list

from train.command_line import Files, command_line, told
from train.data.manifest import refuse_held_out
from train.data.sentences import read_sentences, write_sentences
from train.data.spoken_form import spoken_form

LENGTH = 7  # words said in one breath


def frequent_words(count: int = 40_000) -> list[str]:
    """The `count` most frequent English words of letters; of single letters only the words `a` and `i`."""
    words = (word for word in top_n_list("en", 2 * count) if re.fullmatch(r"[a-z]+('[a-z]+)?", word))
    return [word for word in words if len(word) > 1 or word in "ai"][:count]


def missing_sentences(sentences: Sequence[str], words: Sequence[str], least: int, seed: int) -> list[str]:
    """Random sentences after which, together with `sentences`, each of `words` was said `least` times."""
    said = Counter(word for sentence in sentences for word in spoken_form(sentence).split())
    wanted = [word for word in words for _ in range(least - said[word])]
    random.Random(seed).shuffle(wanted)
    count = max(1, len(wanted) // LENGTH)
    return [" ".join(wanted[number::count]) for number in range(count) if wanted]


@told()
def main() -> None:
    """Command line; see the top of the file."""
    parser = command_line(__doc__, "JSON lines that train.synthesis.synthesize reads")
    parser.add_argument(
        "text", type=Path, nargs="+", action=Files, help="what is spoken already: manifests, or text sets"
    )
    parser.add_argument("--words", type=int, default=40_000, help="how many of the most frequent words count")
    parser.add_argument("--least", type=int, default=10, help="times each is to be said")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    refuse_held_out(arguments.text)
    words = frequent_words(arguments.words)
    sentences = missing_sentences(read_sentences(arguments.text), words, arguments.least, arguments.seed)
    write_sentences(arguments.out, sentences)
    print(f"{len(sentences):,} sentences, after which {len(words):,} words were said {arguments.least} times each.")


if __name__ == "__main__":
    main()
