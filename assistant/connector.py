"""The connector between the speech encoder and the LLM: frames of speech in, vectors of the LLM's embedding space out.

Two kinds: the windowed Q-Former of Self-Powered LSM (arXiv 2410.03798; windows as in SALMONN, arXiv 2310.13289) and
LLaSM's linear adaptor (arXiv 2308.15930). The Q-Former ends in one of two projections: `vocabulary` reads LLM tokens
by CTC and hands on the expected embedding of each token read, `linear` is the papers' single matrix.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import Blip2QFormerConfig, Blip2QFormerModel

BLANK = 0  # index of the CTC blank in the vocabulary head; token i of the head is index i + 1


@dataclass(frozen=True)
class ConnectorConfig:
    """Shape of a connector; `window` and `queries` set the rate: 3 queries for 16 frames of 20 ms are 9.4 a second."""

    encoder_width: int
    llm_width: int
    kind: Literal["q_former", "linear_adaptor"] = "q_former"
    projection: Literal["vocabulary", "linear"] = "vocabulary"
    window: int = 16  # encoder frames
    queries: int = 3  # learnt queries for each window
    layers: int = 2  # Q-Former layers
    context_layers: int = 2  # transformer layers across windows; 0 leaves windows independent, as in the papers
    width: int = 512
    heads: int = 8
    dropout: float = 0.0  # a run on a CPU sees its data two or three times: there is nothing to over-fit
    residual: bool = False  # beside the vocabulary projection, a linear path for what words do not carry
    tokens: int = 0  # LLM tokens in the vocabulary head


@dataclass(frozen=True)
class Speech:
    """One utterance as the LLM meets it: `vectors` [n, llm_width] and, with a vocabulary head, what was read.

    `tokens` are LLM token ids [n], `confidence` their probability [n]; both None with a linear projection.
    """

    vectors: Tensor
    tokens: Tensor | None = None
    confidence: Tensor | None = None


def build_connector(
    config: ConnectorConfig, embeddings: Tensor | None = None, token_ids: Tensor | None = None
) -> "Connector":
    """A randomly initialised connector.

    Parameters
    ----------
    embeddings: the LLM's input embeddings [vocabulary, llm_width]; kept by reference, not saved. Without them the
        connector can be trained by CTC and read words, but not speak to an LLM.
    token_ids: LLM token ids [config.tokens] that the vocabulary head can read.

    Raises
    ------
    ValueError
        The configuration does not fit the LLM or the token list.
    """
    if embeddings is not None and embeddings.shape[1] != config.llm_width:
        raise ValueError(
            f"This connector was made for an LLM of width {config.llm_width}; the LLM loaded has width "
            f"{embeddings.shape[1]}. Load the LLM that its config.json names, or another checkpoint."
        )
    if config.kind == "linear_adaptor":
        return LinearAdaptor(config)
    return QFormerConnector(config, embeddings, token_ids)


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
    """LayerNorm -> windows -> Q-Former -> context across windows -> projection."""

    token_ids: Tensor

    def __init__(self, config: ConnectorConfig, embeddings: Tensor | None, token_ids: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(config.encoder_width)
        self.query = nn.Parameter(torch.randn(1, config.queries, config.width) * 0.02)
        self.q_former = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=2 * config.width,
                cross_attention_frequency=1,
                encoder_hidden_size=config.encoder_width,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
            )
        )
        self.context = nn.ModuleList(ContextLayer(config) for _ in range(config.context_layers))
        self.head: nn.Linear
        if config.projection == "linear":
            self.head = nn.Linear(config.width, config.llm_width)
        else:
            if token_ids is None or len(token_ids) != config.tokens:
                raise ValueError(f"A vocabulary projection of {config.tokens} tokens needs as many token ids.")
            self.head = nn.Linear(config.width, config.tokens + 1)
            self.register_buffer("token_ids", token_ids.to(torch.int64))
            # In a list, as the LLM's own matrix is neither a parameter of this module nor saved with it.
            self._embeddings = None if embeddings is None else [embeddings]
            if config.residual:
                self.residual = nn.Linear(config.width, config.llm_width, bias=False)
                nn.init.zeros_(self.residual.weight)  # words alone, until training finds something to add

    def windows(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Q-Former output [B, S, width] and its lengths [B], S a multiple of `queries`; windows do not see each other.

        A window is kept when it holds at least one real frame, and its padding is masked: batch mates change nothing.
        """
        size, (batch, frames, _) = self.config.window, features.shape
        count = -(-frames // size)
        features = nn.functional.pad(self.norm(features), (0, 0, 0, count * size - frames))
        real = torch.arange(count * size, device=features.device) < lengths[:, None]  # [B, count * size]
        windows = features.reshape(batch * count, size, -1)
        mask = real.reshape(batch * count, size)
        kept = mask.any(1)
        queries = self.q_former(
            query_embeds=self.query.expand(int(kept.sum()), -1, -1),
            encoder_hidden_states=windows[kept],
            encoder_attention_mask=mask[kept].long(),
        ).last_hidden_state  # [kept, queries, width]
        output = queries.new_zeros(batch * count, *queries.shape[1:])
        output[kept] = queries
        return output.reshape(batch, count * self.config.queries, -1), -(-lengths // size) * self.config.queries

    def hidden(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States before the projection [B, S, width], the windows' own output [B, S, width] and the lengths [B]."""
        local, lengths = self.windows(features, lengths)
        real = torch.arange(local.shape[1], device=local.device) < lengths[:, None]
        states = local
        for layer in self.context:
            states = layer(states, real)
        return states, local, lengths

    def forward(self, features: Tensor, lengths: Tensor) -> list[Speech]:
        """See `Connector.forward`."""
        states, _, lengths = self.hidden(features, lengths)
        return self.speech(states, self.head(states), lengths)

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
        states, _, lengths = self.hidden(features, lengths)
        logits = self.head(states)
        return [self.greedy(clip[:length]) for clip, length in zip(logits, lengths.tolist(), strict=True)]

    def greedy(self, logits: Tensor) -> Tensor:
        """CTC logits [S, tokens + 1] -> LLM token ids [n]."""
        best = logits.argmax(-1)
        return self.token_ids[best[_run_starts(best) & (best != BLANK)] - 1]

    def read(self, states: Tensor, logits: Tensor) -> Speech:
        """States [S, width] and CTC logits [S, tokens + 1] -> one soft token for each token read.

        Blanks are dropped and repeats merged. The mean posterior of a token's steps, without its blank, weighs the
        LLM's input embeddings: every vector is a convex combination of what the LLM knows (plus the residual, if any).
        """
        if self._embeddings is None:
            raise ValueError("This connector was built to read words only: build it with the LLM's embeddings.")
        probabilities = logits.float().softmax(-1)  # [S, tokens + 1]
        best = probabilities.argmax(-1)
        first = _run_starts(best)
        spoken = best[first] != BLANK
        merged = _mean_of_runs(probabilities, first)[spoken]
        tokens = best[first][spoken] - 1
        # The tail of the posterior is noise, and summing ten thousand embeddings of it costs time: keep what matters.
        top, which = merged[:, 1:].topk(min(8, merged.shape[1] - 1))
        ids = self.token_ids[which]  # [n, 8]
        embedded = self._embeddings[0].to(ids.device)[ids].to(top.dtype)  # [n, 8, llm_width]
        vectors = (top / top.sum(-1, keepdim=True)).unsqueeze(1).bmm(embedded).squeeze(1)
        if self.config.residual:
            vectors = vectors + self.residual(_mean_of_runs(states, first)[spoken])
        confidence = merged.gather(1, tokens[:, None] + 1).squeeze(1)
        return Speech(vectors, self.token_ids[tokens], confidence)


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


class ContextLayer(nn.Module):
    """Lets windows see each other: a depthwise convolution, which also tells order, then a transformer layer."""

    def __init__(self, config: ConnectorConfig, kernel: int = 15) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(config.width, config.width, kernel, padding=kernel // 2, groups=config.width)
        self.transformer = nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            2 * config.width,
            config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )

    def forward(self, states: Tensor, real: Tensor) -> Tensor:
        """States [B, S, width], `real` [B, S] false on padding -> [B, S, width]."""
        states = states * real[..., None]
        states = states + nn.functional.gelu(self.convolution(states.transpose(1, 2)).transpose(1, 2))
        return self.transformer(states, src_key_padding_mask=~real)


def pad_features(clips: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Clips [T_i, width] -> a padded batch [B, max T, width] and its lengths [B]."""
    lengths = torch.tensor([len(clip) for clip in clips], device=clips[0].device)
    return pad_sequence(clips, batch_first=True), lengths
