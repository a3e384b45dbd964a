"""Stage 1, modality adaptation: the connector learns to read the LLM's tokens out of cached speech features.

    python -m train.adaptation runs/features/* --out runs/adaptation --steps 6000

CTC with the LLM's own tokens as labels; neither the encoder nor the LLM runs. A second, small CTC head spells
characters from the Q-Former's own output (before windows see each other) during training only: letters are learnt from
few hours and give the rarer tokens something to build on (hierarchical CTC, cf. arXiv 1807.07104). Checkpoints every
`--save` steps; the same command continues an interrupted run with the same loss curve.
"""

import argparse
import json
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from assistant.checkpoint import CheckpointConfig, write_checkpoint
from assistant.connector import BLANK, ConnectorConfig, QFormerConnector, pad_features
from assistant.weights import locate, registry
from train.features import FeatureCache, Sample
from train.manifest import spoken_form
from train.training_state import load_state, save_state

CHARACTERS = " 'abcdefghijklmnopqrstuvwxyz"  # index + 1; 0 is the blank
SPELLING_RATE = 3  # characters that one query may spell
SPELLING_WEIGHT = 0.3
FRAMES_PER_BATCH = 3200  # 64 s of speech, padding included


@dataclass(frozen=True)
class Labels:
    """CTC targets of one text: indices of the vocabulary head and of `CHARACTERS`."""

    tokens: list[int]
    characters: list[int]


class Labeller:
    """Turns transcripts into labels; fixes which LLM tokens the head can read."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: list[str], least: int = 2) -> None:
        self._tokenizer = tokenizer
        counts = Counter(token for text in set(texts) for token in self._encode(text))
        self.token_ids = sorted(token for token, count in counts.items() if count >= least)
        self._index = {token: position + 1 for position, token in enumerate(self.token_ids)}
        self._cache: dict[str, Labels] = {}

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer(" " + spoken_form(text), add_special_tokens=False).input_ids

    def __call__(self, text: str) -> Labels:
        """Labels of a transcript; tokens the head does not know are left out."""
        if text not in self._cache:
            tokens = [self._index[token] for token in self._encode(text) if token in self._index]
            characters = [CHARACTERS.index(c) + 1 for c in spoken_form(text) if c in CHARACTERS]
            self._cache[text] = Labels(tokens, characters)
        return self._cache[text]


class AdaptationModel(nn.Module):
    """The connector with the spelling head that only training needs."""

    def __init__(self, connector: QFormerConnector) -> None:
        super().__init__()
        self.connector = connector
        self.spelling = nn.Linear(connector.config.width, SPELLING_RATE * (len(CHARACTERS) + 1))

    def forward(self, features: Tensor, lengths: Tensor, labels: list[Labels]) -> tuple[Tensor, Tensor]:
        """CTC losses (per label) of the tokens and of the characters for a padded batch [B, T, width]."""
        states, local, lengths = self.connector.hidden(features, lengths)
        tokens = ctc(self.connector.head(states), lengths, [label.tokens for label in labels])
        batch, steps, _ = local.shape
        spelling = self.spelling(local).reshape(batch, steps * SPELLING_RATE, -1)
        return tokens, ctc(spelling, lengths * SPELLING_RATE, [label.characters for label in labels])


def ctc(logits: Tensor, lengths: Tensor, targets: list[list[int]]) -> Tensor:
    """Mean CTC loss per label of logits [B, S, classes]; targets that cannot fit count as nothing."""
    return functional.ctc_loss(
        logits.float().log_softmax(-1).transpose(0, 1),
        torch.tensor([index for target in targets for index in target]),
        lengths,
        torch.tensor([len(target) for target in targets]),
        blank=BLANK,
        zero_infinity=True,
    )


def mask_features(features: Tensor, lengths: Tensor, generator: np.random.Generator) -> Tensor:
    """SpecAugment on encoder output [B, T, width]: a time span for each 1.5 s, and a tenth of the channels."""
    features = features.clone()
    for row, length in enumerate(lengths.tolist()):
        for _ in range(1 + length // 75):
            size = int(generator.integers(0, 13))
            start = int(generator.integers(0, max(1, length - size)))
            features[row, start : start + size] = 0
    keep = torch.from_numpy(generator.random((len(features), 1, features.shape[2])) > 0.1)
    return features * keep


def batches(lengths: list[int], seed: int) -> Iterator[list[int]]:
    """Endless batches of indices, similar lengths together, every epoch in another order, all decided by the seed."""
    epoch = 0
    while True:
        rng = np.random.default_rng([seed, epoch])
        order = sorted(rng.permutation(len(lengths)), key=lambda i: lengths[i] + rng.uniform(0, 25))
        epoch_batches: list[list[int]] = []
        batch: list[int] = []
        longest = 0
        for index in order:
            longest = max(longest, lengths[index])
            if batch and longest * (len(batch) + 1) > FRAMES_PER_BATCH:
                epoch_batches.append(batch)
                batch, longest = [], lengths[index]
            batch.append(int(index))
        epoch_batches.append(batch)
        yield from (epoch_batches[i] for i in rng.permutation(len(epoch_batches)))
        epoch += 1


def learning_rate(step: int, steps: int, peak: float, warmup: int = 200, decay: float = 0.35) -> float:
    """Warm-up, a plateau, and a linear fall to zero over the last `decay` of the steps.

    Until the fall nothing depends on `steps`: a finished run is made longer by asking for more of them.
    """
    return peak * min((step + 1) / warmup, 1.0, (steps - step) / (decay * steps))


def held_out(text: str) -> bool:
    """One sentence in a hundred is kept for validation, in whatever voice and copy it appears."""
    return zlib.crc32(spoken_form(text).encode()) % 100 == 0


@torch.inference_mode()
def validate(connector: QFormerConnector, samples: list[Sample], tokenizer: PreTrainedTokenizerBase) -> float:
    """Word error rate of the greedy reading; not a number when there is nothing to read."""
    if not samples:
        return float("nan")
    connector.eval()
    read = [str(tokenizer.decode(connector.tokens(*pad_features([sample.features.float()]))[0])) for sample in samples]
    connector.train()
    return float(jiwer.wer([spoken_form(s.text) for s in samples], [spoken_form(text) for text in read]))


def main() -> None:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, nargs="+", help="folders written by train.features")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--save", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--whisper", default="whisper-base")
    parser.add_argument("--llm", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    cache = FeatureCache(arguments.features)
    training = [i for i, entry in enumerate(cache.entries) if not held_out(entry["text"])]
    validation = [cache[i] for i, entry in enumerate(cache.entries) if held_out(entry["text"])][:200]
    tokenizer = AutoTokenizer.from_pretrained(locate(arguments.llm))
    labeller = Labeller(tokenizer, [cache.entries[i]["text"] for i in training])
    llm_width = AutoConfig.from_pretrained(locate(arguments.llm)).hidden_size
    models = registry()
    config = CheckpointConfig(
        connector=ConnectorConfig(cache[0].features.shape[1], llm_width, tokens=len(labeller.token_ids)),
        whisper=arguments.whisper,
        llm=arguments.llm,
        whisper_sha256=models[arguments.whisper].sha256,
        llm_sha256=models[arguments.llm].sha256,
    )
    torch.manual_seed(arguments.seed)
    connector = QFormerConnector(config.connector, None, torch.tensor(labeller.token_ids))
    model = AdaptationModel(connector)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)

    arguments.out.mkdir(parents=True, exist_ok=True)
    state = arguments.out / "state.safetensors"
    start = load_state(state, model, optimizer) if state.exists() else 0
    hours = sum(cache.entries[i]["frames"] for i in training) / 50 / 3600
    print(f"{len(training):,} utterances, {hours:.1f} h, {len(labeller.token_ids):,} tokens, from step {start}")

    order = batches([cache.entries[i]["frames"] for i in training], arguments.seed)
    for _ in range(start):
        next(order)
    seen, clock = 0, time.perf_counter()
    with (
        (arguments.out / "log.jsonl").open("a", encoding="utf-8") as log,
        tqdm(total=arguments.steps, initial=start, desc="Stage 1", unit=" steps", mininterval=5) as bar,
    ):
        for step in range(start, arguments.steps):
            torch.manual_seed(arguments.seed * 1_000_003 + step)
            samples = [cache[training[i]] for i in next(order)]
            features, lengths = pad_features([sample.features.float() for sample in samples])
            features = mask_features(features, lengths, np.random.default_rng([arguments.seed, step]))
            reading, spelling = model(features, lengths, [labeller(sample.text) for sample in samples])
            optimizer.zero_grad()
            (reading + SPELLING_WEIGHT * spelling).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, arguments.steps, arguments.learning_rate)
            optimizer.step()
            seen += len(samples)
            bar.update()
            if (step + 1) % 25 == 0:
                rate = seen / (time.perf_counter() - clock)
                entry = {"step": step + 1, "reading": reading.item(), "spelling": spelling.item(), "clips_per_s": rate}
                log.write(json.dumps({key: round(value, 4) for key, value in entry.items()}) + "\n")
                log.flush()
                bar.set_postfix(reading=f"{reading.item():.2f}", spelling=f"{spelling.item():.2f}")
            if (step + 1) % arguments.save == 0 or step + 1 == arguments.steps:
                save_state(state, model, optimizer, step + 1)
                write_checkpoint(arguments.out / "checkpoint", config, connector)
                error = validate(connector, validation, tokenizer)
                log.write(json.dumps({"step": step + 1, "validation_wer": round(error, 4)}) + "\n")
                log.flush()
                tqdm.write(f"step {step + 1}: word error rate {error:.3f} on {len(validation)} unseen sentences")


if __name__ == "__main__":
    main()
