"""Word2Vec: skip-gram and CBOW with negative sampling (Mikolov et al., 2013), as matrix products.

Every word has an input vector w and an output vector c. Where a context word j stands in the window of a centre i,
σ(w_j · c_i) should be 1; for words drawn at random it should be 0. Skip-gram asks each context word alone, CBOW asks
the mean of the window. What is kept are the input vectors.

Word2vec and gensim take one pair after another: two rows are fetched, multiplied, changed, and put back, for every
pair and every negative sample. Here (after Ji et al., 2016, who share negative samples within one window) a *chunk* of
T centres and everything their windows reach, J = T + 2 x window places, is one pair of matrices, and all its pairs are
one product, of which a mask keeps the band of the windows:

              T centres    16 negatives
            ┌ ■■■··········│ n n n n ┐
            │ ■■■■·········│ n n n n │   ■  pair within the (random) reach of its centre, same unit
   J places │ ·■■■■········│ n n n n │   ·  no pair: the product is computed and thrown away
            │ ··■■■■·······│ n n n n │   n  negative sample, shared by the whole chunk
            └ ···■■■■······│ n n n n ┘

Most of the product is thrown away and it is still the faster way, because a row is fetched and put back once in a
chunk instead of once in a pair: the moving of memory is what word2vec's time goes into. The shared negatives weigh as
much as `negatives` separate ones for each pair would, so the expected gradient is the same. `BATCH` chunks make one
step. Measured in benchmarks/vectors.py; T = 16 was best of 12 to 64.

CBOW's gradient is shared out among the words of the window as the mean's derivative says; word2vec.c and gensim leave
out the division (Irsoy et al., 2021, show what that costs), which is why their learning rate is no guide here.

A step's rows are no longer than `LONGEST`: at the usual learning rate one in a thousand reaches it, at twice that rate
it is what keeps the frequent words, of which a step holds many, from running away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from inkstone.ground.errors import ConfigError, TrainingError, not_known, raise_all
from inkstone.vectors.parallel import DONE, run_workers, shared_arrays
from inkstone.vectors.rows import MOST_DIMENSIONS, Float, add_rows, clip_rows
from inkstone.vectors.vocabulary import EncodedCorpus, Ids, Vocabulary

Architecture = Literal["skip-gram", "cbow"]
ARCHITECTURES: tuple[str, ...] = get_args(Architecture)
LEARNING_RATES: dict[str, float] = {"skip-gram": 0.025, "cbow": 0.15}
CENTRES = 16  # T: centres of a chunk
DRAWN = 16  # negatives drawn for a chunk; 8 took a fifth less time and four points of analogy accuracy
BATCH = 32  # N: chunks of a step
LONGEST = 0.5  # of the change of one row in one step
_BLOCK = 1 << 20  # words subsampled at once
_TABLE = 1 << 22  # places in the table of negatives
_POWER = 0.75  # of the counts, for negatives (Mikolov et al., 2013)
_LAST_RATE = 1e-4  # of the first learning rate


@dataclass(frozen=True, slots=True)
class Word2Vec:
    """How to train. subsample: words more frequent than this share are thinned out; 0 keeps all."""

    architecture: Architecture = "skip-gram"
    dimensions: int = 100
    window: int = 5
    negatives: int = 5
    subsample: float = 1e-3
    epochs: int = 5
    learning_rate: float | None = None  # None: LEARNING_RATES of the architecture
    seed: int = 1

    def check(self) -> None:
        """Raise ConfigError listing every value that cannot be."""
        problems = []
        if self.architecture not in ARCHITECTURES:
            problems.append(not_known("architecture", self.architecture, ARCHITECTURES))
        for name in ("dimensions", "window", "negatives", "epochs"):
            if getattr(self, name) < 1:
                problems.append(f"{name}={getattr(self, name)} is below 1")
        if self.dimensions > MOST_DIMENSIONS:
            problems.append(f"dimensions={self.dimensions} is above {MOST_DIMENSIONS:,}")
        if self.negatives > 1000:
            problems.append(f"negatives={self.negatives} is above 1,000")
        if self.window > 100:
            problems.append(f"window={self.window} is above 100 words to each side")
        if not 0 <= self.subsample <= 1:
            problems.append(f"subsample={self.subsample} is not between 0 and 1")
        if self.learning_rate is not None and not 0 < self.learning_rate <= 1:
            problems.append(f"learning_rate={self.learning_rate} is not above 0 and at most 1")
        if self.seed < 0:
            problems.append(f"seed={self.seed} is below 0")
        raise_all(ConfigError, "word2vec", problems)


@dataclass(frozen=True, slots=True)
class Chunks:
    """One step's worth of text: N chunks of T centres.

    places_M: the words of all places, M = N x T + 2 x window (chunk n sees places n x T to n x T + J).
    targets_NP: the T centres of each chunk, then its negatives.
    pairs_NJT: True where place j is a context of centre t.
    """

    places_M: Ids
    targets_NP: Ids
    pairs_NJT: NDArray[np.bool_]


def train_word2vec(
    vocabulary: Vocabulary,
    corpus: EncodedCorpus,
    settings: Word2Vec,
    *,
    workers: int = 1,
    advance: Callable[[int], None] | None = None,
) -> Float:
    """The vectors (V x D) of a vocabulary's words; `advance` is told how many words were gone through.

    The same seed and one worker give the same vectors. Raises ConfigError and, when the numbers ran away,
    TrainingError.
    """
    settings.check()
    input_VD, output_VD = initial(len(vocabulary), settings)
    arrays: dict[str, NDArray[Any]] = {
        "input": input_VD,
        "output": output_VD,
        "ids": corpus.ids_N,
        "units": corpus.units_N,
        "keep": keep_probabilities(vocabulary.counts_V, settings.subsample),
        "table": negative_table(vocabulary.counts_V),
    }
    with shared_arrays(arrays) as shared:
        run_workers(train_share, shared, settings, workers, advance)
        learned_VD = np.array(shared.arrays["input"])
    if not np.isfinite(learned_VD).all():
        raise TrainingError("the vectors grew beyond all bounds. Train again with a lower --learning-rate.")
    return learned_VD


def initial(size: int, settings: Word2Vec) -> tuple[Float, Float]:
    """Input vectors small and random, output vectors zero (both V x D)."""
    rng = np.random.default_rng((settings.seed, 0))
    shape = (size, settings.dimensions)
    return (rng.random(shape, np.float32) - np.float32(0.5)) / np.float32(settings.dimensions), np.zeros(
        shape, np.float32
    )


def keep_probabilities(counts_V: NDArray[np.int64], subsample: float) -> Float:
    """How likely each word stays in the text: sqrt(s/f) + s/f for share f, as in word2vec.c."""
    if subsample == 0:
        return np.ones(len(counts_V), np.float32)
    ratio_V = subsample / (counts_V / counts_V.sum())
    keep_V: Float = np.minimum(1, np.sqrt(ratio_V) + ratio_V).astype(np.float32)
    return keep_V


def negative_table(counts_V: NDArray[np.int64]) -> Ids:
    """Words, each as often as counts^0.75 says (once at least): a place drawn evenly is a negative sample."""
    weights_V = counts_V.astype(np.float64) ** _POWER
    size = max(_TABLE, 16 * len(counts_V))
    times_V = np.maximum(1, np.rint(weights_V / weights_V.sum() * size)).astype(np.int64)
    return np.repeat(np.arange(len(counts_V), dtype=np.int32), times_V)


def train_share(arrays: Mapping[str, NDArray[Any]], settings: Word2Vec, worker: int, workers: int) -> None:
    """What one worker does: all epochs over its share of the text, changing the shared vectors."""
    size = len(arrays["ids"])
    share = slice(size * worker // workers, size * (worker + 1) // workers)
    ids_N, units_N = arrays["ids"][share], arrays["units"][share]
    rng = np.random.default_rng((settings.seed, 1, worker))
    first_rate = settings.learning_rate or LEARNING_RATES[settings.architecture]
    gradients = GRADIENTS[settings.architecture]
    input_VD, output_VD, done_W = arrays["input"], arrays["output"], arrays[DONE]
    total = max(1, len(ids_N) * settings.epochs)
    for epoch in range(settings.epochs):
        for start in range(0, len(ids_N), _BLOCK):
            block = slice(start, start + _BLOCK)
            length = min(_BLOCK, len(ids_N) - start)
            kept_N = rng.random(length, dtype=np.float32) < arrays["keep"][ids_N[block]]
            for share_done, chunks in chunks_of(
                ids_N[block][kept_N], units_N[block][kept_N], arrays["table"], settings.window, rng
            ):
                done = epoch * len(ids_N) + start + share_done * length
                rate = first_rate * max(_LAST_RATE, 1 - done / total)
                step(input_VD, output_VD, chunks, gradients, settings.negatives, rate)
                done_W[worker] = done
    done_W[worker] = total


def chunks_of(
    ids_N: Ids, units_N: Ids, table: Ids, window: int, rng: np.random.Generator
) -> Iterator[tuple[float, Chunks]]:
    """A text in steps, each with the share of the text gone through before it. The last is filled up with no pairs."""
    places = np.arange(CENTRES + 2 * window, dtype=np.int16)
    distance_JT = np.abs(places[:, None] - window - places[None, :CENTRES])
    distance_JT[distance_JT == 0] = window + 1  # no word is its own context
    size = BATCH * CENTRES
    steps = -(-len(ids_N) // size)
    ids_N = np.pad(ids_N, (window, steps * size - len(ids_N) + window))
    units_N = np.pad(units_N, (window, steps * size - len(units_N) + window), constant_values=-1)
    for number in range(steps):
        places_M = ids_N[number * size : (number + 1) * size + 2 * window]
        units_M = units_N[number * size : (number + 1) * size + 2 * window]
        centres = slice(window, window + size)
        targets_NP = np.empty((BATCH, CENTRES + DRAWN), np.int32)
        targets_NP[:, :CENTRES] = places_M[centres].reshape(BATCH, CENTRES)
        targets_NP[:, CENTRES:] = table[rng.integers(0, len(table), (BATCH, DRAWN))]
        reach_NT = rng.integers(1, window + 1, (BATCH, CENTRES), np.int16)
        pairs_NJT = distance_JT <= reach_NT[:, None, :]
        if units_M[0] != units_M[-1] or units_M[0] < 0:
            centre_units_NT = units_M[centres].reshape(BATCH, CENTRES)
            pairs_NJT &= windows(units_M, window)[:, :, None] == centre_units_NT[:, None, :]
            pairs_NJT &= centre_units_NT[:, None, :] >= 0
        yield number / steps, Chunks(places_M, targets_NP, pairs_NJT)


def windows(values_M: NDArray[Any], window: int) -> NDArray[Any]:
    """What each chunk sees of a step's places (N x J x ...), as a view: neighbours overlap by 2 x window."""
    first, *rest = values_M.strides
    length = CENTRES + 2 * window
    return as_strided(
        values_M,
        ((len(values_M) - 2 * window) // CENTRES, length, *values_M.shape[1:]),
        (CENTRES * first, first, *rest),
        writeable=False,
    )


def sum_windows(values_NJD: Float, window: int) -> Float:
    """The reverse of `windows`: what the chunks say of a place they share is added up (M x D)."""
    chunks, length, dimensions = values_NJD.shape
    total_MD = np.zeros((chunks * CENTRES + 2 * window, dimensions), np.float32)
    for start in range(0, length, CENTRES):
        part_NTD = values_NJD[:, start : start + CENTRES]
        whole = part_NTD.shape[1]
        to_NTD = as_strided(
            total_MD[start:],
            part_NTD.shape,
            (CENTRES * total_MD.strides[0], *total_MD.strides),
        )
        assert whole <= CENTRES, (whole, CENTRES)
        to_NTD += part_NTD
    return total_MD


Gradients = Callable[[Float, Float, NDArray[np.bool_], int], tuple[Float, Float]]


def step(
    input_VD: Float, output_VD: Float, chunks: Chunks, gradients: Gradients, negatives: int, rate: float
) -> None:
    """One step down the gradient, for all words of these chunks."""
    window = (chunks.pairs_NJT.shape[1] - CENTRES) // 2
    places_MD = input_VD[chunks.places_M]
    targets_NPD = output_VD[chunks.targets_NP]
    down_NJD, down_targets_NPD = gradients(
        windows(places_MD, window), targets_NPD, chunks.pairs_NJT, negatives
    )
    down_MD = sum_windows(down_NJD, window)
    down_targets_MD = down_targets_NPD.reshape(-1, targets_NPD.shape[-1])
    for rows, values, matrix in (
        (chunks.places_M, down_MD, input_VD),
        (chunks.targets_NP.reshape(-1), down_targets_MD, output_VD),
    ):
        values *= np.float32(-rate)
        clip_rows(values, LONGEST)
        add_rows(matrix, rows, values)


def sigmoid(x: Float) -> Float:
    """1 / (1 + e^-x), in place."""
    np.negative(x, out=x)
    np.minimum(x, 80, out=x)  # e^80 is still a float32
    np.exp(x, out=x)
    x += 1
    return np.reciprocal(x, out=x)


def skip_gram(
    places_NJD: Float, targets_NPD: Float, pairs_NJT: NDArray[np.bool_], negatives: int
) -> tuple[Float, Float]:
    """The gradient of `skip_gram_loss` for the vectors of places and of targets."""
    centres = pairs_NJT.shape[2]
    errors_NJP = sigmoid(places_NJD @ targets_NPD.transpose(0, 2, 1))
    errors_NJP[:, :, :centres] -= 1
    errors_NJP[:, :, :centres] *= pairs_NJT
    errors_NJP[:, :, centres:] *= _negative_weights(pairs_NJT, targets_NPD, negatives, axis=2)[:, :, None]
    return errors_NJP @ targets_NPD, errors_NJP.transpose(0, 2, 1) @ places_NJD


def skip_gram_loss(
    places_NJD: Float, targets_NPD: Float, pairs_NJT: NDArray[np.bool_], negatives: int
) -> float:
    """-Σ log σ(w_j · c_t) over pairs, -Σ weight_j log σ(-w_j · c_p) over negatives.

    weight_j: for each pair of place j, as many negatives as asked for, shared out among those of the chunk.
    """
    scores_NJP = places_NJD.astype(np.float64) @ targets_NPD.astype(np.float64).transpose(0, 2, 1)
    centres = pairs_NJT.shape[2]
    weights_NJ = _negative_weights(pairs_NJT, targets_NPD, negatives, axis=2)
    wanted = np.logaddexp(0, -scores_NJP[:, :, :centres])[pairs_NJT].sum()
    return float(wanted + (weights_NJ[:, :, None] * np.logaddexp(0, scores_NJP[:, :, centres:])).sum())


def cbow(
    places_NJD: Float, targets_NPD: Float, pairs_NJT: NDArray[np.bool_], negatives: int
) -> tuple[Float, Float]:
    """The gradient of `cbow_loss` for the vectors of places and of targets."""
    centres = pairs_NJT.shape[2]
    share_NTJ, counts_NT = _shares(pairs_NJT)
    means_NTD: Float = share_NTJ @ places_NJD
    centres_NTD, negatives_NKD = targets_NPD[:, :centres], targets_NPD[:, centres:]
    scores_NT: Float = np.einsum("ntd,ntd->nt", means_NTD, centres_NTD)
    wanted_NT = (sigmoid(scores_NT) - np.float32(1)) * counts_NT
    products_NTK: Float = means_NTD @ negatives_NKD.transpose(0, 2, 1)
    unwanted_NTK = sigmoid(products_NTK)
    unwanted_NTK *= counts_NT[:, :, None] * np.float32(negatives / negatives_NKD.shape[1])
    down_means_NTD = unwanted_NTK @ negatives_NKD
    down_means_NTD += wanted_NT[:, :, None] * centres_NTD
    down_targets_NPD = np.empty_like(targets_NPD)
    np.multiply(wanted_NT[:, :, None], means_NTD, out=down_targets_NPD[:, :centres])
    np.matmul(unwanted_NTK.transpose(0, 2, 1), means_NTD, out=down_targets_NPD[:, centres:])
    return share_NTJ.transpose(0, 2, 1) @ down_means_NTD, down_targets_NPD


def cbow_loss(places_NJD: Float, targets_NPD: Float, pairs_NJT: NDArray[np.bool_], negatives: int) -> float:
    """-log σ(h_t · c_t) - weight Σ log σ(-h_t · c_p), h_t being the mean of the window, over centres with a window."""
    centres = pairs_NJT.shape[2]
    share_NTJ, counts_NT = _shares(pairs_NJT)
    means_NTD = share_NTJ.astype(np.float64) @ places_NJD.astype(np.float64)
    targets = targets_NPD.astype(np.float64)
    wanted_NT = np.logaddexp(0, -np.einsum("ntd,ntd->nt", means_NTD, targets[:, :centres]))
    unwanted_NTK = np.logaddexp(0, means_NTD @ targets[:, centres:].transpose(0, 2, 1))
    weight = negatives / unwanted_NTK.shape[2]
    return float((counts_NT * (wanted_NT + weight * unwanted_NTK.sum(axis=2))).sum())


def _negative_weights(pairs_NJT: NDArray[np.bool_], targets_NPD: Float, negatives: int, axis: int) -> Float:
    drawn = targets_NPD.shape[1] - pairs_NJT.shape[2]
    weights: Float = pairs_NJT.sum(axis=axis, dtype=np.float32)
    weights *= np.float32(negatives / drawn)
    return weights


def _shares(pairs_NJT: NDArray[np.bool_]) -> tuple[Float, Float]:
    """Each place's share in the mean of a centre's window (N x T x J), and 1 for a centre with a window, else 0."""
    share_NTJ = pairs_NJT.transpose(0, 2, 1).astype(np.float32)
    counts_NT1 = share_NTJ.sum(axis=2, keepdims=True)
    share_NTJ /= np.maximum(1, counts_NT1)
    return share_NTJ, np.minimum(1, counts_NT1[:, :, 0])


GRADIENTS: dict[str, Gradients] = {"skip-gram": skip_gram, "cbow": cbow}
