"""Many channels -> one, as they come: what all microphones heard, even when one is wired the wrong way round."""

import numpy as np

REMEMBERED = 0.1  # seconds over which channels are compared
OPPOSED = -0.5  # correlation with the loudest channel below which a channel is taken to be turned over
LOUDER = 4.0  # times the power at which another channel becomes the one that the others are compared with


class Mixer:
    """The mean of all channels of one stream, each turned so that it does not cancel the loudest.

    A reversed plug makes one channel the negative of the other: their plain mean is silence. Which channels are
    turned may change in mid-stream; it changes smoothly, within one call.
    """

    def __init__(self, rate: int) -> None:
        """`rate` in Hz."""
        self._rate = rate
        self._products: np.ndarray | None = None  # [channels, channels], of the last tenth of a second
        self._loudest = 0
        self._signs: np.ndarray | None = None  # [channels]

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Float32 samples [n, channels], the same number of channels in every call -> [n].

        A channel that holds no number somewhere is left out there; where none holds one, the result is NaN.
        """
        if samples.shape[1] == 1 or not len(samples):
            return np.ascontiguousarray(samples[:, 0])
        before, now = self._compare(np.nan_to_num(samples).clip(-1e3, 1e3))
        if (before != now).any():
            samples = samples * np.linspace(before, now, len(samples), dtype=np.float32)
        elif (now < 0).any():
            samples = samples * now
        if np.isfinite(samples).all():
            return samples.mean(axis=1)
        heard = np.isfinite(samples)
        with np.errstate(invalid="ignore"):
            return (np.where(heard, samples, 0).sum(1) / heard.sum(1)).astype(np.float32)

    def _compare(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The sign of every channel [channels] at the beginning and at the end of these samples."""
        products = samples.T @ samples
        if self._products is not None:
            products += np.exp(-len(samples) / (REMEMBERED * self._rate)).astype(np.float32) * self._products
        self._products, power = products, products.diagonal()
        if power.max() > LOUDER * power[self._loudest]:
            self._loudest = int(power.argmax())
        opposed = products[self._loudest] < OPPOSED * np.sqrt(power * power[self._loudest])
        signs = np.where(opposed, -1, 1).astype(np.float32)
        before, self._signs = self._signs if self._signs is not None else signs, signs
        return before, signs
