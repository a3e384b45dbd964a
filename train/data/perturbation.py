"""What is done at random to cached encoder output, so that a connector learns words and not the voices that said them.

`augmentation.py` changes sound before the frozen encoder; this costs next to nothing and is drawn anew at every step.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from assistant.model.connector import pad_features


def perturb(clips: list[Tensor], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Encoder output of several clips [T_i, width] -> a perturbed, padded batch [B, T, width] and its lengths [B]."""
    features, lengths = pad_features([stretch(clip, rng) for clip in clips])
    return mask(mix_styles(features, lengths, rng), lengths, rng), lengths


def stretch(clip: Tensor, rng: np.random.Generator) -> Tensor:
    """Half of the clips [T, width] spoken up to 15 % slower or faster, by linear interpolation."""
    if rng.random() < 0.5:
        return clip
    length = max(1, round(len(clip) * rng.uniform(0.85, 1.15)))
    return functional.interpolate(clip.T[None], size=length, mode="linear")[0].T


def mix_styles(features: Tensor, lengths: Tensor, rng: np.random.Generator) -> Tensor:
    """MixStyle (arXiv 2104.02008) on every second batch [B, T, width]: each clip gets another's voice, in part.

    A clip's mean and deviation in each channel over its time say more about voice and room than about words; they are
    mixed with those of another clip of the batch in a random proportion. Padding stays zero.
    """
    if rng.random() < 0.5:
        return features
    real = (torch.arange(features.shape[1]) < lengths[:, None])[..., None]  # [B, T, 1]
    count = lengths[:, None, None]
    mean = features.sum(1, keepdim=True) / count  # padding is zero
    deviation = (((features - mean) * real).square().sum(1, keepdim=True) / count + 1e-6).sqrt()
    other = torch.from_numpy(rng.permutation(len(features)))
    share = torch.from_numpy(rng.beta(0.3, 0.3, (len(features), 1, 1))).to(features.dtype)
    mixed_mean = share * mean + (1 - share) * mean[other]
    mixed_deviation = share * deviation + (1 - share) * deviation[other]
    return ((features - mean) / deviation * mixed_deviation + mixed_mean) * real


def mask(features: Tensor, lengths: Tensor, rng: np.random.Generator) -> Tensor:
    """SpecAugment (arXiv 1904.08779) on [B, T, width]: up to 0.4 s of each 1.5 s, and a tenth of the channels."""
    features = features.clone()
    for row, length in enumerate(lengths.tolist()):
        for _ in range(1 + length // 75):
            size = int(rng.integers(0, 21))
            start = int(rng.integers(0, max(1, length - size)))
            features[row, start : start + size] = 0
    keep = torch.from_numpy(rng.random((len(features), 1, features.shape[2])) > 0.1)
    return features * keep
