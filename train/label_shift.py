"""A head that expects words as often as English says them, not as often as its training speech happens to.

    python -m train.label_shift runs/average runs/features/* --out runs/shifted

Commands and drills make `please` and `account` far too likely, and rare words hardly ever win. The remedy for such a
shift of labels is to correct the logits by the log ratio of the two frequencies (logit adjustment, arXiv 2007.07314).
It goes into the bias of the vocabulary head, so that reading costs what it did. Pieces of words stay as they are.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from wordfreq import word_frequency

from assistant.checkpoint import CheckpointError, read_config, read_connector, write_checkpoint
from assistant.connector import QFormerConnector
from assistant.weights import llm_source
from train.ctc import Labeller
from train.features import FeatureCache

STRENGTH = 0.4  # of the whole ratio; chosen on dev sets. CTC learns less of the prior than a classifier
MOST = 4.0  # nats; beyond it the counts are chance
UNSEEN = 3  # added to every count


def log_ratios(tokenizer: PreTrainedTokenizerBase, token_ids: list[int], texts: Sequence[str]) -> Tensor:
    """For each token [n] the log of how much more often English says it than `texts` do; mean 0 over the words.

    Tokens that do not begin a word are 0, as nobody counts how often English says those.
    """
    labeller = Labeller(tokenizer, token_ids)
    counts = Counter(index for text in texts for index in labeller(text))
    said = torch.tensor([counts[index + 1] + UNSEEN for index in range(len(token_ids))])
    names = [str(tokenizer.decode([token])) for token in token_ids]
    english = torch.tensor([word_frequency(name.strip(), "en") if name[:1] == " " else 0 for name in names])
    words = torch.tensor([name[:1] == " " and len(name) > 1 for name in names])
    ratios = english.clamp_min(1e-6).log() - (said / sum(counts.values())).log()
    return torch.where(words, ratios - ratios[words].mean(), 0).clamp(-MOST, MOST)


def main() -> None:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("features", type=Path, nargs="+", help="folders of train.features that it was trained on")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        config = read_config(arguments.checkpoint)
        connector = read_connector(arguments.checkpoint, config)
        if not isinstance(connector, QFormerConnector) or config.connector.projection != "vocabulary":
            raise CheckpointError(f"{arguments.checkpoint} has no vocabulary projection, so no words to expect.")
        texts = [entry["text"] for entry in FeatureCache(arguments.features).entries]
        tokenizer = AutoTokenizer.from_pretrained(llm_source(config.llm))
        connector.head.bias.data += STRENGTH * log_ratios(tokenizer, connector.token_ids.tolist(), texts)
        write_checkpoint(arguments.out, config, connector)
    except (CheckpointError, ValueError, OSError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
