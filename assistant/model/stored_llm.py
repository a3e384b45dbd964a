"""An LLM as a CPU computes with it, int8 already, in a folder: loading it is reading it."""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from assistant.files import cache_directory
from assistant.model.decoder import known, lean
from assistant.model.quantisation import HalfEmbedding, Int8Linear, quantise, replace_linears
from assistant.model.weights import kept, llm_source, registry

FILE = "int8.safetensors"


def prepared(name: str) -> Path | str:
    """What to load an LLM in int8 from: for those of `models.toml` a folder that is filled at first use.

    Raises
    ------
    WeightsError
        See `locate`.
    """
    if name not in registry():
        return name
    target = cache_directory() / f"{name}-{registry()[name].sha256[:16]}-int8"
    if not target.exists() and not known(AutoConfig.from_pretrained(llm_source(name))):
        return llm_source(name)

    def make(folder: Path) -> None:
        source = llm_source(name)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float16, use_safetensors=True)
        lean(model)
        quantise(model)
        write(model, AutoTokenizer.from_pretrained(source), folder)

    return kept(target, make)


def holds(source: Path | str) -> bool:
    """Whether a folder is one that `write` filled."""
    return (Path(source) / FILE).is_file()


def write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Store a quantised LLM with a lean decoder, without LoRA, in an empty folder."""
    tensors = {name: value.half() for name, value in model.state_dict().items()}
    for path, module in model.named_modules():
        if isinstance(module, Int8Linear):
            tensors |= {f"{path}.{name}": value for name, value in module.stored().items()}
        elif isinstance(module, HalfEmbedding):
            tensors[f"{path}.weight"] = module.weight
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / FILE)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def outline(folder: Path) -> PreTrainedModel:
    """The LLM that a folder holds, without any of its numbers."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def fill(model: PreTrainedModel, folder: Path) -> None:
    """Give an outline with a lean decoder what `write` stored; LoRA in it gets memory, and no numbers yet."""
    path = folder / FILE

    def read(name: str) -> Tensor:
        # Opened for each tensor, so that what has been packed is no longer mapped: else all would be there twice.
        with safe_open(path, "pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor

    with safe_open(path, "pt") as file:
        names = set(file.keys())

    def stored(name: str, linear: nn.Linear) -> nn.Module:
        name = name.removesuffix(".base_layer")  # as peft calls what it puts LoRA beside
        bias = read(f"{name}.bias") if linear.bias is not None else None
        return Int8Linear(read(f"{name}.int8"), read(f"{name}.scales"), bias)

    replace_linears(model, stored)
    embeddings = [name for name in names if name.endswith("embed_tokens.weight")]
    model.set_input_embeddings(HalfEmbedding(read(*embeddings)))
    state = {name: read(name).float() for name in model.state_dict() if name in names}
    model.load_state_dict(state, strict=False, assign=True)
    for module in model.modules():
        if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
            module.to_empty(device="cpu", recurse=False)
    model.float()
