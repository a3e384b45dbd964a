"""A checkpoint from before checkpoints knew no LLM, in the form of today: what it reads stays what it was.

    python -m train.stages.conversion runs/adaptation/checkpoint --out runs/converted

Such a checkpoint holds what its LLM's tokenizer makes of every word, and a row for each. Here the words are written as
text, and the rows are left out, once it is seen that they are Whisper's own.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer

from assistant.model.checkpoint import TUNED_LLM, CheckpointConfig, CheckpointError, read_lora, write_checkpoint
from assistant.model.connector import ConnectorConfig
from assistant.model.speech_encoder import whisper_embeddings
from assistant.model.spelling import PADDING, word_rows
from assistant.model.weights import llm_source
from train.command_line import command_line, told

HEAD = ("blank.weight", "blank.bias", "residual.weight")  # of a head that reads words, by their names of then


def convert(folder: Path, out: Path) -> None:
    """Write the checkpoint of `folder` to `out`, with all that is tied to its LLM.

    Raises
    ------
    CheckpointError
        It is of another form or damaged, or its rows are not those that Whisper has for its words.
    """
    try:
        entries: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        shape: dict[str, Any] = entries["connector"]
        if "words" not in shape:
            raise CheckpointError(f"{folder} has the form of today already.")
        connector = ConnectorConfig(**{name: value for name, value in shape.items() if name != "words"})
        state = load_file(folder / "connector.safetensors")
        words: tuple[str, ...] = ()
        if connector.reads:
            state, words = _without_words(state, entries["whisper"], entries["llm"])
        else:
            state = {name.replace("head.", "head.matrix."): value for name, value in state.items()}
        config = CheckpointConfig.of(connector, entries["whisper"], entries["llm"], entries["lora"])
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be converted: {error}") from error
    lora = read_lora(folder, config)
    write_checkpoint(out, config, state, words, lora[1] if lora else None)
    if (folder / TUNED_LLM).is_dir():
        shutil.copytree(folder / TUNED_LLM, out / TUNED_LLM, dirs_exist_ok=True)


def _without_words(state: dict[str, Tensor], whisper: str, llm: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """What was learnt, and the words: as the LLM's tokenizer reads what it made of them."""
    tokenizer = AutoTokenizer.from_pretrained(llm_source(llm))
    spellings = [[token for token in row if token != PADDING] for row in state.pop("spellings").tolist()]
    words = tuple(map(str, tokenizer.batch_decode(spellings)))
    if tokenizer(list(words), add_special_tokens=False).input_ids != spellings or len(set(words)) < len(words):
        raise ValueError(f"not every word can be told from what the tokenizer of {llm} made of it")
    rows, scales = state.pop("head.weight").float(), state.pop("head.scales").float()[:, None]
    off = (rows * scales - word_rows(whisper_embeddings(whisper), words)).abs()
    if (off > 0.51 * scales).any() or state.pop("head.bias").any():  # a byte each: at most half a step off
        raise ValueError(f"the rows of its words are not those of {whisper}")
    return {f"head.{name}" if name in HEAD else name: value for name, value in state.items()}, words


def main() -> None:
    """Command line; see the top of the file."""
    parser = command_line(__doc__)
    parser.add_argument("checkpoint", type=Path)
    arguments = parser.parse_args()
    with told():
        convert(arguments.checkpoint, arguments.out)


if __name__ == "__main__":
    main()
