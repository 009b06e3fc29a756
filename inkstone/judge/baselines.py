"""What a model must beat: the simplest systems that do the same task, trained on the same data in the same
run.

A figure without a baseline says little: 90 % is poor where the most frequent class makes up 92 %. So every
report card shows, beside the model,

- for translation: *copy*, the source itself (names, numbers and code make its score surprisingly high on
  technical text), and *dictionary*, word by word with the most likely translation of each word under IBM
  Model 1 (Brown et al., 1993), learnt from the training pairs;
- for summaries: *lead*, the first sentence, which in news and abstracts says much of what there is to say;
- for classification: *majority*, the most frequent label set, and *tfidf-linear*, TF-IDF weights of words and
  word pairs (of 1 to 3 character grams for Chinese and Japanese) under a linear support vector machine with
  C = 1. This one is strong: on a few thousand short texts a network has to work to beat it.

None has anything to tune. The dictionary neither reorders nor inflects, and copies what it has never seen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import DataError, require
from inkstone.ground.records import Pair
from inkstone.text.segment import words
from inkstone.text.sentences import split_sentences

Labels = Sequence[tuple[str, ...]]
Words = Callable[[str], list[str]]

_UNSPACED = ("zh", "ja", "th", "km", "lo", "my")
_MAX_LINKS = 12_000_000  # possible word links: about 1 GB while the dictionary is learnt


def copy_source(sources: Sequence[str]) -> list[str]:
    """The translation that leaves everything as it is."""
    return list(sources)


def lead(documents: Sequence[str]) -> list[str]:
    """The summary that is the document's first sentence."""
    return [next((one.strip() for one in split_sentences(text) if one.strip()), "") for text in documents]


class WordDictionary:
    """Translates word by word with the best translation of each word under IBM Model 1.

    tokenised: the text is already cut into tokens by spaces, and the output is to be so too. `pairs_used`
    says how many training pairs were learnt from: all, unless memory sets a limit; then the shortest, which
    say most about each word.
    """

    def __init__(self, source_language: str, target_language: str, *, tokenised: bool = False) -> None:
        self.source_language, self.target_language = source_language, target_language
        self.tokenised = tokenised
        self.best: dict[str, str] = {}
        self.pairs_used = 0

    def fit(self, sources: Sequence[str], targets: Sequence[str], *, iterations: int = 5) -> Self:
        """Learn the dictionary from aligned sentences by expectation maximisation."""
        if len(sources) != len(targets) or not sources:
            raise DataError(
                f"a dictionary needs pairs; {len(sources)} sources and {len(targets)} targets were given."
            )
        cut_source, cut_target = self._cutter(self.source_language), self._cutter(self.target_language)
        source_rows = [[word.casefold() for word in cut_source(source)] for source in sources]
        target_rows = [cut_target(target) for target in targets]
        links_P = np.array([(len(s) + 1) * len(t) for s, t in zip(source_rows, target_rows, strict=True)])
        shortest_first_P = np.argsort(links_P, kind="stable")
        self.pairs_used = max(1, int((np.cumsum(links_P[shortest_first_P]) <= _MAX_LINKS).sum()))
        chosen = np.sort(shortest_first_P[: self.pairs_used]).tolist()
        source_rows, target_rows = [source_rows[p] for p in chosen], [target_rows[p] for p in chosen]
        self.best = _model_1(source_rows, target_rows, iterations)
        return self

    def translate(self, sources: Sequence[str]) -> list[str]:
        """Each sentence with every word replaced; words never seen stay as they are."""
        cut = self._cutter(self.source_language)
        return [
            self._join([self.best.get(word.casefold(), word) for word in cut(source)]) for source in sources
        ]

    def _cutter(self, language: str) -> Words:
        if self.tokenised:
            return str.split
        return lambda text: words(text, language, punctuation=True)

    def _join(self, pieces: Sequence[str]) -> str:
        if self.tokenised:
            return " ".join(pieces)
        if self.target_language.split("-")[0] in _UNSPACED:
            return re.sub(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])", "", " ".join(pieces))
        return re.sub(r" +(?=[,.!?;:%)\]}，。！？；：、）])|(?<=[(\[{（]) +", "", " ".join(pieces))


def _model_1(sources: Sequence[list[str]], targets: Sequence[list[str]], iterations: int) -> dict[str, str]:
    """The most likely target word of each source word after so many iterations from the uniform start.

    Every target word is explained by one source word of its sentence, or by the empty word (index 0), which
    takes what has no counterpart. A *link* is one such (source word, target position) possibility:

        links of a sentence pair     NULL a b c   a row for each target position
                                x     .   . . .
                                y     .   . . .
    """
    source_ids, source_words = _numbered(sources, first=1)
    target_ids, target_words = _numbered(targets, first=0)
    lengths = np.array([len(row) + 1 for row in sources], dtype=np.int64)
    flat_source = np.zeros(int(lengths.sum()), dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    flat_source[np.delete(np.arange(len(flat_source)), starts)] = source_ids
    sentence_of_position = np.repeat(np.arange(len(targets)), [len(row) for row in targets])
    fan = lengths[sentence_of_position]  # links of each target position
    if not len(fan) or not len(source_ids):
        return {}
    position_L = np.repeat(np.arange(len(target_ids)), fan)
    place_L = np.arange(int(fan.sum())) - np.repeat(np.cumsum(fan) - fan, fan)
    source_L = flat_source[np.repeat(starts[sentence_of_position], fan) + place_L]
    keys, key_L = np.unique(source_L * len(target_words) + target_ids[position_L], return_inverse=True)
    source_E, target_E = keys // len(target_words), keys % len(target_words)  # E entries of the dictionary
    chance_E = np.ones(len(keys))
    for _ in range(iterations):
        weight_L = chance_E[key_L]
        weight_L /= np.bincount(position_L, weight_L)[position_L]
        expected_E = np.bincount(key_L, weight_L)
        chance_E = expected_E / np.bincount(source_E, expected_E)[source_E]
    order = np.lexsort((-target_E, chance_E, source_E))  # equal chances: the more frequent target word
    last = np.flatnonzero(np.append(np.diff(source_E[order]), 1))
    best = {int(source_E[e]): int(target_E[e]) for e in order[last]}
    return {source_words[s - 1]: target_words[t] for s, t in best.items() if s > 0}


def _numbered(rows: Iterable[list[str]], first: int) -> tuple[NDArray[np.int64], list[str]]:
    """All words in a row as numbers from `first`, the most frequent first, and the words in that order."""
    flat = list(chain.from_iterable(rows))
    names = [word for word, _ in Counter(flat).most_common()]
    index = {word: number for number, word in enumerate(names, first)}
    return np.fromiter((index[word] for word in flat), dtype=np.int64, count=len(flat)), names


def majority(labels: Labels, count: int) -> list[tuple[str, ...]]:
    """The most frequent label set of the training data, for each of `count` texts."""
    if not labels:
        raise DataError("there are no labelled texts to find the most frequent label of.")
    return [Counter(tuple(sorted(row)) for row in labels).most_common(1)[0][0]] * count


class TfidfLinear:
    """TF-IDF features and a linear support vector machine, one against the rest; multi-label when the data
    is.

    by_characters: 1 to 3 character grams instead of words and word pairs; decided from the training texts
    when not given.
    """

    def __init__(self, *, by_characters: bool | None = None) -> None:
        self.by_characters = by_characters
        self._vectorizer: Any = None
        self._single: Any = None
        self._columns: list[tuple[str, Any]] = []

    def fit(self, texts: Sequence[str], labels: Labels) -> Self:
        """Fit on texts and their label sets. Raises DataError when there is only one label to learn."""
        require("sklearn", "the TF-IDF baseline", "train")
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.svm import LinearSVC

        names = sorted({label for row in labels for label in row})
        if len(texts) != len(labels):
            raise DataError(f"{len(texts):,} texts were given with {len(labels):,} label sets.")
        if len({tuple(sorted(row)) for row in labels}) < 2:
            raise DataError(
                f"a classifier needs at least two labels; the data has {len(names)}: {', '.join(names)}."
            )
        if not any(text.strip() for text in texts):
            raise DataError("every text is empty: there is nothing to learn from.")
        if self.by_characters is None:
            self.by_characters = mostly_unspaced(texts)
        # A pair seen once helps in English; in Chinese, 3-grams seen once are a third of a million and help
        # nothing.
        shape: dict[str, Any] = (
            {"analyzer": "char", "ngram_range": (1, 3), "min_df": 2 if len(texts) > 1000 else 1}
            if self.by_characters
            else {"token_pattern": r"\w+|[!?]", "ngram_range": (1, 2)}
        )
        self._vectorizer = TfidfVectorizer(sublinear_tf=True, **shape)
        try:
            features = self._vectorizer.fit_transform(texts)
        except ValueError as error:
            raise DataError(f"the texts hold no words to learn from ({error}).") from error
        if all(len(row) == 1 for row in labels):
            self._single = LinearSVC(C=1.0, random_state=0).fit(features, [row[0] for row in labels])
            return self
        for name in names:
            present = np.array([name in row for row in labels])
            model = LinearSVC(C=1.0, random_state=0).fit(features, present) if not present.all() else None
            self._columns.append((name, model))
        return self

    def predict(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """The label set of each text."""
        if self._vectorizer is None:
            raise DataError("the TF-IDF baseline was asked for labels before it was fitted. Call fit first.")
        features = self._vectorizer.transform(texts)
        if self._single is not None:
            return [(str(label),) for label in self._single.predict(features)]
        decided = [
            (name, model.predict(features) if model else [True] * len(texts)) for name, model in self._columns
        ]
        return [tuple(name for name, column in decided if column[n]) for n in range(len(texts))]


def mostly_unspaced(texts: Iterable[str]) -> bool:
    """Whether more than a third of the letters are Chinese or Japanese: then a space does not end a word."""
    letters, unspaced = 0, 0
    for text in texts:
        letters += sum(map(str.isalpha, text))
        unspaced += len(re.findall(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]", text))
    return unspaced * 3 > letters


def translation_baselines(
    training: Sequence[Pair], sources: Sequence[str], *, tokenised: bool = False
) -> dict[str, list[str]]:
    """The translations of copy and dictionary; the training pairs must be of the direction in question."""
    if not training:
        raise DataError("the dictionary baseline has no training pairs in this direction.")
    first = training[0]
    dictionary = WordDictionary(first.source_language, first.target_language, tokenised=tokenised)
    dictionary.fit([pair.source for pair in training], [pair.target for pair in training])
    return {"copy": copy_source(sources), "dictionary": dictionary.translate(sources)}


def label_baselines(
    texts: Sequence[str], labels: Labels, test_texts: Sequence[str]
) -> dict[str, list[tuple[str, ...]]]:
    """The label sets that majority and tfidf-linear, fitted on the training data, give to the test texts."""
    return {
        "majority": majority(labels, len(test_texts)),
        "tfidf-linear": TfidfLinear().fit(texts, labels).predict(test_texts),
    }
