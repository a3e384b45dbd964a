"""A connector that begins as Whisper's decoder, so that it needs little speech to learn from.

Whisper's decoder knows which words are in the encoder's frames; a random connector would have to find that out again.
So the Q-Former's layers begin as the decoder's last blocks. And the rows of the vocabulary head are Whisper's token
embeddings; of a word that Whisper writes with several tokens, their sum. These rows stay as they are: what training
hardly ever says is then read all the same, as its row is where Whisper would look for it.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from whisper.model import Whisper
from whisper.tokenizer import get_tokenizer

from assistant.model.connector import Connector, QFormerConnector
from train.labels.labeller import Labeller


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
    if head := connector.vocabulary:
        head.matrix.weight.copy_(head_rows(whisper, Labeller(tokenizer, head.spellings).names))
        head.matrix.bias.zero_()
        torch.nn.init.zeros_(head.blank.weight)
        torch.nn.init.zeros_(head.blank.bias)


def head_rows(whisper: Whisper, texts: Iterable[str]) -> Tensor:
    """Whisper's embedding of each text [n, width]: its token's, as it is or as a name; else those of its tokens.

    Those are added up and brought to the size of one (they are close to orthogonal): with the mean, a state in the very
    direction of a word would be as near to each of the word's pieces.
    """
    encoding = get_tokenizer(whisper.is_multilingual, num_languages=whisper.num_languages).encoding
    embeddings = whisper.decoder.token_embedding.weight
    rows = []
    for text in texts:
        space = " " * text.startswith(" ")
        ways = [encoding.encode(text), encoding.encode(space + text.strip().capitalize())]
        pieces = min(ways, key=len)
        rows.append(embeddings[pieces].sum(0) / len(pieces) ** 0.5)
    return torch.stack(rows)


def learn(connector: Connector) -> None:
    """Set all that learns to learn: everything but the rows of a vocabulary head."""
    connector.train().requires_grad_(True)
    if connector.vocabulary:
        connector.vocabulary.matrix.requires_grad_(False)
