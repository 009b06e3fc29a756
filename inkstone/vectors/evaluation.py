"""How good word vectors are: do they rank word pairs as people do, and do they solve analogies?

A *similarity set* is a table of two words and a score given by people; the figure is Spearman's rank correlation with
the cosines (Pearson's beside it). An *analogy set* is a table of four words a, b, c, d, with a category in front or
not; the figure is the share of rows where d is the nearest word to b - a + c (`store`). Both only judge rows whose
words all have vectors, so `coverage` belongs to every figure: a set with half its words unknown is another, easier set.

Where a word has no vector as written, its spelling in other case is tried (vectors are often lower-cased, the Google
analogies are not); among words that differ only in case the most frequent, which stands first, is taken. gensim's
`evaluate_word_pairs` and `evaluate_word_analogies` give the same figures (tests/vectors).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import ConfigError, DataError
from inkstone.metrics.correlation import pearson, spearman
from inkstone.metrics.statistics import Measured, bootstrap, mean
from inkstone.vectors.store import WordVectors

Kind = Literal["similarity", "analogy"]
_AT_ONCE = 256  # analogies
_RESAMPLES = 1000
_FEWEST = 3  # pairs that have a rank correlation worth the name


@dataclass(frozen=True, slots=True)
class WordSet:
    """A similarity or an analogy set: its name, rows of two or four words, and a score or a category for each."""

    name: str
    kind: Kind
    rows: tuple[tuple[str, ...], ...]
    scores: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What came of one set. metrics: spearman and pearson, or accuracy, each with its 95 % interval."""

    name: str
    kind: Kind
    rows: int
    used: int
    metrics: Mapping[str, Measured]
    categories: Mapping[str, tuple[int, int]]  # of an analogy set: right, used

    @property
    def coverage(self) -> float:
        """The share of rows whose words all have vectors."""
        return self.used / self.rows

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "set": self.name,
            "kind": self.kind,
            "n": self.rows,
            "used": self.used,
            "coverage": self.coverage,
            "metrics": {name: measured.as_json() for name, measured in self.metrics.items()},
            "categories": {
                name: {"right": right, "used": used} for name, (right, used) in self.categories.items()
            },
        }


def word_set(name: str, rows: Sequence[Sequence[str]]) -> WordSet:
    """A set from rows of columns: `word word score`, `a b c d` or `category a b c d`; a first row of names is left out.

    Raises DataError listing the rows that do not fit.
    """
    cells = [tuple(cell.strip() for cell in row) for row in rows]
    has_header = bool(cells) and (
        (len(cells[0]) == 3 and not _is_number(cells[0][2]))
        or tuple(cell.lower() for cell in cells[0][-4:]) == ("a", "b", "c", "d")
    )
    first = 2 if has_header else 1
    cells = cells[has_header:]
    if not cells:
        raise DataError(f"{name} holds no rows. Give word pairs with a score, or analogies of four words.")
    width = len(cells[0])
    kind: Kind = "similarity" if width == 3 else "analogy"
    if width not in (3, 4, 5):
        raise DataError(
            f"{name} has rows of {width} columns. Valid: word, word, score; or a, b, c, d; or category, a, b, c, d."
        )
    bad = [
        number
        for number, row in enumerate(cells, first)
        if len(row) != width or not all(row) or (width == 3 and not _is_number(row[2]))
    ]
    if bad:
        more = f" and {len(bad) - 5:,} more" if len(bad) > 5 else ""
        raise DataError(
            f"{name}: rows {', '.join(map(str, bad[:5]))}{more} are not like row {first}: {cells[0]}."
        )
    if kind == "similarity":
        return WordSet(name, kind, tuple(row[:2] for row in cells), tuple(float(row[2]) for row in cells))
    categories = tuple(row[0] for row in cells) if width == 5 else ()
    return WordSet(name, kind, tuple(row[-4:] for row in cells), categories=categories)


def evaluate(vectors: WordVectors, wanted: WordSet, *, seed: int = 0) -> Evaluated:
    """Measure vectors on a set; figures are missing where too few rows can be used."""
    numbers = Lookup(vectors)
    known = [n for n, row in enumerate(wanted.rows) if all(word in numbers for word in row)]
    rows_NK = np.array([[numbers[word] for word in wanted.rows[n]] for n in known], np.int64)
    rng = np.random.default_rng(seed)
    metrics: dict[str, Measured] = {}
    categories: dict[str, tuple[int, int]] = {}
    if wanted.kind == "similarity" and len(known) >= _FEWEST:
        pairs_N2D = vectors.unit_VD[rows_NK].astype(np.float64)
        # a word with itself is 1 whichever word it is: rounding errors must not rank such pairs
        cosines_N = np.round((pairs_N2D[:, 0] * pairs_N2D[:, 1]).sum(axis=1), 6)
        scores_N = np.array([wanted.scores[n] for n in known])
        for name, correlation in (("spearman", spearman), ("pearson", pearson)):
            samples = rng.integers(0, len(known), (_RESAMPLES, len(known)))
            drawn = [correlation(cosines_N[sample], scores_N[sample]) for sample in samples]
            low, high = np.quantile(drawn, [0.025, 0.975])
            metrics[name] = Measured(correlation(cosines_N, scores_N), float(low), float(high))
    elif wanted.kind == "analogy" and known:
        right_N = solve(vectors, rows_NK[:, :3]) == rows_NK[:, 3]
        metrics["accuracy"] = bootstrap(mean(right_N), rng)
        named = np.array([wanted.categories[n] for n in known]) if wanted.categories else np.zeros(0, str)
        for category in dict.fromkeys(named.tolist()):
            own = right_N[named == category]
            categories[category] = (int(own.sum()), len(own))
    return Evaluated(wanted.name, wanted.kind, len(wanted.rows), len(known), metrics, categories)


class Lookup:
    """Words to rows, in another case where they are not found as written."""

    def __init__(self, vectors: WordVectors) -> None:
        self._exact = vectors.number_of
        self._folded: dict[str, int] = {}
        for word, number in vectors.number_of.items():
            self._folded.setdefault(word.upper(), number)

    def __contains__(self, word: str) -> bool:
        return word in self._exact or word.upper() in self._folded

    def __getitem__(self, word: str) -> int:
        exact = self._exact.get(word)
        return self._folded[word.upper()] if exact is None else exact


def solve(vectors: WordVectors, rows_N3: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each a, b, c the word nearest to b - a + c but for these three (all as rows of the matrix)."""
    unit_VD = vectors.unit_VD
    found = []
    for start in range(0, len(rows_N3), _AT_ONCE):
        some_N3 = rows_N3[start : start + _AT_ONCE]
        a, b, c = unit_VD[some_N3].transpose(1, 0, 2)
        scores_NV = (b - a + c) @ unit_VD.T
        np.put_along_axis(scores_NV, some_N3, -np.inf, axis=1)
        found.append(scores_NV.argmax(axis=1))
    return np.concatenate(found)


def read_word_set(path: str | Path) -> WordSet:
    """A set from a file: tab-separated, comma-separated or space-separated; questions-words.txt (": category") too.

    Raises DataError when it is missing, empty, not UTF-8, or holds rows of another shape.
    """
    import gzip
    import zlib

    path = Path(path)
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file ({error}). Copy it again.") from error
    except IsADirectoryError as error:
        raise DataError(
            f"{path} is a folder. Give a file, or a folder of sim.*.tsv and analogy.*.tsv."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. Check the path.") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("#", "//"))]
    category, rows = "", []
    separator = (
        "\t" if any("\t" in line for line in lines) else "," if any("," in line for line in lines) else None
    )
    for line in lines:
        if line.startswith(":"):
            category = line[1:].strip()
        else:
            rows.append(([category] if category else []) + line.split(separator))
    name = path.name.removesuffix(".gz").removesuffix(".tsv").removesuffix(".csv").removesuffix(".txt")
    return word_set(name, rows)


def word_set_files(places: Sequence[str | Path], language: str | None = None) -> list[Path]:
    """The files named, and of folders those called sim.* and analogy.*; of one language where it is given.

    A folder's files name their language after the kind, as `sim.en-ws-353-all.tsv` does. Raises DataError for none.
    """
    files: list[Path] = []
    for place in map(Path, places):
        if not place.is_dir():
            files.append(place)
            continue
        inside = [file for file in sorted(place.iterdir()) if file.name.startswith(("sim.", "analogy."))]
        chosen = [
            file
            for file in inside
            if language is None or file.name.split(".")[1][: len(language)] == language
        ]
        if not chosen:
            named = f" in {language}" if language and inside else ""
            raise DataError(f"{place} holds no sets{named}: files called sim.* or analogy.*. Name the files.")
        files += chosen
    if not files:
        raise ConfigError("no set was given. Give similarity or analogy files, or a folder of them.")
    return files


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
