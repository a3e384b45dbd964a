"""The CTC form of stage 1: the connector learns to read words; neither encoder nor LLM runs."""

import math
from collections.abc import Sequence

import jiwer
import torch
from torch import Tensor, nn
from torch.nn import functional

from assistant.model.connector import QFormerConnector
from assistant.model.heads import BLANK
from assistant.model.speech_lm import SpeechLM, reading
from train.data.features import Sample
from train.data.spoken_form import spoken_form

SAMPLE = 8192  # words that stand for all that a batch does not say, half of them the most frequent


class CtcModel(nn.Module):
    """The connector with its loss, of which the softmax over all words would be two fifths of the work.

    So its denominator is estimated, by importance sampling (arXiv 1412.2007, section 3): exactly for the blank, the
    words that the batch says and the most frequent ones, and from a random sample of the rest, each counted as often as
    it is needed to stand for all of it. A head no larger than the sample is computed as it is.
    """

    def __init__(self, connector: QFormerConnector, frequent: Sequence[int] = ()) -> None:
        """`frequent`: places in the vocabulary head, the most frequent first."""
        super().__init__()
        self.connector = connector
        self._frequent = torch.tensor(frequent, dtype=torch.int64) - 1

    def forward(self, features: Tensor, lengths: Tensor, labels: list[list[int]]) -> dict[str, Tensor]:
        """CTC loss (per label) of a padded batch [B, T, width]."""
        states, lengths = self.connector.hidden(features, lengths)
        head = self.connector.vocabulary
        assert head is not None, "CTC is for connectors that read words"
        places = sorted({place for clip in labels for place in clip})
        said = torch.tensor(places, dtype=torch.int64) - 1
        rest = torch.ones(len(head.matrix.weight), dtype=torch.bool)
        rest[said] = False
        frequent = self._frequent[: SAMPLE // 2]
        frequent = frequent[rest[frequent]]
        rest[frequent] = False
        others = rest.nonzero()[:, 0]
        sample = others[torch.randperm(len(others))[: SAMPLE - len(frequent)]]
        words = torch.cat([said, frequent, sample]).to(states.device)
        logits = functional.linear(states, head.matrix.weight[words])
        logits[..., len(words) - len(sample) :] += math.log(max(1, len(others)) / max(1, len(sample)))
        numbers = {place: number for number, place in enumerate(places, 1)}
        renumbered = [[numbers[place] for place in clip] for clip in labels]
        return {"loss": ctc(torch.cat([head.blank(states), logits], -1), lengths, renumbered)}


def ctc(logits: Tensor, lengths: Tensor, targets: list[list[int]]) -> Tensor:
    """Mean CTC loss per label of logits [B, S, classes]; targets that cannot fit count as nothing."""
    return functional.ctc_loss(
        logits.float().log_softmax(-1).transpose(0, 1),
        torch.tensor([index for target in targets for index in target], device=logits.device),
        lengths,
        torch.tensor([len(target) for target in targets], device=logits.device),
        blank=BLANK,
        zero_infinity=True,
    )


@torch.inference_mode()
def reading_error(model: SpeechLM, samples: list[Sample]) -> float:
    """Word error rate of the greedy reading; not a number when there is nothing to read."""
    spoken = [sample for sample in samples if sample.text]
    if not spoken:
        return float("nan")
    device = next(model.connector.parameters()).device
    read = [reading(model.connect([sample.features.float().to(device)])[0])[0] or "" for sample in spoken]
    return float(jiwer.wer([spoken_form(s.text) for s in spoken], [spoken_form(text) for text in read]))
