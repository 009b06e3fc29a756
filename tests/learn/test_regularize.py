"""Regularised objectives: equal to what the papers write down, and to the plain one where nothing is random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

import reversing  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from test_adversarial import classifier, slopes, texts  # noqa: E402

from inkstone.ground.errors import ConfigError  # noqa: E402
from inkstone.learn.adversarial import AdversarialOptions  # noqa: E402
from inkstone.learn.data.batches import LabelBatch, TokenBatch  # noqa: E402
from inkstone.learn.loop import TrainingOptions  # noqa: E402
from inkstone.learn.objectives import causal, classification, masked, sequence_to_sequence  # noqa: E402
from inkstone.learn.objectives.agreement import disagreement, linear_disagreement  # noqa: E402
from inkstone.learn.objectives.loss import Loss  # noqa: E402
from inkstone.learn.regularize import Regularization, regularized  # noqa: E402
from inkstone.model.config import tiny  # noqa: E402
from inkstone.model.transformer import Side, Transformer  # noqa: E402

NO_ATTACK = AdversarialOptions()


def of(objective: Any, model: Any, **options: float) -> Any:
    return regularized(objective, model, Regularization(**options), NO_ATTACK)


def tokens(model: Transformer) -> TokenBatch:
    """Every token of two rows asked for, whatever the objective."""
    ids_BT = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 4]])
    return TokenBatch(ids_BT, None, torch.arange(8), ids_BT.flatten(), tokens=8)


def language_model(shape: Any, dropout: float) -> Transformer:
    sizes: dict[str, Any] = {"hidden_size": 32, "feed_forward_size": 64, "dropout": dropout}
    layers = "num_decoder_layers" if shape == "decoder" else "num_encoder_layers"
    head = {} if shape == "decoder" else {"prediction_head": True}
    return Transformer(tiny(20, shape, **sizes, **head, **{layers: 2}), torch.Generator().manual_seed(1))


def situation(task: str, dropout: float) -> tuple[Any, Any, Any]:
    """An objective, a model and a batch."""
    if task == "classification":
        return classification, classifier("transformer", dropout), texts()
    if task == "sequence-to-sequence":
        batch = reversing.collate(reversing.examples(20))
        return sequence_to_sequence, reversing.small_model(dropout=dropout), batch
    model = language_model("decoder" if task == "causal" else "encoder", dropout)
    return {"causal": causal, "masked": masked}[task], model, tokens(model)


TASKS = ("classification", "sequence-to-sequence", "causal", "masked")


def test_nothing_asked_for_is_the_objective_itself() -> None:
    assert regularized(causal, language_model("decoder", 0.0), Regularization(), NO_ATTACK) is causal


class TestRDrop:
    @pytest.mark.parametrize("count", [3, 300])
    def test_the_disagreement_is_both_divergences_written_out(self, count: int) -> None:
        one, other = (torch.randn(count, 7, dtype=torch.float64, requires_grad=True) for _ in range(2))
        weight = torch.randn(11, 7, dtype=torch.float64, requires_grad=True)
        a, b = (one @ weight.t()).log_softmax(1), (other @ weight.t()).log_softmax(1)
        wanted = F.kl_div(a, b, log_target=True, reduction="batchmean") + F.kl_div(
            b, a, log_target=True, reduction="batchmean"
        )
        found = linear_disagreement(one, other, weight)
        assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
        gradients = [
            torch.autograd.grad(value, (one, other, weight), retain_graph=True) for value in (found, wanted)
        ]
        for mine, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
        assert disagreement(a, b, multi_label=False).item() == pytest.approx(wanted.item(), rel=1e-5)

    @pytest.mark.parametrize("task", TASKS)
    def test_without_dropout_both_passes_agree_and_it_is_the_plain_step(self, task: str) -> None:
        objective, model, batch = situation(task, 0.0)
        wanted, gradients = slopes(model, objective, batch)
        value, found = slopes(model, of(objective, model, r_drop=5.0), batch)
        assert value == pytest.approx(wanted, rel=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("task", TASKS)
    def test_with_dropout_what_it_adds_is_their_disagreement(self, task: str) -> None:
        objective, model, batch = situation(task, 0.3)
        none, some, more = (slopes(model, of(objective, model, r_drop=w), batch)[0] for w in (1e-9, 1.0, 3.0))
        assert none < some < more
        assert more - none == pytest.approx(3 * (some - none), rel=1e-3)

    def test_of_multi_label_data(self) -> None:
        batch = texts()
        batch = LabelBatch(
            batch.ids_BS, torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]), batch.tokens
        )
        model = classifier("transformer")
        plain = slopes(model, classification, batch)[0]
        assert slopes(model, of(classification, model, r_drop=5.0), batch)[0] == pytest.approx(
            plain, rel=1e-5
        )
        unsure = classifier("transformer", 0.3)
        few, many = (slopes(unsure, of(classification, unsure, r_drop=w), batch)[0] for w in (1e-9, 5.0))
        assert many > few

    def test_an_objective_that_shows_no_scores_is_refused(self) -> None:
        def silent(model: Any, batch: Any, smoothing: float = 0.0) -> Loss:
            raise AssertionError

        with pytest.raises(ConfigError, match=r"r_drop .* goes with classification and sequence_to_sequence"):
            of(silent, classifier(), r_drop=1.0)


class TestMixup:
    @pytest.mark.parametrize("architecture", ["transformer", "cnn", "rnn"])
    def test_it_is_the_mixture_written_out(self, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self: torch.tensor(0.75))
        model, batch = classifier(architecture), texts()
        order = torch.tensor([2, 0, 3, 1])
        monkeypatch.setattr(torch, "randperm", lambda count: order)
        value, _ = slopes(model, of(classification, model, mixup=0.5), batch)
        vectors = model.embedding.weight[batch.ids_BS] * (batch.ids_BS != 0)[:, :, None]
        both = 0.75 * vectors + 0.25 * vectors[order]
        seen = torch.where(
            (batch.ids_BS != 0) | (batch.ids_BS[order] != 0), 5, 0
        )  # which are padding is all it tells
        model.embedding.register_forward_hook(lambda module, given, output: both)
        logits = model(seen)
        wanted = 0.75 * F.cross_entropy(logits, batch.labels) + 0.25 * F.cross_entropy(
            logits, batch.labels[order]
        )
        assert value == pytest.approx(float(wanted.detach()), rel=1e-5)

    def test_a_text_mixed_with_itself_is_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch, "randperm", torch.arange)
        model, batch = classifier("transformer"), texts()
        plain = slopes(model, classification, batch)[0]
        assert slopes(model, of(classification, model, mixup=0.5), batch)[0] == pytest.approx(plain, rel=1e-5)

    def test_only_labels_can_be_mixed(self) -> None:
        with pytest.raises(ConfigError, match="classification only"):
            of(causal, language_model("decoder", 0.0), mixup=0.2)


class TestLeavingOut:
    def test_words_are_left_out_whole_and_at_the_rate_asked_for(self) -> None:
        model = classifier("cnn")
        seen: list[Any] = []

        def looking(model: Any, batch: Any, smoothing: float = 0.0) -> Loss:
            seen.append(model.embedding(batch.ids_BS) / model.embedding.weight[batch.ids_BS])
            return Loss(seen[-1].sum(), 1, 1)

        batch = LabelBatch(torch.randint(4, 20, (60, 50)), torch.zeros(60), 3000)
        of(looking, model, word_dropout=0.25)(model, batch)
        scale_BSE = seen[0]
        torch.testing.assert_close(
            scale_BSE.amin(2), scale_BSE.amax(2)
        )  # one decision for all of a word's numbers
        left_BS = scale_BSE[:, :, 0]
        assert abs(float((left_BS == 0).float().mean()) - 0.25) < 0.03
        torch.testing.assert_close(left_BS[left_BS > 0], torch.tensor(4 / 3).expand(int((left_BS > 0).sum())))
        assert torch.equal(model.embedding(batch.ids_BS), model.embedding.weight[batch.ids_BS]), (
            "and afterwards none"
        )

    def test_the_deeper_a_layer_the_oftener_it_is_left_out(self) -> None:
        model = classifier("transformer")
        batch = LabelBatch(torch.randint(4, 20, (2000, 2)), torch.zeros(2000, dtype=torch.long), 4000)
        gone: list[float] = []

        def looking(model: Any, batch: Any, smoothing: float = 0.0) -> Loss:
            for block in model.encoder.layers:
                change = block.dropout(torch.ones(len(batch.ids_BS), 2, 32))
                gone.append(float((change == 0).all(dim=(1, 2)).float().mean()))
                kept = change[change != 0]
                torch.testing.assert_close(kept, (1 / (1 - 0.2 * len(gone))) * torch.ones_like(kept))
            return classification(model, batch, smoothing)

        of(looking, model, stochastic_depth=0.4)(model, batch)
        assert gone == pytest.approx([0.2, 0.4], abs=0.04)
        assert (model.encoder.layers[0].dropout(torch.ones(9, 2, 32)) == 1).all(), (
            "and all are there afterwards"
        )

    def test_what_is_left_out_leaves_the_input_as_it_is(self) -> None:
        states = torch.randn(500, 2, 32)
        model = torch.nn.Module()
        sizes: dict[str, Any] = {"hidden_size": 32, "dropout": 0.0, "num_encoder_layers": 1}
        model.encoder = Side(tiny(20, "encoder", **sizes), 1, causal=False)
        changed: list[Any] = []

        def looking(model: Any, batch: Any, smoothing: float = 0.0) -> Loss:
            changed.append(model.encoder.layers[0].dropout(torch.ones_like(states), onto=states) - states)
            return Loss(states.sum(), 1, 1)

        of(looking, model, stochastic_depth=0.5)(model, None)
        gone = (changed[0].abs() < 1e-5).all(dim=2).all(dim=1)
        assert 0.4 < float(gone.float().mean()) < 0.6
        torch.testing.assert_close(changed[0][~gone], torch.full_like(changed[0][~gone], 2.0))

    def test_only_a_transformer_has_layers_to_leave_out(self) -> None:
        with pytest.raises(ConfigError, match="layers of a Transformer"):
            of(classification, classifier("cnn"), stochastic_depth=0.1)


ALL: dict[str, float] = {"r_drop": 1.0, "word_dropout": 0.1, "stochastic_depth": 0.2}


def test_together_and_under_attack_a_killed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "regularize": Regularization(**ALL), "adversarial": AdversarialOptions("fgm"), "epochs": 1,
    }  # fmt: skip
    whole = reversing.run(tmp_path / "whole", **options)[1]
    with pytest.raises(ZeroDivisionError):
        reversing.run(tmp_path / "cut", collate=_failing(4), save_every_s=0, **options)
    assert reversing.run(tmp_path / "cut", model=reversing.small_model(seed=8), **options)[1] == whole


def _failing(at: int) -> Callable[[Any], Any]:
    calls = iter(range(at))

    def collate(rows: Any) -> Any:
        if next(calls, None) is None:
            raise ZeroDivisionError
        return reversing.collate(rows)

    return collate


def test_every_problem_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        Regularization(mixup=1.0, r_drop=2.0, word_dropout=1.0, stochastic_depth=-0.5)
    for part in ("mixup and r_drop exclude", "word_dropout=1.0 must be below 1", "stochastic_depth=-0.5"):
        assert part in str(error.value)


def test_options_come_from_plain_values() -> None:
    from inkstone.ground.configuration import build, plain

    values = {"regularize": {"r_drop": 2.0}, "adversarial": {"kind": "pgd", "steps": 2}}
    options = build(TrainingOptions, values, "recipe")
    assert options.regularize == Regularization(r_drop=2.0)
    assert options.adversarial == AdversarialOptions("pgd", steps=2)
    assert build(TrainingOptions, plain(options), "recipe") == options
