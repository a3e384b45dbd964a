"""Perturbed encoder output: decided by its generator, still the same speech, and its padding still padding."""

import numpy as np
import torch

from assistant.model.connector import pad_features
from train.data.perturbation import mask, mix_styles, perturb, stretch

WIDTH = 64


def clips() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(length, WIDTH, generator=generator) * (n + 1) + n for n, length in enumerate((400, 200, 100))]


def seeded(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_same_generator_gives_the_same_batch_and_the_original_is_spared() -> None:
    speech = clips()
    (first, lengths), (again, _), (other, _) = (perturb(speech, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)
    assert all(torch.equal(now, before) for now, before in zip(speech, clips(), strict=True))
    assert torch.isfinite(first).all()
    assert first.shape == (3, int(lengths.max()), WIDTH)
    assert not any(row[length:].any() for row, length in zip(first, lengths.tolist(), strict=True))


def test_half_of_the_clips_are_stretched_by_at_most_15_percent_and_keep_their_ends() -> None:
    ramp = torch.linspace(0, 1, 200)[:, None].repeat(1, WIDTH)
    stretched = [stretch(ramp, seeded(seed)) for seed in range(200)]
    assert {len(clip) == 200 for clip in stretched} == {True, False}
    assert 0.35 < np.mean([len(clip) != 200 for clip in stretched]) < 0.65
    assert all(170 <= len(clip) <= 230 for clip in stretched)
    for clip in stretched:
        assert (clip[1:] >= clip[:-1]).all()
        torch.testing.assert_close(clip[[0, -1]], ramp[[0, -1]], atol=0.01, rtol=0)
    assert len(stretch(ramp[:1], seeded(3))) == 1


def test_a_mixed_clip_has_a_mean_and_deviation_between_two_and_says_the_same() -> None:
    features, lengths = pad_features(clips())
    before = [row[:length] for row, length in zip(features, lengths.tolist(), strict=True)]
    lowest, highest = torch.stack([clip.std(0) for clip in before]).aminmax(dim=0)
    changed = 0
    for seed in range(20):
        mixed = mix_styles(features, lengths, seeded(seed))
        changed += not torch.equal(mixed, features)
        for row, length, clip in zip(mixed, lengths.tolist(), before, strict=True):
            assert not row[length:].any()
            assert (row[:length].std(0) > lowest * 0.95).all()
            assert (row[:length].std(0) < highest * 1.05).all()
            standard, was = ((part - part.mean(0)) / part.std(0) for part in (row[:length], clip))
            torch.testing.assert_close(standard, was, atol=1e-3, rtol=1e-3)
    assert 3 < changed < 17


def test_masking_hides_a_small_part() -> None:
    features, lengths = torch.ones(3, 400, WIDTH), torch.tensor([400, 200, 100])
    masked = mask(features, lengths, seeded(1))
    assert features.all()
    assert 0.05 < (masked == 0).float().mean() < 0.45
