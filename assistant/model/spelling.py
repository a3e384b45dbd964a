"""Words spelt the way the LLM spells them.

The connector reads rare words in pieces that it has often heard (`Ġneighb` `our` `hood`). The LLM was raised on its
tokenizer's own spelling, and understands that one best.
"""

import torch

from assistant.model.heads import Speech
from assistant.model.llm import LLM


def respelt(speech: Speech, llm: LLM) -> Speech:
    """Speech as read -> the same text in the tokens of the LLM's own spelling.

    A token that was read as such keeps its vector, a mixture of what it may have been. One that was put together from
    pieces is the LLM's embedding of it, as sure as the least sure piece. Speech that holds no tokens stays as it is,
    and so does what is no text (bytes of an unfinished character).
    """
    if speech.vectors is None or speech.tokens is None or speech.confidence is None:
        return speech
    read = speech.tokens.tolist()
    spelt = llm.tokenizer(llm.tokenizer.decode(read), add_special_tokens=False).input_ids
    names, spelt_names = llm.tokenizer.convert_ids_to_tokens(read), llm.tokenizer.convert_ids_to_tokens(spelt)
    if read == spelt or "".join(names) != "".join(spelt_names):
        return speech
    letters = [piece for piece, name in enumerate(names) for _ in name]  # the piece that each letter was read in
    vectors, confidence, end = [], [], 0
    for token, name in zip(spelt, spelt_names, strict=True):
        start, end = end, end + len(name)
        first, last = letters[start], letters[end - 1]
        same = first == last and read[first] == token
        vectors.append(speech.vectors[first] if same else llm.embeddings[token].to(speech.vectors.dtype))
        confidence.append(speech.confidence[first : last + 1].min())
    return Speech(torch.stack(vectors), speech.tokens.new_tensor(spelt), torch.stack(confidence), speech.logits)
