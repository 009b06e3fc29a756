"""Draws are what softmax says, cut as transformers cuts; the same seed gives the same text, whatever is beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is torch")
transformers = pytest.importorskip("transformers", reason="the reference is transformers")

from transformers.generation import logits_process as theirs  # noqa: E402

from inkstone.generate.constraints import banned_by_ngrams, penalised, without_repeated_ngrams  # noqa: E402
from inkstone.generate.engine import GenerationOptions  # noqa: E402
from inkstone.generate.sampling import (  # noqa: E402
    Draw,
    cut_min_p,
    cut_top_k,
    cut_top_p,
    highest,
    log_softmax,
    shaped,
)
from inkstone.ground.errors import ConfigError  # noqa: E402


def scores(size: int, seed: int = 0, spread: float = 3.0) -> Any:
    return (np.random.default_rng(seed).standard_normal(size) * spread).astype(np.float32)


def of_transformers(processor: Any, scores_V: Any, ids: list[int]) -> Any:
    return processor(torch.tensor([ids]), torch.from_numpy(scores_V.copy())[None])[0].numpy()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [7, 300, 5000])
class TestCuts:
    @pytest.mark.parametrize("top_k", [1, 5, 4999])
    def test_top_k(self, size: int, seed: int, top_k: int) -> None:
        wanted = of_transformers(theirs.TopKLogitsWarper(min(top_k, size)), scores(size, seed), [1])
        np.testing.assert_array_equal(cut_top_k(scores(size, seed), top_k), wanted)

    @pytest.mark.parametrize("top_p", [0.001, 0.3, 0.9, 0.999])
    @pytest.mark.parametrize("spread", [0.1, 3.0])
    def test_top_p(self, size: int, seed: int, top_p: float, spread: float) -> None:
        wanted = of_transformers(theirs.TopPLogitsWarper(top_p), scores(size, seed, spread), [1])
        found = cut_top_p(scores(size, seed, spread), top_p)
        # At the border, sums in float32 and in float64 may fall either way: by one token.
        assert abs(int(np.isfinite(found).sum()) - int(np.isfinite(wanted).sum())) <= (size == 5000)
        both = np.isfinite(found) & np.isfinite(wanted)
        np.testing.assert_array_equal(found[both], wanted[both])

    @pytest.mark.parametrize("min_p", [0.001, 0.1, 0.9])
    def test_min_p(self, size: int, seed: int, min_p: float) -> None:
        wanted = of_transformers(theirs.MinPLogitsWarper(min_p), scores(size, seed), [1])
        np.testing.assert_array_equal(cut_min_p(scores(size, seed), min_p), wanted)


@pytest.mark.parametrize("seed", range(8))
def test_repetition_penalty_and_ngrams(seed: int) -> None:
    random = np.random.default_rng(seed)
    ids, scores_V = random.integers(0, 6, 20).tolist(), scores(6, seed)
    for penalty in (0.5, 1.0, 1.7):
        wanted = of_transformers(theirs.RepetitionPenaltyLogitsProcessor(penalty), scores_V, ids)
        np.testing.assert_allclose(penalised(scores_V, ids, penalty), wanted, rtol=1e-6)
    for size in (1, 2, 3, 4, 20, 21, 30):
        wanted = of_transformers(theirs.NoRepeatNGramLogitsProcessor(size), scores_V, ids)
        np.testing.assert_array_equal(without_repeated_ngrams(scores_V, ids, size), wanted)
    assert not len(banned_by_ngrams(ids, 0)) and not len(banned_by_ngrams([], 2))


@pytest.mark.parametrize("seed", range(4))
def test_all_together_in_the_order_of_transformers(seed: int) -> None:
    ids = [3, 4, 5, 3, 4]
    options = GenerationOptions(
        beam_size=1,
        temperature=0.7,
        top_k=30,
        top_p=0.8,
        min_p=0.05,
        repetition_penalty=1.4,
        no_repeat_ngram=3,
    )
    wanted = scores(60, seed)
    for processor in (
        theirs.RepetitionPenaltyLogitsProcessor(1.4),
        theirs.NoRepeatNGramLogitsProcessor(3),
        theirs.TemperatureLogitsWarper(0.7),
        theirs.TopKLogitsWarper(30),
        theirs.TopPLogitsWarper(0.8),
        theirs.MinPLogitsWarper(0.05),
    ):
        wanted = of_transformers(processor, wanted, ids)
    np.testing.assert_allclose(shaped(scores(60, seed), ids, options), wanted, rtol=1e-6)


def test_the_highest_are_in_order_and_equals_by_number() -> None:
    few = np.array([1, 5, 5, 0, 7, 5], np.float32)
    assert highest(few, 3).tolist() == [4, 1, 2] and highest(few, 99).tolist() == [4, 1, 2, 5, 0, 3]
    many = scores(1000)
    assert highest(many, 50).tolist() == np.argsort(-many, kind="stable")[:50].tolist()
    torch.testing.assert_close(
        torch.from_numpy(log_softmax(many)), torch.from_numpy(many).log_softmax(-1), atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize(
    "more",
    [{}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 4}, {"top_p": 0.7}, {"min_p": 0.2},
     {"repetition_penalty": 2.0}],
    ids=str,
)  # fmt: skip
def test_draws_are_distributed_as_the_softmax_says(more: dict[str, Any]) -> None:
    from scipy.stats import chisquare

    scores_V, ids, count = scores(12, 3, 1.0), [0, 1, 2], 4000
    options = GenerationOptions(beam_size=1, **{"temperature": 1.0, **more}, seed=11)
    shares_V = torch.from_numpy(shaped(scores_V, ids, options)).double().softmax(-1).numpy()
    draw = Draw(options, 0)
    counts_V = np.bincount([draw.token(scores_V, ids) for _ in range(count)], minlength=12)
    there = shares_V > 0
    assert not counts_V[~there].any(), "what was cut is never drawn"
    assert chisquare(counts_V[there], shares_V[there] * count).pvalue > 0.001


def test_a_seed_decides_and_alternatives_have_their_own() -> None:
    scores_V = scores(50, 1, 1.0)

    def drawn(seed: int | None, alternative: int = 0) -> list[int]:
        draw = Draw(GenerationOptions(beam_size=1, temperature=1.0, seed=seed), alternative)
        return [draw.token(scores_V, []) for _ in range(30)]

    assert drawn(5) == drawn(5) and drawn(0) == drawn(0)
    assert len({tuple(one) for one in (drawn(5), drawn(6), drawn(5, 1), drawn(None), drawn(None))}) == 5


def test_near_equal_scores_draw_the_same() -> None:
    """What makes engines agree that differ by rounding: one number a token, against sums in a fixed order."""
    options, noise = GenerationOptions(beam_size=1, temperature=1.0, seed=2), scores(400, 9, 1e-6)
    one, other = Draw(options, 0), Draw(options, 0)
    for seed in range(200):
        assert one.token(scores(400, seed), []) == other.token(scores(400, seed) + noise, [])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"temperature": 0.5}, "needs beam_size=1, not 4"),
        ({"beam_size": 1, "seed": 3}, "seed=3 without a temperature above 0"),
        ({"beam_size": 1, "top_k": 3, "min_p": 0.1}, "top_k=3, min_p=0.1 without a temperature"),
        ({"beam_size": 1, "temperature": 1.0, "top_p": 0.0}, "top_p=0.0 must be between"),
        ({"repetition_penalty": 1.2}, "repetition_penalty=1.2 needs beam_size=1"),
        ({"prefix": (-1,)}, r"prefix=\[-1\] must be ids"),
        ({"end_ids": ("</s>",)}, "end_ids="),
        (
            {"beam_size": 1, "temperature": 1.0, "alternatives": 65},
            "alternatives=65 must be between 1 and 64",
        ),
        ({"temperature": float("nan"), "beam_size": 1}, "temperature=nan"),
    ],
)
def test_options_that_do_not_go_together_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        GenerationOptions(**given)
