"""GloVe: vectors whose products are the logarithms of co-occurrence counts (Pennington et al., 2014).

Minimised is the weighted square error over all pairs that occur,

    J = Σ f(X_ij) (w_i · c_j + b_i + d_j - log X_ij)²,      f(x) = min(1, (x / x_max)^0.75),

by AdaGrad; X is symmetric, and the vectors that are kept are w + c.

The original takes one entry after another. Here the vocabulary, which is in order of frequency, is cut into ranges of
`TILE` words, and the entries of two ranges are one *tile* of the matrix. Where a tile is well filled - among frequent
words, where most of the text is - its products are one matrix product, and its step goes to two slices of the vectors
without any fetching of rows. The entries of tiles that are nearly empty are taken `LOOSE` at a time, by rows. AdaGrad's
sums get the square of every entry's gradient, as in the original (a second product), not the square of the tile's, with
which steps are shorter: on 20,000 words of text the loss after 12 epochs was 0.32 instead of 0.07; on 5 million it made
no difference worth the name. Tiles and loose entries come in random order, and each
entry of the upper triangle is taken both ways round.

Measured on 5 million words (6.7 million entries, 5 epochs, CPU seconds and mean loss): tiles of 128: 29 s, 0.094; of
64: 30 s, 0.086; of 32: 40 s, 0.079; all entries by rows: 98 s, 0.075. Smaller tiles are more steps.

    most frequent words →
      ■■■▦▦▒░░      ■ ▦  tiles: one product          benchmarks/vectors.py has the time,
       ■▦▦▒░··      ▒ ░ ·  loose entries: by rows    tests/vectors that both ways are one gradient
        ▦▒░···
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import ConfigError, DataError, TrainingError, raise_all
from inkstone.vectors.cooccurrence import Cooccurrences
from inkstone.vectors.parallel import DONE, run_workers, shared_arrays
from inkstone.vectors.rows import MOST_DIMENSIONS, Float, add_rows

TILE = 64  # words to a side
LOOSE = 4096  # entries
_FILLED = 0.04  # of a tile's cells, from which the product costs less than rows
_POWER = 0.75  # of the weight (the paper's alpha)
_FIRST_SQUARES = 1.0  # AdaGrad's sums begin here, as in GloVe's own program


@dataclass(frozen=True, slots=True)
class Glove:
    """How to train. x_max: the count from which a pair has full weight: 100 in the paper, for billions of words; 10 in
    GloVe's own demonstration, on 17 million."""

    dimensions: int = 100
    window: int = 10
    x_max: float = 10.0
    epochs: int = 25
    learning_rate: float = 0.05
    seed: int = 1

    def check(self) -> None:
        """Raise ConfigError listing every value that cannot be."""
        problems = [
            f"{name}={getattr(self, name)} is below 1"
            for name in ("dimensions", "window", "epochs")
            if getattr(self, name) < 1
        ]
        if self.dimensions > MOST_DIMENSIONS:
            problems.append(f"dimensions={self.dimensions} is above {MOST_DIMENSIONS:,}")
        if self.window > 100:
            problems.append(f"window={self.window} is above 100 words to each side")
        if not self.x_max > 0:
            problems.append(f"x_max={self.x_max} is not above 0")
        if not 0 < self.learning_rate <= 1:
            problems.append(f"learning_rate={self.learning_rate} is not above 0 and at most 1")
        if self.seed < 0:
            problems.append(f"seed={self.seed} is below 0")
        raise_all(ConfigError, "GloVe", problems)


def train_glove(
    counts: Cooccurrences,
    settings: Glove,
    *,
    workers: int = 1,
    advance: Callable[[int], None] | None = None,
) -> tuple[Float, list[float]]:
    """The vectors (V x D), and the mean weighted square error in each epoch; `advance` is told how many entries were
    gone through. The same seed and one worker give the same vectors.
    """
    settings.check()
    if len(counts) == 0:
        raise DataError(
            "no two words stand near each other in this corpus. Give longer lines, or a wider --window."
        )
    arrays = {**initial(counts.size, settings), **arranged(counts, settings.x_max)}
    arrays["loss"] = np.zeros((workers if workers > 0 else 1, settings.epochs))
    with shared_arrays(arrays) as shared:
        run_workers(train_share, shared, settings, workers, advance)
        learned_VD = shared.arrays["rows"][:, :-2] + shared.arrays["columns"][:, :-2]
        losses = (np.array(shared.arrays["loss"]).sum(axis=0) / (2 * len(counts))).tolist()
    if not np.isfinite(learned_VD).all():
        raise TrainingError("the vectors grew beyond all bounds. Train again with a lower --learning-rate.")
    return learned_VD, losses


def initial(size: int, settings: Glove) -> dict[str, NDArray[Any]]:
    """Vectors with their biases, and AdaGrad's sums (all V x D+2).

    A row ends with its bias and a one, a column with a one and its bias, so that the biases are part of the product.
    The ones have endless sums of squares, so they never change.
    """
    rng = np.random.default_rng((settings.seed, 0))
    shape = (size, settings.dimensions + 2)
    arrays: dict[str, NDArray[Any]] = {}
    for name, one in (("rows", -1), ("columns", -2)):
        values = (rng.random(shape, np.float32) - np.float32(0.5)) / np.float32(settings.dimensions)
        squares = np.full(shape, _FIRST_SQUARES, np.float32)
        values[:, one], squares[:, one] = 1, np.inf
        arrays[name], arrays[f"{name}_squares"] = values, squares
    return arrays


def arranged(counts: Cooccurrences, x_max: float) -> dict[str, NDArray[Any]]:
    """The entries in order of their work: those of each filled tile together, then the loose ones.

    work_K2: where each tile, or lot of loose entries, begins and ends; tiles: how many of them are tiles.
    """
    across = -(-counts.size // TILE)
    tile_E = (counts.rows_E // TILE).astype(np.int64) * across + counts.columns_E // TILE
    filled_T = np.bincount(tile_E, minlength=across * across) >= _FILLED * TILE * TILE
    loose_E = ~filled_T[tile_E]
    rng = np.random.default_rng(0)
    order_E = np.lexsort((rng.random(len(tile_E), np.float32), np.where(loose_E, across * across, tile_E)))
    starts_T = np.flatnonzero(np.diff(tile_E[order_E][~loose_E[order_E]], prepend=-1))
    loose_from = int((~loose_E).sum())
    starts = [*starts_T.tolist(), *range(loose_from, len(counts), LOOSE)]
    values_E = counts.values_E[order_E]
    return {
        "entry_rows": counts.rows_E[order_E],
        "entry_columns": counts.columns_E[order_E],
        "entry_logs": np.log(values_E),
        "entry_weights": np.minimum(1, (values_E / x_max) ** _POWER).astype(np.float32),
        "work": np.stack([starts, [*starts[1:], len(counts)]], axis=1).astype(np.int64),
        "tiles": np.array([len(starts_T)]),
    }


def train_share(arrays: Mapping[str, NDArray[Any]], settings: Glove, worker: int, workers: int) -> None:
    """What one worker does: its share of the tiles and of the loose entries of every epoch, in random order."""
    for epoch in range(settings.epochs):
        order = np.random.default_rng((settings.seed, 1, epoch)).permutation(len(arrays["work"]))[
            worker::workers
        ]
        loss = 0.0
        for number in order.tolist():
            start, end = arrays["work"][number].tolist()
            learn = learn_tile if number < arrays["tiles"][0] else learn_loose
            loss += learn(arrays, slice(start, end), settings.learning_rate)
            arrays[DONE][worker] += end - start
        arrays["loss"][worker, epoch] = loss


def learn_tile(arrays: Mapping[str, NDArray[Any]], entries: slice, rate: float) -> float:
    """Two steps over one filled tile: as it stands, and the other way round. Returns the weighted square error."""
    rows_E, columns_E = arrays["entry_rows"][entries], arrays["entry_columns"][entries]
    top, left = int(rows_E[0]) // TILE * TILE, int(columns_E[0]) // TILE * TILE
    weights_IJ, logs_IJ = np.zeros((2, TILE, TILE), np.float32)
    weights_IJ[rows_E - top, columns_E - left] = arrays["entry_weights"][entries]
    logs_IJ[rows_E - top, columns_E - left] = arrays["entry_logs"][entries]
    if top == left:  # the diagonal is its own other way round
        np.maximum(weights_IJ, weights_IJ.T, out=weights_IJ)
        logs_IJ += np.triu(logs_IJ, 1).T
        return _step_tile(arrays, top, left, weights_IJ, logs_IJ, rate)
    loss = _step_tile(arrays, top, left, weights_IJ, logs_IJ, rate)
    return loss + _step_tile(arrays, left, top, weights_IJ.T, logs_IJ.T, rate)


def _step_tile(
    arrays: Mapping[str, NDArray[Any]], top: int, left: int, weights_IJ: Float, logs_IJ: Float, rate: float
) -> float:
    height, width = slice(top, top + TILE), slice(left, left + TILE)
    rows_ID, columns_JD = arrays["rows"][height], arrays["columns"][width]
    errors_IJ, weights_IJ = product_errors(rows_ID, columns_JD, weights_IJ, logs_IJ)
    loss = float(np.vdot(errors_IJ, weights_IJ * errors_IJ))
    errors_IJ *= weights_IJ
    squares_IJ = errors_IJ * errors_IJ
    down_rows_ID, down_columns_JD = errors_IJ @ columns_JD, errors_IJ.T @ rows_ID
    rows_squares_ID, columns_squares_JD = arrays["rows_squares"][height], arrays["columns_squares"][width]
    rows_squares_ID += squares_IJ @ (columns_JD * columns_JD)
    columns_squares_JD += squares_IJ.T @ (rows_ID * rows_ID)
    rows_ID -= np.float32(rate) * down_rows_ID / np.sqrt(rows_squares_ID)
    columns_JD -= np.float32(rate) * down_columns_JD / np.sqrt(columns_squares_JD)
    return loss


def product_errors(
    rows_ID: Float, columns_JD: Float, weights_IJ: Float, logs_IJ: Float
) -> tuple[Float, Float]:
    """w · c + biases - log X for a tile, and its weights, both cut to the words that there are."""
    errors_IJ = rows_ID @ columns_JD.T
    height, width = errors_IJ.shape
    errors_IJ -= logs_IJ[:height, :width]
    return errors_IJ, weights_IJ[:height, :width]


def learn_loose(arrays: Mapping[str, NDArray[Any]], entries: slice, rate: float) -> float:
    """One step over entries by rows, both ways round. Returns the weighted square error."""
    one_E, other_E = arrays["entry_rows"][entries], arrays["entry_columns"][entries]
    weights_E, logs_E = arrays["entry_weights"][entries], arrays["entry_logs"][entries]
    loss = 0.0
    apart_E = one_E != other_E
    for rows_E, columns_E, chosen in ((one_E, other_E, slice(None)), (other_E, one_E, apart_E)):
        loss += _step_loose(
            arrays, rows_E[chosen], columns_E[chosen], weights_E[chosen], logs_E[chosen], rate
        )
    return loss


def _step_loose(
    arrays: Mapping[str, NDArray[Any]],
    rows_E: Any,
    columns_E: Any,
    weights_E: Float,
    logs_E: Float,
    rate: float,
) -> float:
    rows_ED, columns_ED = arrays["rows"][rows_E], arrays["columns"][columns_E]
    errors_E: Float = np.einsum("ed,ed->e", rows_ED, columns_ED) - logs_E
    loss = float(np.vdot(errors_E, weights_E * errors_E))
    errors_E *= weights_E
    for name, numbers_E, down_ED in (
        ("rows", rows_E, errors_E[:, None] * columns_ED),
        ("columns", columns_E, errors_E[:, None] * rows_ED),
    ):
        squares = arrays[f"{name}_squares"]
        add_rows(squares, numbers_E, down_ED * down_ED)
        add_rows(arrays[name], numbers_E, np.float32(-rate) * down_ED / np.sqrt(squares[numbers_E]))
    return loss
