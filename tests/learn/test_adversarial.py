"""Attacks on embeddings: as far and in the direction that the papers say, and the plain step when they may not move."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

import reversing  # noqa: E402

from inkstone.ground.errors import ConfigError  # noqa: E402
from inkstone.learn.adversarial import AdversarialOptions, adversarial  # noqa: E402
from inkstone.learn.data.batches import LabelExample, label_batch  # noqa: E402
from inkstone.learn.embedded import embedded  # noqa: E402
from inkstone.learn.objectives import classification, sequence_to_sequence  # noqa: E402
from inkstone.model.checkpoint import build_model  # noqa: E402
from inkstone.model.presets import classifier_config  # noqa: E402

KINDS = ("fgm", "pgd", "freelb")


def classifier(architecture: str = "cnn", dropout: float = 0.0) -> Any:
    overlay: dict[str, Any] = {"dropout": dropout}
    if architecture == "transformer":
        overlay |= {"hidden_size": 32, "feed_forward_size": 64, "num_encoder_layers": 2}
    config = classifier_config(architecture, "tiny", 20, 3, overlay)
    return build_model(config, torch.Generator().manual_seed(1))


def texts() -> Any:
    rows = [([5, 6, 7, 8, 9], 0), ([10, 11, 4], 1), ([12, 13], 2), ([7, 7, 14, 15], 0)]
    examples = [LabelExample(tuple(ids), (label,)) for ids, label in rows]
    return label_batch(examples, pad_id=0, num_labels=3, multi_label=False)


def slopes(model: Any, objective: Any, batch: Any, *, bfloat16: bool = False) -> tuple[float, dict[str, Any]]:
    """The value of a step's loss and the gradient of every weight."""
    torch.manual_seed(3)
    model.zero_grad()
    model.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        loss = objective(model, batch)
    loss.mean.backward()
    return float(loss.mean.detach()), {
        n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }


def moves_of(model: Any, objective: Any, batch: Any) -> list[Any]:
    """What each pass adds to the embeddings: seen by comparing what the model reads with the table."""
    seen: list[Any] = []

    def look(vectors_BSE: Any, ids_BS: Any) -> Any:
        seen.append((vectors_BSE - model.embedding.weight[ids_BS]).detach().clone())
        return vectors_BSE

    looked = torch.nn.Module.register_forward_hook(model.embedding, lambda m, i, o: look(o, i[0]))
    slopes(model, objective, batch)
    looked.remove()
    return seen


def lengths(move_BSE: Any) -> Any:
    return move_BSE.flatten(1).norm(dim=1)


def test_fgm_moves_each_text_by_epsilon_along_its_own_gradient() -> None:
    model, batch = classifier(), texts()
    still, moved = moves_of(model, adversarial(classification, model, AdversarialOptions("fgm", 0.5)), batch)
    assert not still.any()
    torch.testing.assert_close(lengths(moved), torch.full((4,), 0.5))
    for row in range(4):  # the reference: one text by itself, the gradient of its vectors written out
        vectors = model.embedding.weight[batch.ids_BS[row : row + 1]].detach().requires_grad_()
        with embedded(model, lambda v, i, vectors=vectors: vectors):
            loss = torch.nn.functional.cross_entropy(
                model(batch.ids_BS[row : row + 1]), batch.labels[row : row + 1]
            )
        (gradient,) = torch.autograd.grad(loss, vectors)
        torch.testing.assert_close(moved[row], 0.5 * gradient[0] / gradient.norm(), rtol=1e-4, atol=1e-6)


def test_a_step_of_fgm_is_the_mean_of_both_losses_written_out() -> None:
    model, batch = classifier("transformer"), texts()
    value, found = slopes(model, adversarial(classification, model, AdversarialOptions("fgm", 0.7)), batch)
    _, moved = moves_of(model, adversarial(classification, model, AdversarialOptions("fgm", 0.7)), batch)

    def written_out(model: Any, batch: Any, smoothing: float = 0.0) -> Any:
        plain = classification(model, batch)
        with embedded(model, lambda v, i: v + moved):
            attacked = classification(model, batch)
        return type(plain)(0.5 * (plain.mean + attacked.mean), plain.count, plain.correct)

    wanted, gradients = slopes(model, written_out, batch)
    assert value == pytest.approx(wanted, rel=1e-5)
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_pgd_climbs_within_the_ball() -> None:
    model, batch = classifier(), texts()
    options = AdversarialOptions("pgd", epsilon=0.5, step_size=0.2, steps=4)
    passes = moves_of(model, adversarial(classification, model, options), batch)
    reached = torch.stack([lengths(move) for move in passes])
    torch.testing.assert_close(reached[:3, 0], torch.tensor([0.0, 0.2, reached[2, 0].item()]))
    assert (reached <= 0.5 + 1e-6).all() and (reached[-1] > 0.49).all()
    losses = []
    for move in passes:
        with embedded(model, lambda v, i, move=move: v + move):
            losses.append(float(classification(model.eval(), batch).mean.detach()))
    assert losses == sorted(losses) and losses[-1] > losses[0], "each step makes it worse for the model"


def test_freelb_starts_anywhere_in_the_ball_and_never_moves_padding() -> None:
    model, batch = classifier("transformer"), texts()
    options = AdversarialOptions("freelb", epsilon=0.5, step_size=0.3, steps=3)
    passes = moves_of(model, adversarial(classification, model, options), batch)
    assert len(passes) == 3
    for move in passes:
        assert (lengths(move) <= 0.5 + 1e-6).all() and (lengths(move) > 0).all()
        assert not move[batch.ids_BS == 0].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("task", ["classification", "sequence-to-sequence"])
def test_that_may_not_move_it_is_the_plain_step(kind: Any, bfloat16: bool, task: str) -> None:
    if task == "classification":
        model, batch, plain = classifier("transformer", dropout=0.3), texts(), classification
    else:
        model, plain = reversing.small_model(dropout=0.3), sequence_to_sequence
        batch = reversing.collate(reversing.examples(20))
    attacked = adversarial(plain, model, AdversarialOptions(kind, epsilon=0.0))
    wanted, gradients = slopes(model, plain, batch, bfloat16=bfloat16)
    value, found = slopes(model, attacked, batch, bfloat16=bfloat16)
    assert value == pytest.approx(wanted, rel=1e-6)
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_ends_with_the_same_weights(kind: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"adversarial": AdversarialOptions(kind), "epochs": 1}
    whole = reversing.run(tmp_path / "whole", **options)[1]
    with pytest.raises(ZeroDivisionError):
        reversing.run(tmp_path / "cut", collate=_failing(5), save_every_s=0, **options)
    assert reversing.run(tmp_path / "cut", model=reversing.small_model(seed=8), **options)[1] == whole
    assert whole != reversing.run(tmp_path / "plain", epochs=1)[1]


def _failing(at: int) -> Callable[[Any], Any]:
    calls = iter(range(at))

    def collate(rows: Any) -> Any:
        if next(calls, None) is None:
            raise ZeroDivisionError
        return reversing.collate(rows)

    return collate


def test_what_cannot_be_attacked_or_asked_for() -> None:
    with pytest.raises(ConfigError, match="no embedding of tokens"):
        adversarial(classification, torch.nn.Linear(2, 2), AdversarialOptions("fgm"))
    with pytest.raises(ConfigError, match=r'(?s)kind="fgn".*Did you mean "fgm".*epsilon=-1.*steps=0'):
        AdversarialOptions("fgn", epsilon=-1, steps=0)  # type: ignore[arg-type]
