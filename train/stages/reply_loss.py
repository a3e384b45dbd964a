"""The loss through the LLM: how well it continues a chat that holds speech with the reply that is wanted.

Loss on the reply's tokens only (Self-Powered LSM, arXiv 2410.03798; LLaSM, arXiv 2308.15930, section 3). Two companions
may stand beside it: CTC, which keeps the vocabulary projection readable, and distillation from the same LLM reading
the transcript, LoRA off.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from assistant.model.llm import Message
from assistant.model.speech_lm import SpeechLM
from train.labels.labeller import Labeller
from train.stages.ctc import ctc
from train.stages.examples import Example


class ReplyModel(nn.Module):
    """Connector and LLM with the losses of stage 2; which parameters learn is decided by their `requires_grad`."""

    def __init__(self, speech_lm: SpeechLM, ctc_weight: float, distillation: float) -> None:
        super().__init__()
        assert speech_lm.llm is not None, "without an LLM there is no reply"
        self.connector, self._speech_lm, self._llm = speech_lm.connector, speech_lm, speech_lm.llm
        self.llm_weights = self._llm.model  # registered, so that accelerate moves and wraps it
        self._labeller = Labeller(self._llm.tokenizer, self.connector.words) if self.connector.words else None
        self._ctc_weight = ctc_weight if self._labeller is not None else 0.0
        self._distillation = distillation

    def forward(self, features: Tensor, lengths: Tensor, examples: list[Example]) -> dict[str, Tensor]:
        """Losses for examples whose recordings, in order, are a padded batch [clips, T, width] with `lengths`."""
        if self._distillation:
            self._llm.switch_lora(False)
            with torch.no_grad():
                teacher = self._reply_logits(examples, None)
        self._llm.switch_lora(True)  # and on it stays: parameters that are off get no gradient
        vectors, reading = self._hear(features, lengths, [text for example in examples for text in example.spoken])
        student = self._reply_logits(examples, vectors)  # [reply tokens of all examples, vocabulary]
        labels = torch.cat([self._reply(example) for example in examples])
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
        speeches = self.connector(features, lengths)
        vectors = [speech.vectors for speech in speeches if speech.vectors is not None]
        if not self._ctc_weight or self._labeller is None:
            return vectors, features.new_zeros(())
        losses = [
            ctc(speech.logits[None], torch.tensor([len(speech.logits)]), [self._labeller(text)])
            for speech, text in zip(speeches, texts, strict=True)
            if speech.logits is not None
        ]
        return vectors, torch.stack(losses).mean()

    def _reply(self, example: Example) -> Tensor:
        """Token ids [n] of the reply and the end of its turn."""
        ids = self._llm.plain_text.tokens(example.target)
        return torch.tensor([*ids, self._llm.tokenizer.eos_token_id], device=self._llm.embeddings.device)

    def _reply_logits(self, examples: Sequence[Example], vectors: list[Tensor] | None) -> Tensor:
        """Float32 logits [all reply tokens, vocabulary]; without vectors, recordings are read as their transcripts."""
        remaining = iter(vectors or [])
        sequences, replies = [], []
        for example in examples:
            messages = [
                Message(
                    role,
                    [
                        part if isinstance(part, str) else part.text if vectors is None else next(remaining)
                        for part in parts
                    ],
                )
                for role, parts in example.turns
            ]
            reply = self._reply(example)
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
