"""A connector that begins as Whisper's decoder, so that it needs little speech to learn from.

Whisper's decoder knows which words are in the encoder's frames; a random connector would have to find that out again.
So the Q-Former's layers begin as the decoder's last blocks. And the rows of the vocabulary head are Whisper's token
embeddings; of a word that Whisper writes with several tokens, their sum. These rows stay as they are: what training
hardly ever says is then read all the same, as its row is where Whisper would look for it.
"""

import torch
from whisper.model import Whisper
from whisper.tokenizer import get_tokenizer

from assistant.model.connector import Connector, QFormerConnector
from assistant.model.spelling import word_rows


@torch.no_grad()
def start_from_whisper(connector: Connector, whisper: Whisper) -> None:
    """Overwrite a random Q-Former's layers and vocabulary head. Other kinds stay random.

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
        head.matrix.weight.copy_(word_rows(decoder.token_embedding.weight, head.words))
        torch.nn.init.zeros_(head.blank.weight)
        torch.nn.init.zeros_(head.blank.bias)


def learn(connector: Connector) -> None:
    """Set all that learns to learn: everything but the rows of a vocabulary head."""
    connector.train().requires_grad_(True)
    if connector.vocabulary:
        connector.vocabulary.matrix.requires_grad_(False)
