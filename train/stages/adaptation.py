"""Stage 1, modality adaptation: only the connector learns, from speech with transcripts.

    python -m train.stages.adaptation train/recipes/adaptation.toml --out runs/adaptation

The CTC form (`ctc.py`) reads cached features. The same command continues an interrupted run with the same loss curve;
`accelerate launch -m train.stages.adaptation …` (on CPUs `torchrun -m …`) uses several processes. Stage 1 through the
frozen LLM, the papers' form, is `train.stages.instruction_tuning` with a recipe that leaves the LLM alone.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from assistant.model.checkpoint import CheckpointConfig, read_config, read_learnt, write_checkpoint
from assistant.model.connector import ConnectorConfig, QFormerConnector, build_connector
from assistant.model.speech_encoder import FRAMES_PER_SECOND, load_whisper
from assistant.model.speech_lm import SpeechLM
from assistant.model.weights import llm_source
from train.data.features import FeatureCache
from train.data.manifest import held_out
from train.data.perturbation import perturb
from train.data.vocabulary import frequent_words
from train.labels.labeller import Labeller
from train.stages.ctc import CtcModel, reading_error
from train.stages.loop import Objective
from train.stages.recipe import RecipeError, StageRecipe
from train.stages.stage import run
from train.stages.whisper_start import learn, start_from_whisper

VALIDATION = 200  # held-out samples that are read at every checkpoint
LONGEST = 35  # seconds of a sample
FASTEST = 8  # words a second; more cannot be said


@dataclass(frozen=True, kw_only=True)
class AdaptationRecipe(StageRecipe):
    """A recipe of stage 1."""

    learning_rate: float = 4e-4
    weight_decay: float = 0.01
    start: Path | None = None  # checkpoint whose layers to go on with; it may read other words
    connector: dict[str, Any] = field(default_factory=dict)  # entries of ConnectorConfig that differ from the default


class CtcObjective(Objective):
    """CTC on words; the recipe's LLM lends its tokenizer, whose pieces spell those that are heard too rarely."""

    def __init__(self, recipe: AdaptationRecipe) -> None:
        self._recipe = recipe
        self._cache = FeatureCache(list(recipe.features))
        self._skipped: list[dict[str, str]] = []
        self._training, validation = [], []
        tokenizer = AutoTokenizer.from_pretrained(llm_source(recipe.llm))
        for index, entry in enumerate(self._cache.entries):
            if held_out(entry["text"]):
                validation.append(index)
            elif reason := self._unfit(entry):
                self._skipped.append({"text": entry["text"], "source": entry["source"], "reason": reason})
            else:
                self._training.append(index)
        self._validation = [self._cache[index] for index in validation[:VALIDATION]]
        if not self._training:
            raise RecipeError("None of the samples can be learnt from; skipped.jsonl says why.")
        torch.manual_seed(recipe.loop.seed)
        texts = [self._cache.entries[index]["text"] for index in self._training]
        self._labeller = Labeller.from_texts(tokenizer, texts, frequent_words())
        self._config = self._shape()
        connector = build_connector(self._config.connector, self._labeller.words)
        assert isinstance(connector, QFormerConnector), "CTC is for connectors that read words"
        start_from_whisper(connector, load_whisper(self._config.whisper))
        if recipe.start:
            self._go_on_from(recipe.start, connector)
        learn(connector)
        self._speech_lm = SpeechLM(connector)
        said = Counter(place for text in texts for place in self._labeller(text))
        self.model = CtcModel(connector, [place for place, _ in said.most_common()])

    def _shape(self) -> CheckpointConfig:
        """That of the checkpoint to start from, or a new one, with the recipe's changes."""
        recipe = self._recipe
        if recipe.start:
            config = read_config(recipe.start)
        else:
            config = CheckpointConfig.of(ConnectorConfig(self._cache[0].features.shape[1]), recipe.whisper, recipe.llm)
        try:
            return replace(config, connector=replace(config.connector, **recipe.connector))
        except TypeError as error:
            raise RecipeError(f"[connector] of the recipe: {error}") from error

    @staticmethod
    def _go_on_from(start: Path, connector: QFormerConnector) -> None:
        """Take over all that another run has learnt. Rows are not learnt, so they may be of other words."""
        learnt, words = read_learnt(start, read_config(start))
        own = {name: value for name, value in connector.state_dict().items() if name not in connector.learnt()}
        if not words:
            raise RecipeError(f"{start} has no vocabulary projection to go on from.")
        try:
            connector.load_state_dict({**own, **learnt})
        except RuntimeError as error:
            raise RecipeError(f"{start} is not of the shape that the recipe asks for: {error}") from error

    @staticmethod
    def _unfit(entry: dict[str, Any]) -> str | None:
        """Why nothing can be learnt from a sample: None when it can."""
        seconds, words = entry["frames"] / FRAMES_PER_SECOND, len(entry["text"].split())
        if seconds > LONGEST:
            return f"longer than {LONGEST} s ({seconds:.0f} s)"
        if words > FASTEST * seconds:
            return f"{words} words do not fit into {seconds:.1f} s"
        return None

    def groups(self) -> list[dict[str, Any]]:
        """See `Objective`."""
        recipe = self._recipe
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return [{"params": parameters, "lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}]

    def lengths(self) -> list[int]:
        """See `Objective`."""
        return [self._cache.entries[index]["frames"] for index in self._training]

    def batch(self, indices: list[int], rng: np.random.Generator) -> dict[str, Any]:
        """See `Objective`."""
        samples = [self._cache[self._training[index]] for index in indices]
        features, lengths = perturb([sample.features.float() for sample in samples], rng)
        return {"features": features, "lengths": lengths, "labels": [self._labeller(sample.text) for sample in samples]}

    def named(self, indices: list[int], rng: np.random.Generator) -> list[str]:
        """See `Objective`."""
        return self._cache.named([self._training[index] for index in indices])

    def evaluate(self) -> dict[str, float]:
        """Word error rate on held-out sentences."""
        return {"validation_wer": reading_error(self._speech_lm, self._validation)}

    def export(self, folder: Path) -> None:
        """See `Objective`."""
        connector = self._speech_lm.connector
        write_checkpoint(folder, self._config, connector.learnt(), connector.words)

    def skipped(self) -> list[dict[str, str]]:
        """See `Objective`."""
        return self._skipped


def main() -> None:
    """Command line; see the top of the file."""
    run(__doc__, AdaptationRecipe, CtcObjective)


if __name__ == "__main__":
    main()
