"""From the files that weights are published in to safetensors: CTranslate2 (Whisper) and GGUF (LLMs)."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm import tqdm


class WeightsError(RuntimeError):
    """Model files are missing, damaged or cannot be stored; the message says what to do."""


def _convert_ctranslate2(source: Path, target: Path) -> None:
    variables = dict(tqdm(read_ctranslate2(source), desc="Converting Whisper", unit=" tensors"))
    save_file(dict(rename_whisper(variables)), target / "model.safetensors")


def read_ctranslate2(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, tensor) from a CTranslate2 `model.bin`, version 6, float32 or float16 variables only.

    Raises
    ------
    WeightsError
        The file is not of that format.
    """
    with path.open("rb") as file:

        def number(code: str) -> int:
            return struct.unpack(f"<{code}", file.read(struct.calcsize(code)))[0]

        def text() -> str:
            return file.read(number("H")).rstrip(b"\0").decode("utf-8")

        try:
            version, specification = number("I"), text()
            if version != 6 or specification != "WhisperSpec":
                raise WeightsError(f"{path} is a CTranslate2 version {version} {specification!r}, not a Whisper model.")
            number("I")  # revision of the specification
            for _ in range(number("I")):
                name = text()
                shape = [number("I") for _ in range(number("B"))]
                kind, size = number("B"), number("I")
                data = file.read(size)
                if kind in (0, 4):  # float32, float16; the others are scalar flags
                    dtype = np.float32 if kind == 0 else np.float16
                    yield name, torch.from_numpy(np.frombuffer(data, dtype).reshape(shape).copy())
        except (struct.error, UnicodeDecodeError, ValueError) as error:
            raise WeightsError(f"{path} is not a CTranslate2 model: {error}") from error


_WHISPER_NAMES = {
    "self_attention/linear_1": "attn.out",
    "self_attention/layer_norm": "attn_ln",
    "attention/linear_0": "cross_attn.query",
    "attention/linear_2": "cross_attn.out",
    "attention/layer_norm": "cross_attn_ln",
    "ffn/linear_0": "mlp.0",
    "ffn/linear_1": "mlp.2",
    "ffn/layer_norm": "mlp_ln",
}
_WHISPER_FUSED = {  # rows stand one after the other, in this order; the key has no bias in Whisper
    "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
    "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
}
_WHISPER_TOP = {
    "encoder/conv1/weight": "encoder.conv1.weight",
    "encoder/conv1/bias": "encoder.conv1.bias",
    "encoder/conv2/weight": "encoder.conv2.weight",
    "encoder/conv2/bias": "encoder.conv2.bias",
    "encoder/position_encodings/encodings": "encoder.positional_embedding",
    "encoder/layer_norm/gamma": "encoder.ln_post.weight",
    "encoder/layer_norm/beta": "encoder.ln_post.bias",
    "decoder/embeddings/weight": "decoder.token_embedding.weight",
    "decoder/position_encodings/encodings": "decoder.positional_embedding",
    "decoder/layer_norm/gamma": "decoder.ln.weight",
    "decoder/layer_norm/beta": "decoder.ln.bias",
}
_SUFFIX = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def rename_whisper(variables: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """CTranslate2 variables under the parameter names of `openai-whisper`'s `Whisper` module."""
    for name, value in variables.items():
        if name in _WHISPER_TOP:
            yield _WHISPER_TOP[name], value
            continue
        side, layer, rest = name.split("/", 2)
        part, kind = rest.rsplit("/", 1)
        prefix = f"{side}.blocks.{layer.removeprefix('layer_')}"
        if part in _WHISPER_FUSED:
            names = _WHISPER_FUSED[part]
            for target, rows in zip(names, value.chunk(len(names)), strict=True):
                if not (kind == "bias" and target.endswith("key")):
                    yield f"{prefix}.{target}.{_SUFFIX[kind]}", rows.clone()
        else:
            yield f"{prefix}.{_WHISPER_NAMES[part]}.{_SUFFIX[kind]}", value


def _convert_gguf(source: Path, target: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # float16 holds a 4-bit quantised weight more exactly than bfloat16 does.
    where, file = str(source.parent), source.name
    AutoTokenizer.from_pretrained(where, gguf_file=file).save_pretrained(target)
    model = AutoModelForCausalLM.from_pretrained(
        where, gguf_file=file, dtype=torch.float16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)


CONVERTERS: dict[str, Callable[[Path, Path], None]] = {"ctranslate2": _convert_ctranslate2, "gguf": _convert_gguf}
