"""How a chat LLM wants to be talked to: its template, with or without a system turn, and what of a reply is for others.

Templates differ. Some know no system turn (Gemma), some begin every reply with thoughts (Qwen 3, DeepSeek R1); here
thoughts are off, and if an LLM thinks all the same, nobody sees or hears it.
"""

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

MARK = "\x1a"  # stands for speech while a chat template is filled in; no template or speaker contains it
THINKS, THOUGHT = "<think>", "</think>"

Chat = list[dict[str, str]]  # role and content of each turn


def fill(tokenizer: PreTrainedTokenizerBase, chat: Chat, reply: bool = True) -> str:
    """The template filled in; `reply` opens the assistant's turn.

    A system turn that the template does not know becomes the beginning of the first user's.
    """
    try:
        text = _filled(tokenizer, chat, reply)
        known = chat[0]["role"] != "system" or chat[0]["content"].strip() in text
    except TemplateError:
        if chat[0]["role"] != "system":
            raise
        known = False
    if not known:
        system, first, *rest = chat
        both = {"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}
        text = _filled(tokenizer, [both, *rest], reply)
    if reply and text.rstrip().endswith(THINKS):  # a template that cannot be told otherwise
        text = f"{text.rstrip()}\n\n{THOUGHT}\n\n"
    return text


def _filled(tokenizer: PreTrainedTokenizerBase, chat: Chat, reply: bool) -> str:
    # Templates that do not know `enable_thinking` pass it over.
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=reply, enable_thinking=False))


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token with which the template ends the assistant's turn; None where it uses none.

    Not every model's files name it among the tokens that end a reply: a converted Gemma names `<eos>` alone.
    """
    try:
        text = _filled(tokenizer, [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}], False)
    except TemplateError:
        return None
    after = text.rpartition(MARK)[2].lstrip()
    ends = {
        token.content: number for number, token in tokenizer.added_tokens_decoder.items() if after[:1] and token.special
    }
    return next((ends[name] for name in sorted(ends, key=len, reverse=True) if after.startswith(name)), None)


class Spoken:
    """Of a reply that comes in pieces what is said: all but a block of thoughts at its beginning."""

    def __init__(self) -> None:
        self._held = ""
        self._thought = False  # whether there was such a block
        self._begun = False

    def of(self, piece: str) -> str:
        """What can be shown after this piece; empty while nothing can."""
        if self._begun:
            return piece
        self._held += piece
        text = self._held.lstrip()
        if not self._thought:
            if THINKS.startswith(text):  # it may become one
                return ""
            if text.startswith(THINKS):
                if THOUGHT not in text:
                    return ""
                self._thought, text = True, text.partition(THOUGHT)[2].lstrip()
            else:
                text = self._held
        self._begun, self._held = bool(text), ""
        return text

    def rest(self) -> str:
        """At the reply's end: what was held back and turned out to be no thought."""
        held, self._held = self._held, ""
        return "" if held.lstrip().startswith(THINKS) else held


def spoken(reply: str) -> str:
    """The same of a whole reply."""
    voice = Spoken()
    return voice.of(reply) + voice.rest()
