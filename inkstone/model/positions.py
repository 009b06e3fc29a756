"""The fixed position table, in numpy: the model adds it while training, and exports write it into their files."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def sinusoids(length: int, size: int) -> npt.NDArray[np.float32]:
    """Sines and cosines of the positions at rates 10000^(-2i/D) (Vaswani et al., 2017): (T, D).

    Sines fill the first half and cosines the second, as in Marian's checkpoints; the paper interleaves them, which is
    the same model with the features in another order.
    """
    rates = 10_000.0 ** (-2.0 * np.arange(size // 2) / size)
    angles = np.arange(length)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
