"""Text that a person wrote or said, as tokens: whatever stands in it, it never becomes a mark of the chat template."""

import re

from transformers import PreTrainedTokenizerBase

SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character, as in an argument that is not UTF-8


class PlainText:
    """The words of one tokenizer without its marks: added to its vocabulary, for a template alone."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        # Some tokenizers add runs of white space, too; these mean nothing else than what they are.
        added = {token for token, mark in tokenizer.added_tokens_decoder.items() if mark.content.strip()}
        self._marks = added | set(tokenizer.all_special_ids)

    def holds_mark(self, text: str) -> bool:
        """Whether the tokenizer would take a part of `text` for a mark."""
        return not self._marks.isdisjoint(self._ids(text))

    def tokens(self, text: str) -> list[int]:
        """Token ids of `text`, no mark among them.

        Every tokenizer takes the spelling of a mark for the mark, some after changing the text first. So it is asked:
        where a mark comes out, either half of the text is written by itself.
        """
        ids = self._ids(text)
        if self._marks.isdisjoint(ids):
            return ids
        if len(text) == 1:
            return [token for token in ids if token not in self._marks]
        middle = len(text) // 2
        return self.tokens(text[:middle]) + self.tokens(text[middle:])

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(readable(text), add_special_tokens=False).input_ids
        return ids


def readable(text: str) -> str:
    """The text with a replacement character for what is no character."""
    return SURROGATE.sub("\ufffd", text)
