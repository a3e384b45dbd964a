"""A connector that begins as Whisper's decoder, so that it needs little speech to learn from.

Whisper's decoder knows which words are in the encoder's frames; a random connector would have to find that out again.
So the Q-Former's layers begin as the decoder's last blocks. And the rows of the vocabulary head are Whisper's token
embeddings: four of five words that the LLM writes as one token, Whisper writes as one, too. These rows stay as they
are: what training hardly ever says is then read all the same, as its row is where Whisper would look for it.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from whisper.model import Whisper
from whisper.tokenizer import get_tokenizer

from assistant.connector import Connector, QFormerConnector


@torch.no_grad()
def start_from_whisper(connector: Connector, whisper: Whisper, tokenizer: PreTrainedTokenizerBase) -> None:
    """Overwrite a random Q-Former's layers and vocabulary head; `tokenizer` is the LLM's. Other kinds stay random.

    Raises
    ------
    ValueError
        The decoder has fewer blocks than the Q-Former layers, or another width.
    """
    if not isinstance(connector, QFormerConnector):
        return
    decoder, config = whisper.decoder, connector.config
    if config.layers > len(decoder.blocks):
        raise ValueError(f"{config.layers} layers cannot begin from a decoder of {len(decoder.blocks)} blocks.")
    width = decoder.token_embedding.weight.shape[1]
    if width != config.encoder_width:
        raise ValueError(f"Features of width {config.encoder_width} are not those of a Whisper of width {width}.")
    for layer, block in zip(connector.layers, decoder.blocks[len(decoder.blocks) - config.layers :], strict=True):
        layer.get_submodule("block").load_state_dict(block.state_dict())
    connector.norm.load_state_dict(decoder.ln.state_dict())
    # Each query begins as the decoder does before it writes a word.
    words = get_tokenizer(whisper.is_multilingual, num_languages=whisper.num_languages)
    before = decoder.token_embedding.weight[words.no_timestamps]
    connector.query.copy_(before + decoder.positional_embedding[3 : 3 + config.queries])
    if config.projection == "vocabulary":
        texts = (str(tokenizer.decode([token])) for token in connector.token_ids.tolist())
        connector.head.weight.copy_(head_rows(whisper, texts))
        connector.head.bias.zero_()
        torch.nn.init.zeros_(connector.blank.weight)
        torch.nn.init.zeros_(connector.blank.bias)


def head_rows(whisper: Whisper, texts: Iterable[str]) -> Tensor:
    """Whisper's embedding of each text [n, width]: its token's, as it is or as a name; else the mean."""
    encoding = get_tokenizer(whisper.is_multilingual, num_languages=whisper.num_languages).encoding
    embeddings = whisper.decoder.token_embedding.weight
    rows = []
    for text in texts:
        space = " " * text.startswith(" ")
        ways = [encoding.encode(text), encoding.encode(space + text.strip().capitalize())]
        rows.append(embeddings[min(ways, key=len)].mean(0))
    return torch.stack(rows)


def learn(connector: Connector) -> None:
    """Set all that learns to learn: everything but the rows of a vocabulary head."""
    connector.train().requires_grad_(True)
    if isinstance(connector, QFormerConnector) and connector.config.projection == "vocabulary":
        connector.head.requires_grad_(False)
