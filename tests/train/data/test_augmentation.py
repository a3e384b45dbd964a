"""Augmentation: the seed decides it, noise is as loud as asked, nothing becomes infinite or changes its length."""

import numpy as np
import pytest

from assistant.sound.audio import SAMPLE_RATE
from train.data.augmentation import add_noise, augment, change_speed, reverberate


@pytest.fixture
def speech() -> np.ndarray:
    """Two seconds that rise and fall like syllables."""
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    voiced = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 20))
    return (0.2 * voiced * np.abs(np.sin(2 * np.pi * 2 * time))).astype(np.float32)


def pitch(samples: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * SAMPLE_RATE / len(samples))


@pytest.mark.parametrize("seed", range(5))
def test_the_same_seed_gives_the_same_samples(speech: np.ndarray, seed: int) -> None:
    first, again = (augment(speech, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_seeds_differ(speech: np.ndarray) -> None:
    results = {augment(speech, np.random.default_rng(seed)).tobytes() for seed in range(20)}
    assert len(results) == 20


def test_augmented_speech_is_finite_audible_and_not_clipped(speech: np.ndarray) -> None:
    original = speech.copy()
    for seed in range(60):
        samples = augment(speech, np.random.default_rng(seed))
        assert samples.dtype == np.float32
        assert np.isfinite(samples).all()
        assert 0.0999 <= np.abs(samples).max() <= 1.0001
        assert len(speech) / 1.11 < len(samples) < len(speech) / 0.89
    np.testing.assert_array_equal(speech, original)


def test_silence_stays_finite() -> None:
    for seed in range(20):
        assert np.isfinite(augment(np.zeros(SAMPLE_RATE, np.float32), np.random.default_rng(seed))).all()


@pytest.mark.parametrize("decibels", [0.0, 8.0, 20.0, 30.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_noise_has_the_ratio_asked_for(speech: np.ndarray, decibels: float, seed: int) -> None:
    noisy = add_noise(speech, decibels, np.random.default_rng(seed))
    noise = noisy.astype(np.float64) - speech
    assert 10 * np.log10((speech**2).mean() / (noise**2).mean()) == pytest.approx(decibels, abs=1)


@pytest.mark.parametrize("samples", [SAMPLE_RATE, SAMPLE_RATE + 1, 4801])
def test_noise_and_reverberation_keep_the_length(speech: np.ndarray, samples: int) -> None:
    rng = np.random.default_rng(1)
    for result in (add_noise(speech[:samples], 20, rng), reverberate(speech[:samples], rng)):
        assert result.shape == (samples,)
        assert result.dtype == np.float32
        assert np.isfinite(result).all()


def test_reverberation_follows_the_direct_sound() -> None:
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[1000] = 1
    wet = reverberate(click, np.random.default_rng(1))
    assert np.abs(wet[:1000]).max() < 1e-4  # nothing is heard before its cause
    assert wet[1000] == pytest.approx(1, abs=1e-4)
    assert 0.005 < (wet[1001:] ** 2).sum() < 0.5
    assert (wet[1001:2000] ** 2).sum() > 10 * (wet[9001:] ** 2).sum()


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_speed_changes_length_and_pitch(speech: np.ndarray, factor: float) -> None:
    changed = change_speed(speech, factor)
    assert len(changed) == pytest.approx(len(speech) / factor, abs=2)
    assert pitch(changed) == pytest.approx(pitch(speech) * factor, rel=0.01)
