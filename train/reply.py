"""The loss through the LLM: how well it continues a chat that holds speech with the reply that is wanted.

Loss on the reply's tokens only (Self-Powered LSM, arXiv 2410.03798; LLaSM, arXiv 2308.15930, section 3). Two companions
may stand beside it: CTC, which keeps the vocabulary projection readable, and distillation from the same LLM reading
the transcript, LoRA off.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from assistant.connector import Connector, QFormerConnector
from assistant.llm import LLM, Message
from assistant.spelling import respelt
from train.ctc import Labeller, ctc


@dataclass(frozen=True)
class Spoken:
    """The place of a recording in a chat: any recording of these words will do. No words: a recording of no speech."""

    text: str


@dataclass(frozen=True)
class Exchange:
    """A chat up to the reply that is learnt; the parts of a turn are written text and recordings."""

    turns: tuple[tuple[str, tuple[str | Spoken, ...]], ...]  # role, parts
    target: str
    task: str

    @property
    def spoken(self) -> list[str]:
        """The words of the chat's recordings, in order."""
        return [part.text for _, parts in self.turns for part in parts if isinstance(part, Spoken)]


class ReplyModel(nn.Module):
    """Connector and LLM with the losses of stage 2; which parameters learn is decided by their `requires_grad`."""

    def __init__(
        self, connector: Connector, llm: LLM, labeller: Labeller | None, ctc_weight: float, distillation: float
    ) -> None:
        super().__init__()
        self.connector = connector
        self.llm_weights = llm.model  # registered, so that accelerate moves and wraps it
        self._llm = llm
        self._labeller = labeller
        self._ctc_weight = ctc_weight if labeller is not None else 0.0
        self._distillation = distillation

    def forward(self, features: Tensor, lengths: Tensor, exchanges: list[Exchange]) -> dict[str, Tensor]:
        """Losses for exchanges whose recordings, in order, are a padded batch [clips, T, width] with `lengths`."""
        if self._distillation:
            self._llm.switch_lora(False)
            with torch.no_grad():
                teacher = self._reply_logits(exchanges, None)
        self._llm.switch_lora(True)  # and on it stays: parameters that are off get no gradient
        vectors, reading = self._hear(features, lengths, [text for exchange in exchanges for text in exchange.spoken])
        student = self._reply_logits(exchanges, vectors)  # [reply tokens of all exchanges, vocabulary]
        labels = torch.cat([self._reply(exchange) for exchange in exchanges])
        losses = {"reply": functional.cross_entropy(student, labels)}
        losses["loss"] = losses["reply"]
        if self._ctc_weight:
            losses["reading"] = reading
            losses["loss"] = losses["loss"] + self._ctc_weight * reading
        if self._distillation:
            divergence = functional.kl_div(
                student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="batchmean"
            )
            losses["distillation"] = divergence
            losses["loss"] = losses["loss"] + self._distillation * divergence
        return losses

    def _hear(self, features: Tensor, lengths: Tensor, texts: list[str]) -> tuple[list[Tensor], Tensor]:
        """Vectors [n, llm_width] of each clip, and the CTC loss of reading it."""
        if not isinstance(self.connector, QFormerConnector):
            return [speech.vectors for speech in self.connector(features, lengths)], features.new_zeros(())
        states, lengths = self.connector.hidden(features, lengths)
        projected = self.connector.project(states)
        vectors = [respelt(speech, self._llm).vectors for speech in self.connector.speech(states, projected, lengths)]
        if not self._ctc_weight or self._labeller is None:
            return vectors, features.new_zeros(())
        return vectors, ctc(projected, lengths, [self._labeller(text) for text in texts])

    def _reply(self, exchange: Exchange) -> Tensor:
        """Token ids [n] of the reply and the end of its turn."""
        tokenizer = self._llm.tokenizer
        ids = tokenizer(exchange.target, add_special_tokens=False).input_ids
        return torch.tensor([*ids, tokenizer.eos_token_id], device=self._llm.embeddings.device)

    def _reply_logits(self, exchanges: Sequence[Exchange], vectors: list[Tensor] | None) -> Tensor:
        """Float32 logits [all reply tokens, vocabulary]; without vectors, recordings are read as their transcripts."""
        remaining = iter(vectors or [])
        sequences, replies = [], []
        for exchange in exchanges:
            messages = [
                Message(
                    role,
                    [
                        part if isinstance(part, str) else part.text if vectors is None else next(remaining)
                        for part in parts
                    ],
                )
                for role, parts in exchange.turns
            ]
            reply = self._reply(exchange)
            prompt = self._llm.embed(self._llm.prompt(messages))[0]
            embedded = self._llm.model.get_input_embeddings()(reply)
            sequences.append(torch.cat([prompt, embedded[:-1]]))
            replies.append((len(prompt), len(reply)))
        hidden = self._llm.model.get_decoder()(
            inputs_embeds=pad_sequence(sequences, batch_first=True),
            attention_mask=pad_sequence([sequence.new_ones(len(sequence)).long() for sequence in sequences], True),
            use_cache=False,
        ).last_hidden_state  # [B, S, width]
        # The output matrix has 150,000 rows: it runs where a reply token is predicted, and nowhere else.
        wanted = [row[start - 1 : start - 1 + count] for row, (start, count) in zip(hidden, replies, strict=True)]
        output: Tensor = self._llm.model.get_output_embeddings()(torch.cat(wanted))
        return output.float()
