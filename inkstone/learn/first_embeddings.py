"""Word vectors for a model to begin with, read from a file of any format that `vectors.formats` knows.

Where a token of the model is a whole word that has a vector, its row of the embedding begins with that vector - turned
to the model's width and scaled to the size of its own rows (`vectors.embeddings`) - and learns on from there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from inkstone.ground.progress import say
from inkstone.model.interface import put_embeddings
from inkstone.text.tokenizer import Tokenizer
from inkstone.vectors.embeddings import Coverage, initialise, words_of
from inkstone.vectors.formats import read_vectors
from inkstone.vectors.store import WordVectors


@dataclass(frozen=True, slots=True)
class FirstEmbeddings:
    """Word vectors, and the sha256 of their words and numbers, which is part of a run's fingerprint."""

    vectors: WordVectors
    digest: str

    @classmethod
    def read(cls, path: str | Path) -> FirstEmbeddings:
        """Those of a file or folder. Raises DataError or BundleError for what holds no word vectors."""
        found = read_vectors(path)
        for note in found.notes:
            say(f"{path}: {note}")
        vectors = found.vectors
        digest = hashlib.sha256("\n".join(vectors.words).encode("utf-8", "surrogatepass"))
        digest.update(vectors.matrix_VD.tobytes())
        return cls(vectors, digest.hexdigest())

    def put(self, model: nn.Module, tokenizer: Tokenizer) -> Coverage:
        """Put them into the embedding of a model, and say how many tokens they reached. Raises DataError for none."""
        own_VE = model.get_submodule("embedding").get_parameter("weight").detach().cpu().numpy()
        tokens = [tokenizer.token_of(number) for number in range(len(own_VE))]
        begun_VE, coverage = initialise(own_VE, words_of(tokens), self.vectors)
        put_embeddings(model, begun_VE)
        turned = "" if self.vectors.dimensions == own_VE.shape[1] else (
            f", turned from {self.vectors.dimensions} dimensions to {own_VE.shape[1]}"
        )  # fmt: skip
        say(f"{coverage}{turned}")
        return coverage
