"""Stage 2, cross-modal instruction tuning: connector and LLM (LoRA or full) learn to do as told with what was said.

    python -m train.stages.instruction_tuning train/recipes/self_powered.toml --out runs/self_powered

The encoder is frozen and its output cached. `targets = "transcripts"` is vanilla instruction tuning, which shows the
speech anchor bias; with `tune = "nothing"` as well it is stage 1 through the frozen LLM. The same command continues an
interrupted run; `accelerate launch -m train.stages.instruction_tuning …` uses several GPUs (on CPUs `torchrun -m …`).
"""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from assistant.files import read_json_lines
from assistant.model.checkpoint import (
    TUNED_LLM,
    CheckpointConfig,
    read_config,
    read_connector,
    write_checkpoint,
)
from assistant.model.connector import Connector, ConnectorConfig, build_connector, pad_features
from assistant.model.llm import LLM, load_llm
from assistant.model.speech_encoder import load_whisper
from assistant.model.speech_lm import SpeechLM
from train.data.features import FeatureCache
from train.data.manifest import held_out
from train.data.perturbation import perturb
from train.data.vocabulary import frequent_words
from train.labels.instructions import InstructionPool
from train.labels.labeller import Labeller
from train.stages.ctc import reading_error
from train.stages.examples import (
    Example,
    conversation_examples,
    no_speech_example,
    self_powered_example,
    transcription_example,
)
from train.stages.loop import Objective
from train.stages.recipe import RecipeError, StageRecipe
from train.stages.reply_loss import ReplyModel
from train.stages.stage import run
from train.stages.whisper_start import learn, start_from_whisper

VALIDATION = 64  # held-out examples that are looked at with every checkpoint
LONGEST_TARGET = 160  # tokens
SELF_POWERED = dict.fromkeys(("text", "task", "instruction", "language", "target"), str)  # what a line must hold
CONVERSATION = {"turns": list}


@dataclass(frozen=True)
class Lora:
    """Low-rank matrices beside the LLM's own (arXiv 2106.09685)."""

    rank: int = 8
    alpha: int = 16
    modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class TuningRecipe(StageRecipe):
    """A recipe of stage 2, or of stage 1 through the frozen LLM."""

    self_powered: tuple[Path, ...]  # manifests written by train.labels.self_powered
    start: Path | None = None  # checkpoint of stage 1; without it the connector begins as stage 1 would
    conversations: tuple[Path, ...] = ()  # conversations.jsonl of train.labels.conversations
    no_speech: float = 0.03  # share of samples without speech, when a cache holds recordings without words
    targets: Literal["self-powered", "transcripts"] = "self-powered"
    tune: Literal["lora", "full", "nothing"] = "lora"
    lora: Lora = field(default_factory=Lora)
    connector_learning_rate: float = 2e-4
    llm_learning_rate: float = 1e-4
    weight_decay: float = 0.01
    ctc: float = 0.3  # weight of reading, which keeps the vocabulary projection readable
    distillation: float = 0.0  # weight of the LLM's own answer to the transcript
    connector: dict[str, Any] = field(default_factory=dict)  # entries of ConnectorConfig that differ


class TuningObjective(Objective):
    """Replies to speech, through the LLM."""

    def __init__(self, recipe: TuningRecipe) -> None:
        self._recipe = recipe
        self._cache = FeatureCache(list(recipe.features))
        self._recordings: dict[str, list[int]] = defaultdict(list)
        for index, entry in enumerate(self._cache.entries):
            self._recordings[entry["text"]].append(index)
        self._skipped: list[dict[str, str]] = []
        torch.manual_seed(recipe.loop.seed)

        mixed = torch.cuda.is_available() or recipe.loop.precision == "bf16"
        if recipe.tune == "full" and recipe.distillation:
            raise RecipeError("A teacher that is itself being tuned teaches nothing: distillation needs LoRA.")
        self._llm: LLM = load_llm(recipe.llm, "bfloat16" if mixed else "float32")
        settings = self._tune_llm()
        self._config, connector = self._make_connector(settings)
        self._speech_lm = SpeechLM(connector, llm=self._llm)
        self.model = ReplyModel(self._speech_lm, recipe.ctc, recipe.distillation)

        examples = self._usable(self._examples())
        self._training = [example for example in examples if not _held_out(example)]
        self._validation = [example for example in examples if _held_out(example)][:VALIDATION]
        if not self._training:
            raise RecipeError(
                "No sample is left to learn from: none of the manifests' texts is in the feature caches. Encode the "
                "manifest that train.labels.self_powered read with train.data.features."
            )

    # What is learnt ---------------------------------------------------------------------------------------------

    def _tune_llm(self) -> dict[str, Any] | None:
        """Decide which of the LLM's parameters learn; returns peft's settings when LoRA does."""
        recipe, model = self._recipe, self._llm.model
        settings: dict[str, Any] | None = None
        if recipe.tune == "lora":
            lora = recipe.lora
            settings = {"r": lora.rank, "lora_alpha": lora.alpha, "target_modules": list(lora.modules)}
            self._llm.add_lora(settings)
        model.requires_grad_(recipe.tune == "full")
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.requires_grad_(True)
                parameter.data = parameter.data.float()
        if recipe.loop.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.train()  # transformers checkpoints in training mode only; these models have no dropout
        return settings

    def _make_connector(self, lora: dict[str, Any] | None) -> tuple[CheckpointConfig, Connector]:
        recipe, writer = self._recipe, self._llm.writer
        changes = {"llm_width": self._llm.embeddings.shape[1], **recipe.connector}
        if recipe.start:
            config = read_config(recipe.start)
            if config.lora is not None:
                raise RecipeError(f"{recipe.start} has LoRA weights already; begin stage 2 from a stage 1 checkpoint.")
            if not config.fits(recipe.llm):
                raise RecipeError(f"{recipe.start} leads to {config.llm} alone, not to {recipe.llm}.")
            connector, whisper = read_connector(recipe.start, config, writer), config.whisper
            if recipe.connector:  # such as a residual path beside what stage 1 has learnt
                wider = build_connector(replace(config.connector, **changes), connector.words, writer)
                wider.load_state_dict(connector.state_dict(), strict=False)
                connector = wider
        else:
            texts, whisper = [text for text in self._recordings if text], recipe.whisper
            words = Labeller.from_texts(self._llm.tokenizer, texts, frequent_words()).words
            shape = ConnectorConfig(self._cache[0].features.shape[1], **changes)
            connector = build_connector(shape, words, writer)
            start_from_whisper(connector, load_whisper(whisper))
        learn(connector)
        return CheckpointConfig.of(connector.config, whisper, recipe.llm, lora), connector

    def groups(self) -> list[dict[str, Any]]:
        """Connector and LLM at learning rates of their own; see `Objective`."""
        recipe = self._recipe
        llm = [parameter for parameter in self._llm.model.parameters() if parameter.requires_grad]
        groups = [
            {
                "params": [p for p in self._speech_lm.connector.parameters() if p.requires_grad],
                "lr": recipe.connector_learning_rate,
            },
            {"params": llm, "lr": recipe.llm_learning_rate},
        ]
        return [{**group, "weight_decay": recipe.weight_decay} for group in groups if group["params"]]

    # What it is learnt from -------------------------------------------------------------------------------------

    def _examples(self) -> list[Example]:
        """All samples of the recipe, decided by its seed."""
        recipe, rng = self._recipe, random.Random(self._recipe.loop.seed)
        pool = InstructionPool.load()
        examples: list[Example] = []
        for line in _lines(recipe.self_powered, SELF_POWERED):
            if recipe.targets == "transcripts":
                instruction = pool.draw("recognition", line["language"], rng)
                examples.append(transcription_example(line["text"], instruction, after=rng.random() < 0.5))
            else:
                examples.append(self_powered_example(line))
        for line in _lines(recipe.conversations, CONVERSATION):
            examples += conversation_examples(line)
        if self._recordings.get(""):
            wanted = int(recipe.no_speech * len(examples))
            tasks = [rng.choice(pool.offered("english")) for _ in range(wanted)]
            examples += [no_speech_example(pool.draw(task, "english", rng)) for task in tasks]
        return examples

    def _usable(self, examples: list[Example]) -> list[Example]:
        """Those whose words were recorded and whose reply is of reasonable length; the others are listed."""
        kept = []
        for example in examples:
            missing = [text for text in example.spoken if text not in self._recordings]
            tokens = len(self._llm.plain_text.tokens(example.target))
            reason = (
                "no recording of these words in the feature caches"
                if missing
                else "empty target"
                if not example.target.strip()
                else f"target of {tokens} tokens"
                if tokens > LONGEST_TARGET
                else None
            )
            if reason:
                self._skipped.append({"text": " | ".join(example.spoken), "task": example.task, "reason": reason})
            else:
                kept.append(example)
        return kept

    def skipped(self) -> list[dict[str, str]]:
        """See `Objective`."""
        return self._skipped

    def lengths(self) -> list[int]:
        """Frames of the first recording of each example's words, plus what the LLM has to read and write."""
        return [
            sum(self._cache.entries[self._recordings[text][0]]["frames"] for text in example.spoken)
            + len(example.target)
            for example in self._training
        ]

    def batch(self, indices: list[int], rng: np.random.Generator) -> dict[str, Any]:
        """See `Objective`."""
        return self._batch([self._training[index] for index in indices], rng)

    def named(self, indices: list[int], rng: np.random.Generator) -> list[str]:
        """See `Objective`."""
        return self._cache.named(self._drawn([self._training[index] for index in indices], rng))

    def _drawn(self, examples: list[Example], rng: np.random.Generator | None) -> list[int]:
        """The places in the cache of a recording for each of the examples' texts, in order: the first without `rng`."""
        choices = [self._recordings[text] for example in examples for text in example.spoken]
        return [recordings[int(rng.integers(len(recordings))) if rng else 0] for recordings in choices]

    def _batch(self, examples: list[Example], rng: np.random.Generator | None) -> dict[str, Any]:
        clips = [self._cache[place].features.float() for place in self._drawn(examples, rng)]
        features, lengths = pad_features(clips) if rng is None else perturb(clips, rng)
        return {"features": features, "lengths": lengths, "examples": examples}

    # What is reported and kept ----------------------------------------------------------------------------------

    @torch.inference_mode()
    def evaluate(self) -> dict[str, float]:
        """Losses on held-out examples, and the word error rate of reading their recordings."""
        totals: dict[str, float] = defaultdict(float)
        device = self._llm.embeddings.device
        for example in self._validation:
            batch = self._batch([example], None)
            features, lengths = batch["features"].to(device), batch["lengths"].to(device)
            for name, value in self.model(features, lengths, [example]).items():
                totals[f"validation_{name}"] += value.item() / len(self._validation)
        if self._speech_lm.connector.vocabulary:
            texts = dict.fromkeys(text for example in self._validation for text in example.spoken)
            samples = [self._cache[self._recordings[text][0]] for text in texts]
            totals["validation_wer"] = reading_error(self._speech_lm, samples)
        return dict(totals)

    def export(self, folder: Path) -> None:
        """See `Objective`."""
        lora = self._llm.lora_state() if self._config.lora else None
        connector = self._speech_lm.connector
        write_checkpoint(folder, self._config, connector.learnt(), connector.words, lora)
        if self._recipe.tune == "full":
            self._llm.model.save_pretrained(folder / TUNED_LLM, safe_serialization=True)
            self._llm.tokenizer.save_pretrained(folder / TUNED_LLM)


def _lines(paths: Iterable[Path], needed: Mapping[str, type]) -> Iterator[dict[str, Any]]:
    """The objects of JSON-lines files, one file after the other."""
    return itertools.chain.from_iterable(read_json_lines(path, needed) for path in paths)


def _held_out(example: Example) -> bool:
    return any(held_out(text) for text in example.spoken if text)


def main() -> None:
    """Command line; see the top of the file."""
    run(__doc__, TuningRecipe, TuningObjective)


if __name__ == "__main__":
    main()
