"""The connector between the speech encoder and the LLM: frames of speech in, vectors of the LLM's embedding space out.

Two kinds: the windowed Q-Former of Self-Powered LSM (arXiv 2410.03798; windows as in SALMONN, arXiv 2310.13289) and
LLaSM's linear adaptor (arXiv 2308.15930). The Q-Former ends in one of two heads (`heads.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from assistant.model.heads import LinearHead, Speech, VocabularyHead
from assistant.model.q_former import QFormerLayer, spans
from assistant.model.spelling import Writer


@dataclass(frozen=True)
class ConnectorConfig:
    """Shape of a connector; `window` and `queries` set the rate: 3 queries for 16 frames of 20 ms are 9.4 a second."""

    encoder_width: int
    llm_width: int | None = None  # of the one LLM that a linear path leads to; words go to any
    kind: Literal["q_former", "linear_adaptor"] = "q_former"
    projection: Literal["vocabulary", "linear"] = "vocabulary"
    window: int = 16  # encoder frames
    margin: int = 8  # frames that a window's queries see on either side of it, at most `window`; 0 in the papers
    queries: int = 3  # learnt queries for each window
    layers: int = 4  # of the Q-Former
    residual: bool = False  # beside the vocabulary projection, a linear path for what words do not carry

    @property
    def reads(self) -> bool:
        """Whether it reads words."""
        return self.kind == "q_former" and self.projection == "vocabulary"

    @property
    def linear(self) -> bool:
        """Whether anything in it leads to the vectors of one LLM, and so to that LLM alone."""
        return not self.reads or self.residual


def build_connector(config: ConnectorConfig, words: Sequence[str] = (), writer: Writer | None = None) -> "Connector":
    """A randomly initialised connector.

    Parameters
    ----------
    words: what a vocabulary head can read, pieces of words included; a space in front is where a written word begins.
    writer: the LLM's. Without it a connector that reads words can be trained by CTC and read, not speak to an LLM.

    Raises
    ------
    ValueError
        The configuration lacks the words, or the width of the LLM that it leads to.
    """
    width, llm_width = config.encoder_width, config.llm_width
    if config.linear and llm_width is None:
        raise ValueError("A linear path to an LLM needs llm_width, the width of that LLM.")
    if config.kind == "linear_adaptor":
        return LinearAdaptor(config)
    if not config.reads:
        assert llm_width is not None
        return QFormerConnector(config, LinearHead(width, llm_width))
    if not words:
        raise ValueError("A vocabulary projection needs words to read.")
    return QFormerConnector(config, VocabularyHead(width, words, writer, llm_width if config.residual else None))


class Connector(nn.Module):
    """Interface: `forward` for one or more padded clips, the same result for a clip alone and in any batch."""

    config: ConnectorConfig

    @property
    def vocabulary(self) -> VocabularyHead | None:
        """The head of a connector that reads words, which CTC can train; None of one that does not."""
        return None

    @property
    def words(self) -> tuple[str, ...]:
        """What a connector that reads can read."""
        return self.vocabulary.words if self.vocabulary else ()

    def learnt(self) -> dict[str, Tensor]:
        """Of the state what training changes: all but the rows of words, which are Whisper's."""
        fixed = ("head.matrix.weight", "head.words_digest") if self.vocabulary else ()
        return {name: value for name, value in self.state_dict().items() if name not in fixed}

    def forward(self, features: Tensor, lengths: Tensor) -> list[Speech]:
        """Encoder output [B, T, encoder_width] with `lengths` [B] real frames -> one `Speech` for each clip."""
        raise NotImplementedError


class LinearAdaptor(Connector):
    """LLaSM, section 3: one matrix from the encoder's space to the LLM's.

    LLaSM's released code feeds it 64 decoder states whatever the duration; here it gets encoder frames averaged to the
    same rate as the Q-Former's queries, so that both kinds cost the LLM the same.
    """

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__()
        assert config.llm_width is not None, "a matrix leads to vectors of one width"
        self.config = config
        self.projection = nn.Linear(config.encoder_width, config.llm_width)

    def forward(self, features: Tensor, lengths: Tensor) -> list[Speech]:
        """See `Connector.forward`."""
        step = max(1, self.config.window // self.config.queries)
        clips = [clip[:length].split(step) for clip, length in zip(features, lengths.tolist(), strict=True)]
        return [Speech(self.projection(torch.stack([part.mean(0) for part in parts]))) for parts in clips]


class QFormerConnector(Connector):
    """Q-Former, then a head: a clip's queries see each other, and each the frames around its window."""

    def __init__(self, config: ConnectorConfig, head: VocabularyHead | LinearHead) -> None:
        super().__init__()
        if not 0 <= config.margin <= config.window:
            raise ValueError(f"A margin of {config.margin} frames does not fit beside windows of {config.window}.")
        self.config = config
        width = config.encoder_width
        self.query = nn.Parameter(torch.randn(config.queries, width) * 0.02)
        self.layers = nn.ModuleList(QFormerLayer(width, config.window, config.margin) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.head = head

    @property
    def vocabulary(self) -> VocabularyHead | None:
        """See `Connector.vocabulary`."""
        return self.head if isinstance(self.head, VocabularyHead) else None

    def hidden(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """States before the head [B, S, width] and how many of them are real [B], a multiple of `queries`.

        A window counts when it holds at least one real frame, and padding is masked: batch mates change nothing.
        """
        config, (batch, frames, _) = self.config, features.shape
        count = -(-frames // config.window)
        features = functional.pad(features, (0, 0, 0, count * config.window - frames))
        heard = torch.arange(count * config.window, device=features.device) < lengths[:, None]
        visible = spans(heard[..., None], config.window, config.margin)[..., 0]
        visible = visible | ~visible.any(-1, keepdim=True)  # a softmax over nothing is no number
        lengths = -(-lengths // config.window) * config.queries
        real = torch.arange(count * config.queries, device=features.device) < lengths[:, None]
        states = self.query.repeat(count, 1).expand(batch, -1, -1)
        for layer in self.layers:
            states = layer(states, real, features, visible)
        return self.norm(states), lengths

    def forward(self, features: Tensor, lengths: Tensor) -> list[Speech]:
        """See `Connector.forward`."""
        states, lengths = self.hidden(features, lengths)
        return self.head(states, lengths)


def pad_features(clips: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Clips [T_i, width] -> a padded batch [B, max T, width] and its lengths [B]."""
    lengths = torch.tensor([len(clip) for clip in clips], device=clips[0].device)
    return pad_sequence(clips, batch_first=True), lengths
