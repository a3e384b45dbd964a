"""Whisper: its weights in memory once, and its encoder run on the real length of an utterance, never padded to 30 s."""

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch.nn import functional
from whisper.model import AudioEncoder, ModelDimensions, Whisper

from assistant.latency import StageClock
from assistant.model.weights import WeightsError, locate
from assistant.sound.audio import SAMPLE_RATE, log_mel

FRAMES_PER_SECOND = 50  # encoder output
SEGMENT = 30 * SAMPLE_RATE  # samples; the encoder has positions for 30 s
SEARCH = 5 * SAMPLE_RATE  # samples before a segment's end in which the quietest point is looked for


def load_whisper(name: str, device: str | torch.device = "cpu") -> Whisper:
    """Whisper with frozen float32 weights, by its name in `models.toml`, any size on the hub, or a converted folder."""
    return whisper_from_folder(_folder(name), device)


def whisper_embeddings(name: str) -> torch.Tensor:
    """Whisper's embeddings of its tokens [tokens, width], float32, and nothing else of it; `name` as above."""
    folder = _folder(name)
    try:
        with safe_open(folder / "model.safetensors", "pt") as file:
            embeddings: torch.Tensor = file.get_tensor("decoder.token_embedding.weight")
            return embeddings.float()
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{folder} does not hold a Whisper model: {error}") from error


def _folder(name: str) -> Path:
    return Path(name) if Path(name).is_dir() else locate(name)


def whisper_from_folder(folder: Path, device: str | torch.device = "cpu") -> Whisper:
    """Whisper from a converted folder; its dimensions are read off the tensors."""
    state = load_file(folder / "model.safetensors")
    try:
        mels, width = state["encoder.conv1.weight"].shape[1], state["encoder.conv1.weight"].shape[0]
        audio_layers, text_layers = (
            1 + max(int(name.split(".")[2]) for name in state if name.startswith(f"{side}.blocks."))
            for side in ("encoder", "decoder")
        )
        vocabulary, text_width = state["decoder.token_embedding.weight"].shape
        dimensions = ModelDimensions(
            n_mels=mels,
            n_audio_ctx=state["encoder.positional_embedding"].shape[0],
            n_audio_state=width,
            n_audio_head=width // 64,  # every Whisper size has heads of width 64
            n_audio_layer=audio_layers,
            n_vocab=vocabulary,
            n_text_ctx=state["decoder.positional_embedding"].shape[0],
            n_text_state=text_width,
            n_text_head=text_width // 64,
            n_text_layer=text_layers,
        )
        model = Whisper(dimensions)
        model.load_state_dict({name: value.float() for name, value in state.items()})
    except (KeyError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{folder} does not hold a Whisper model: {error}") from error
    return model.to(device).eval().requires_grad_(False)


def split_segments(samples: np.ndarray) -> list[np.ndarray]:
    """Cut samples [n] into pieces of at most 30 s, each at the quietest 20 ms of its last 5 s: no word is cut."""
    pieces = []
    while len(samples) > SEGMENT:
        step = SAMPLE_RATE // 50
        tail = samples[SEGMENT - SEARCH : SEGMENT].reshape(-1, step)
        cut = SEGMENT - SEARCH + step * int((tail**2).mean(axis=1).argmin()) + step // 2
        pieces.append(samples[:cut])
        samples = samples[cut:]
    return [*pieces, samples]


def speech_mels(samples: np.ndarray, mels: int) -> list[torch.Tensor]:
    """Log-mel spectrograms [mels, frames], one for each segment of at most 30 s."""
    return [log_mel(piece, mels) for piece in split_segments(samples)]


@torch.inference_mode()
def encode(whisper: Whisper, samples: np.ndarray, clock: StageClock | None = None) -> torch.Tensor:
    """Samples float32 [n] at 16 kHz -> encoder output [T, width], 50 frames a second; times `features` and `encode`.

    The positional embedding is cut to the real length. Clips are not batched: an utterance's features depend on
    nothing but itself.
    """
    clock = clock or StageClock(whisper.device)
    with clock.stage("features"):
        mels = speech_mels(samples, whisper.dims.n_mels)
    with clock.stage("encode"):
        encoder = whisper.encoder
        weight = encoder.conv1.weight
        return torch.cat([_encode_segment(encoder, mel.to(weight.device, weight.dtype)) for mel in mels])


def _encode_segment(encoder: AudioEncoder, mel: torch.Tensor) -> torch.Tensor:
    x = functional.gelu(encoder.conv1(mel[None]))
    x = functional.gelu(encoder.conv2(x)).permute(0, 2, 1)  # [1, T, width]
    x = x + encoder.positional_embedding[: x.shape[1]]
    for block in encoder.blocks:
        x = block(x)
    return encoder.ln_post(x)[0]
