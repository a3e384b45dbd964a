"""The connector between the speech encoder and the LLM: frames of speech in, vectors of the LLM's embedding space out.

Two kinds: the windowed Q-Former of Self-Powered LSM (arXiv 2410.03798; windows as in SALMONN, arXiv 2310.13289) and
LLaSM's linear adaptor (arXiv 2308.15930). The Q-Former ends in one of two projections: `vocabulary` reads words by CTC
and hands on the expected embeddings of the LLM tokens that write them, `linear` is the papers' single matrix.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from whisper.model import MultiHeadAttention, ResidualAttentionBlock

BLANK = 0  # index of the CTC blank in the vocabulary head; word i of the head is index i + 1
PADDING = -1  # after the last LLM token of a word that is written with fewer tokens than another


@dataclass(frozen=True)
class ConnectorConfig:
    """Shape of a connector; `window` and `queries` set the rate: 3 queries for 16 frames of 20 ms are 9.4 a second."""

    encoder_width: int
    llm_width: int
    kind: Literal["q_former", "linear_adaptor"] = "q_former"
    projection: Literal["vocabulary", "linear"] = "vocabulary"
    window: int = 16  # encoder frames
    margin: int = 8  # frames that a window's queries see on either side of it, at most `window`; 0 in the papers
    queries: int = 3  # learnt queries for each window
    layers: int = 4  # of the Q-Former
    residual: bool = False  # beside the vocabulary projection, a linear path for what words do not carry
    words: int = 0  # that the vocabulary head can read, pieces of words included


@dataclass(frozen=True)
class Speech:
    """One utterance as the LLM meets it: `vectors` [n, llm_width] and, with a vocabulary head, what was read.

    `tokens` are LLM token ids [n], `confidence` their probability [n]; both None with a linear projection.
    """

    vectors: Tensor
    tokens: Tensor | None = None
    confidence: Tensor | None = None


def build_connector(
    config: ConnectorConfig, embeddings: Tensor | None = None, spellings: Tensor | None = None
) -> "Connector":
    """A randomly initialised connector.

    Parameters
    ----------
    embeddings: the LLM's input embeddings [vocabulary, llm_width]; kept by reference, not saved. Without them the
        connector can be trained by CTC and read words, but not speak to an LLM.
    spellings: the LLM token ids of what the vocabulary head can read [config.words, longest], then `PADDING`.

    Raises
    ------
    ValueError
        The configuration does not fit the LLM or the words.
    """
    if embeddings is not None and embeddings.shape[1] != config.llm_width:
        raise ValueError(
            f"This connector was made for an LLM of width {config.llm_width}; the LLM loaded has width "
            f"{embeddings.shape[1]}. Load the LLM that its config.json names, or another checkpoint."
        )
    if config.kind == "linear_adaptor":
        return LinearAdaptor(config)
    return QFormerConnector(config, embeddings, spellings)


class Connector(nn.Module):
    """Interface: `forward` for one or more padded clips, the same result for a clip alone and in any batch."""

    config: ConnectorConfig

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
        self.config = config
        self.projection = nn.Linear(config.encoder_width, config.llm_width)

    def forward(self, features: Tensor, lengths: Tensor) -> list[Speech]:
        """See `Connector.forward`."""
        step = max(1, self.config.window // self.config.queries)
        clips = [clip[:length].split(step) for clip, length in zip(features, lengths.tolist(), strict=True)]
        return [Speech(self.projection(torch.stack([part.mean(0) for part in parts]))) for parts in clips]


class QFormerConnector(Connector):
    """Q-Former, then projection: a clip's queries see each other, and each the frames around its window."""

    spellings: Tensor

    def __init__(self, config: ConnectorConfig, embeddings: Tensor | None, spellings: Tensor | None = None) -> None:
        super().__init__()
        if not 0 <= config.margin <= config.window:
            raise ValueError(f"A margin of {config.margin} frames does not fit beside windows of {config.window}.")
        self.config = config
        width = config.encoder_width
        self.query = nn.Parameter(torch.randn(config.queries, width) * 0.02)
        self.layers = nn.ModuleList(QFormerLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.head: nn.Linear
        if config.projection == "linear":
            self.head = nn.Linear(width, config.llm_width)
        else:
            if spellings is None or spellings.ndim != 2 or len(spellings) != config.words:
                raise ValueError(f"A vocabulary projection of {config.words} words needs as many spellings.")
            self.blank = nn.Linear(width, 1)  # apart from the head, which training leaves as Whisper made it
            self.head = nn.Linear(width, config.words)
            self.register_buffer("spellings", spellings.to(torch.int64))
            # In a list, as the LLM's own matrix is neither a parameter of this module nor saved with it.
            self._embeddings = None if embeddings is None else [embeddings]
            if config.residual:
                self.residual = nn.Linear(width, config.llm_width, bias=False)
                nn.init.zeros_(self.residual.weight)  # words alone, until training finds something to add

    def hidden(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """States before the projection [B, S, width] and how many of them are real [B], a multiple of `queries`.

        A window counts when it holds at least one real frame, and padding is masked: batch mates change nothing.
        """
        config, (batch, frames, _) = self.config, features.shape
        count = -(-frames // config.window)
        features = functional.pad(features, (0, 0, 0, count * config.window - frames))
        heard = torch.arange(count * config.window, device=features.device) < lengths[:, None]
        visible = _spans(heard[..., None], config)[..., 0]
        visible = visible | ~visible.any(-1, keepdim=True)  # a softmax over nothing is no number
        lengths = -(-lengths // config.window) * config.queries
        real = torch.arange(count * config.queries, device=features.device) < lengths[:, None]
        states = self.query.repeat(count, 1).expand(batch, -1, -1)
        for layer in self.layers:
            states = layer(states, real, features, visible)
        return self.norm(states), lengths

    def project(self, states: Tensor) -> Tensor:
        """States [B, S, width] -> CTC logits [B, S, words + 1], or the LLM's vectors [B, S, llm_width]."""
        if self.config.projection == "linear":
            return self.head(states)
        return torch.cat([self.blank(states), self.head(states)], -1)

    def forward(self, features: Tensor, lengths: Tensor) -> list[Speech]:
        """See `Connector.forward`."""
        states, lengths = self.hidden(features, lengths)
        return self.speech(states, self.project(states), lengths)

    def speech(self, states: Tensor, projected: Tensor, lengths: Tensor) -> list[Speech]:
        """What the LLM gets, from the states [B, S, width], what the head made of them [B, S, ...] and lengths [B]."""
        if self.config.projection == "linear":
            return [Speech(clip[:length]) for clip, length in zip(projected, lengths.tolist(), strict=True)]
        return [
            self.read(clip_states[:length], logits[:length])
            for clip_states, logits, length in zip(states, projected, lengths.tolist(), strict=True)
        ]

    def tokens(self, features: Tensor, lengths: Tensor) -> list[Tensor]:
        """LLM token ids [n] read in each clip: greedy CTC decoding. Needs no embeddings."""
        states, lengths = self.hidden(features, lengths)
        logits = self.project(states)
        return [self.greedy(clip[:length]) for clip, length in zip(logits, lengths.tolist(), strict=True)]

    def greedy(self, logits: Tensor) -> Tensor:
        """CTC logits [S, words + 1] -> LLM token ids [n]."""
        best = logits.argmax(-1)
        spelt = self.spellings[best[_run_starts(best) & (best != BLANK)] - 1]
        return spelt[spelt != PADDING]

    def read(self, states: Tensor, logits: Tensor) -> Speech:
        """States [S, width] and CTC logits [S, words + 1] -> a soft token for each token of the words read.

        Blanks are dropped and repeats merged. The mean posterior of a word's steps, without its blank, weighs the LLM's
        input embeddings of the first token of each word that it may be, of the second, and so on: every vector is a
        convex combination of what the LLM knows (plus the residual, if any).
        """
        if self._embeddings is None:
            raise ValueError("This connector was built to read words only: build it with the LLM's embeddings.")
        probabilities = logits.float().softmax(-1)  # [S, words + 1]
        best = probabilities.argmax(-1)
        first = _run_starts(best)
        spoken = best[first] != BLANK
        merged = _mean_of_runs(probabilities, first)[spoken]
        words = best[first][spoken] - 1
        # The tail of the posterior is noise, and summing thousands of embeddings of it costs time: keep what matters.
        top, which = merged[:, 1:].topk(min(8, merged.shape[1] - 1))
        ids = self.spellings[which]  # [n, 8, longest]
        shares = top[..., None] * (ids != PADDING)
        shares = shares / shares.sum(1, keepdim=True).clamp_min(torch.finfo(shares.dtype).tiny)
        embedded = self._embeddings[0].to(ids.device)[ids.clamp_min(0)].to(top.dtype)  # [n, 8, longest, llm_width]
        vectors = torch.einsum("nwl,nwld->nld", shares, embedded)
        if self.config.residual:
            # Only a state's direction: its length, hundreds of times an embedding's, would drown the words.
            directions = functional.normalize(_mean_of_runs(states, first)[spoken], dim=-1)
            vectors = vectors + self.residual(directions)[:, None]
        tokens = self.spellings[words]  # [n, longest]
        written = tokens != PADDING
        confidence = merged.gather(1, words[:, None] + 1).expand_as(tokens)
        return Speech(vectors[written], tokens[written], confidence[written])


def _run_starts(best: Tensor) -> Tensor:
    """Where a run of the same class begins in classes [S]: true or false [S]."""
    starts = torch.ones_like(best, dtype=torch.bool)
    starts[1:] = best[1:] != best[:-1]
    return starts


def _mean_of_runs(values: Tensor, first: Tensor) -> Tensor:
    """Values [S, ...] averaged over each run: [runs, ...]."""
    run = first.cumsum(0) - 1
    sums = values.new_zeros(int(run[-1]) + 1, values.shape[1]).index_add(0, run, values)
    return sums / run.bincount()[:, None]


class QFormerLayer(nn.Module):
    """The queries of a clip see each other, then each sees the frames around its window.

    The parameters are a decoder block of Whisper's, so that training can begin from one (`train.whisper_start`). What
    tells the decoder the order of its tokens is told here by a depthwise convolution, which is nothing to begin with.
    """

    def __init__(self, config: ConnectorConfig, kernel: int = 9) -> None:
        super().__init__()
        self.config = config
        width = config.encoder_width
        self.order = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        for parameter in self.order.parameters():
            nn.init.zeros_(parameter)
        heads = max(1, width // 64)  # every Whisper size has heads of width 64
        self.block = ResidualAttentionBlock(width, heads, cross_attention=True)

    def forward(self, states: Tensor, real: Tensor, features: Tensor, visible: Tensor) -> Tensor:
        """States [B, S, width] -> [B, S, width].

        `real` [B, S] is false on padding; of what a window's queries see of the features [B, T, width], `visible`
        [B, windows, span] is real.
        """
        block = self.block
        states = states * real[..., None]
        states = states + self.order(states.transpose(1, 2)).transpose(1, 2)
        normed = block.attn_ln(states)
        attention = block.attn
        states = states + _attend(
            attention, normed, attention.key(normed), attention.value(normed), real[:, None, None]
        )
        windows = block.cross_attn_ln(states).unflatten(1, (visible.shape[1], -1))
        attention = block.cross_attn
        keys, values = (_spans(project(features), self.config) for project in (attention.key, attention.value))
        states = states + _attend(attention, windows, keys, values, visible[:, :, None, None]).flatten(1, 2)
        return states + block.mlp(block.mlp_ln(states))


def _spans(frames: Tensor, config: ConnectorConfig) -> Tensor:
    """Frames of whole windows [B, T, n] -> what each window's queries see [B, windows, margin + window + margin, n]."""
    windows = functional.pad(frames.unflatten(1, (-1, config.window)), (0, 0, 0, 0, 1, 1))
    before, after = windows[:, :-2, config.window - config.margin :], windows[:, 2:, : config.margin]
    return torch.cat([before, windows[:, 1:-1], after], 2)


def _attend(attention: MultiHeadAttention, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Whisper's attention, with a mask: queries [..., q, width], keys and values [..., k, width] -> [..., q, width]."""

    def heads(states: Tensor) -> Tensor:
        return states.unflatten(-1, (attention.n_head, -1)).transpose(-2, -3)

    found = functional.scaled_dot_product_attention(heads(attention.query(queries)), heads(keys), heads(values), mask)
    return attention.out(found.transpose(-2, -3).flatten(-2))


def pad_features(clips: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Clips [T_i, width] -> a padded batch [B, max T, width] and its lengths [B]."""
    lengths = torch.tensor([len(clip) for clip in clips], device=clips[0].device)
    return pad_sequence(clips, batch_first=True), lengths
