"""A figure with its 95 % interval, by the percentile bootstrap over clips (Efron 1979; for BLEU, Koehn 2004)."""

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 1000
SEED = 1


def ratio(sums: np.ndarray) -> float:
    """Sums [numerator, denominator] -> their quotient; not a number when there is nothing to divide by."""
    return float(sums[0] / sums[1]) if sums[1] else float("nan")


def ratio_of_ratios(sums: np.ndarray) -> float:
    """Sums [numerator, denominator] of one system and then of another, on the same clips -> one over the other."""
    return ratio(np.array([ratio(sums[:2]), ratio(sums[2:])]))


def interval(
    statistics: Sequence[Sequence[float]], combine: Callable[[np.ndarray], float] = ratio
) -> tuple[float, float, float]:
    """A figure and the ends of its interval; the same statistics always give the same three numbers.

    Parameters
    ----------
    statistics: [clips, k], what each clip adds to the sums that the figure is made of.
    combine: sums [k] -> the figure.
    """
    table = np.asarray(statistics, dtype=float)
    counts = np.random.default_rng(SEED).multinomial(len(table), np.full(len(table), 1 / len(table)), RESAMPLES)
    resampled = np.array([combine(sums) for sums in counts @ table])
    resampled = resampled[~np.isnan(resampled)]
    value = combine(table.sum(0))
    if not len(resampled):
        return value, float("nan"), float("nan")
    low, high = np.percentile(resampled, [2.5, 97.5])
    return value, float(low), float(high)
