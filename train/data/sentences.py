"""Text sets: the sentences that are spoken, in JSON-lines files of any origin."""

import re
from collections.abc import Iterable
from pathlib import Path

from assistant.files import read_json_lines, write_json_lines
from train.data.manifest import HELD_OUT

SENTENCES = {  # by language: where they stand in a line of a text set, what they are made of, what a word is
    "english": (("text", "question", "en"), r"[\x20-\x7e]+", r"\S+"),
    "chinese": (("text", "zh"), r"[\u3400-\u9fff0-9 ，。？！、；：,.?!;:]+", r"[\u3400-\u9fff]|[0-9]+"),
}


def read_sentences(paths: list[Path], shortest: int = 3, longest: int = 24, language: str = "english") -> list[str]:
    """Distinct sentences of `shortest` to `longest` words in JSON-lines files (gzipped or not) or folders.

    A Chinese character is a word.
    """
    keys, letters, word = SENTENCES[language]
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    sentences: dict[str, str] = {}
    for file in files:
        if not re.search(r"\.jsonl(\.gz)?$", file.name) or HELD_OUT.search(file.name):
            continue
        for row in read_json_lines(file, dict.fromkeys(keys, str | None)):
            text = next((row[key] for key in keys if row.get(key)), "")
            if re.fullmatch(letters, text) and shortest <= len(re.findall(word, text)) <= longest:
                sentences.setdefault(re.sub(r"\W", "", text.lower()), text)
    return list(sentences.values())


def write_sentences(path: Path, sentences: Iterable[str]) -> None:
    """Write a text set that `read_sentences` reads."""
    write_json_lines(path, ({"text": sentence} for sentence in sentences))
