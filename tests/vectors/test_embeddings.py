"""A model's embeddings from word vectors: which tokens are words, what is kept, and what a rotation may not change."""

from __future__ import annotations

import numpy as np
import pytest

from inkstone.ground.errors import DataError
from inkstone.text.tokenizer import Tokenizer
from inkstone.vectors.embeddings import initialise, words_of
from inkstone.vectors.store import WordVectors

TEXTS = ["the cat sat on the mat", "the dog and the cat", "我爱北京", "北京的猫"] * 20


@pytest.fixture
def vectors() -> WordVectors:
    matrix = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    return WordVectors(("the", "Cat", "dog", "北京", "zebra", "我"), matrix)


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece", "byte-bpe"])
def test_whole_words_of_our_tokenizers(kind: str) -> None:
    """A token called a word is one: cut out of a text, it comes back as a single token."""
    tokenizer = Tokenizer.train(TEXTS, kind=kind, vocab_size=400)  # type: ignore[arg-type]
    words = words_of([tokenizer.token_of(n) for n in range(tokenizer.vocab_size)])
    assert {"the", "cat"} <= set(words)
    assert not {"<pad>", "<unk>", "##t"} & set(words)
    assert all(words[n] is None for n in range(4)), "marks are no words"
    for number, word in enumerate(words):
        if word is not None and kind != "unigram":  # unigram may find a likelier cutting
            ids = tokenizer.encode(f"the {word}")
            assert number in ids or len(ids) > 2 or not word.isascii(), (word, ids)
    if kind == "bpe":
        assert "北京" in words


def test_marks_of_every_family() -> None:
    assert words_of(["▁the", "s", "▁", "<s>", "<0xE7>", "▁北京", "天气", "▁,", "▁<2en>"]) == [
        *("the", None, None, None, None, "北京", "天气", None, None)
    ]
    assert words_of(["Ġthe", "s", "åĮĹäº¬", "Ġcaf", "Ã"]) == ["the", None, "北京", "caf", None]
    assert words_of(["the</w>", "s", "cat</w>", "天"]) == ["the", None, "cat", "天"]
    assert words_of(["the", "##s", "[PAD]", "北", "##京", ","]) == ["the", None, None, "北", None, None]


@pytest.mark.parametrize("width", [8, 12, 5])
def test_known_rows_are_taken_and_others_kept(width: int, vectors: WordVectors) -> None:
    words = ["the", "cat", None, "dog", "unknown", "北京", "the"]
    matrix = 0.02 * np.random.default_rng(1).standard_normal((7, width)).astype(np.float32)
    result, coverage = initialise(matrix, words, vectors)
    assert (coverage.tokens, coverage.words, coverage.matched) == (7, 6, 5)
    assert "5 of 6 whole-word tokens" in str(coverage)
    assert (result[[2, 4]] == matrix[[2, 4]]).all()
    taken = [0, 1, 3, 5, 6]
    assert (result[taken] != matrix[taken]).any(axis=1).all()
    assert (result[0] == result[6]).all()
    size = np.sqrt((result[taken] ** 2).mean()) / np.sqrt((matrix**2).mean())
    assert size == pytest.approx(1, rel=1e-4)
    theirs = vectors.matrix_VD[[0, 1, 2, 3, 0]]
    scale = (result[taken] ** 2).sum() / (theirs**2).sum()
    products, wanted = result[taken] @ result[taken].T, scale * theirs @ theirs.T
    if width >= 8:
        np.testing.assert_allclose(products, wanted, atol=1e-5)
    else:  # four different vectors have at most four directions, and five are kept
        np.testing.assert_allclose(products, wanted, atol=1e-5)


def test_a_narrow_model_gets_the_best_there_is() -> None:
    """Fewer dimensions keep the most that any projection could keep (Eckart and Young, 1936)."""
    matrix = np.random.default_rng(0).standard_normal((50, 10)).astype(np.float32)
    words = [f"w{n}" for n in range(50)]
    result, _ = initialise(np.zeros((50, 3), np.float32), words, WordVectors(tuple(words), matrix))
    best = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)[:3]
    np.testing.assert_allclose(np.linalg.svd(result, compute_uv=False), best, rtol=1e-4)


def test_a_torch_embedding_starts_from_vectors(vectors: WordVectors) -> None:
    torch = pytest.importorskip("torch", reason="a model's embedding is torch's")
    embedding = torch.nn.Embedding(3, 8)
    with torch.no_grad():
        values, coverage = initialise(embedding.weight.numpy(), ["the", None, "dog"], vectors)
        embedding.weight.copy_(torch.from_numpy(values))
    assert coverage.matched == 2
    cosine = torch.cosine_similarity(embedding.weight[0], torch.from_numpy(vectors["the"]), dim=0)
    assert float(cosine.detach()) == pytest.approx(1, abs=1e-5)


def test_vectors_of_another_language_are_refused(vectors: WordVectors) -> None:
    with pytest.raises(DataError, match="none of 2 whole-word tokens"):
        initialise(np.zeros((3, 8), np.float32), ["le", None, "chat"], vectors)
    with pytest.raises(DataError, match="there are 2 tokens"):
        initialise(np.zeros((3, 8), np.float32), ["the", "dog"], vectors)
