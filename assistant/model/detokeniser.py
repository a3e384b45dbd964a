"""The text of a reply, piece by piece, while its tokens come."""

from transformers import PreTrainedTokenizerBase

HALF = "\ufffd"  # what a tokenizer writes for bytes that are no character yet


class Detokeniser:
    """Gives every token's text once, without decoding what was shown before.

    Only the tokens since the piece before the last are decoded: a token's text depends on whether another stands before
    it (SentencePiece drops the space with which a text begins), and a character may be spread over several. Joined,
    the pieces are what the tokenizer makes of the whole reply, half a character at its end left out.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []  # those of the last piece, then those that gave no text yet
        self._shown = 0  # of these, how many gave the last piece

    def add(self, token: int) -> str:
        """The text that this token brings; empty while it ends in half a character."""
        self._tokens.append(token)
        before = self._text(self._tokens[: self._shown])
        text = self._text(self._tokens)
        if text.endswith(HALF) or len(text) <= len(before):
            return ""
        self._tokens = self._tokens[self._shown :]
        self._shown = len(self._tokens)
        return text[len(before) :]

    def _text(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)) if tokens else ""
