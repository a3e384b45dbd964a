"""The words of the page in each language, from `assets/texts.toml`."""

import re
import tomllib
from typing import Any

from assistant.files import ASSETS
from assistant.latency import TERMS

FILE = ASSETS / "texts.toml"


class Texts:
    """One language: each key of its table is an attribute, a text or a table of texts. `code` is as browsers say it."""

    def __init__(self, code: str, words: dict[str, Any]) -> None:
        self.code = code
        named = {term: term.replace("_", " ") for term in (*TERMS, "decode")}
        self.words: dict[str, Any] = {"names": {}, "errors": [], "term_names": named, **words}
        self.words["terms"] = TERMS | words["terms"]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["words"][name]
        except KeyError:
            raise AttributeError(f"assets/texts.toml has no text {name!r}") from None

    def name(self, title: str) -> str:
        """The title of a preset or clip in this language."""
        return str(self.names.get(title, title))

    def error(self, message: str) -> str:
        """What `assistant` says about a recording, in this language; as it is where nobody has translated it."""
        for pattern, translation in self.errors:
            if found := re.fullmatch(pattern, message, re.DOTALL):
                return found.expand(translation)
        return message


TEXTS = {code: Texts(code, words) for code, words in tomllib.loads(FILE.read_text("utf-8")).items()}
ENGLISH, CHINESE = TEXTS["en"], TEXTS["zh"]
