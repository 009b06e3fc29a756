"""Distillation: the objectives against their plain forms, the teacher's outputs as targets, and that a student learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from inkstone.generate.engine import GenerationOptions, Hypothesis
from inkstone.ground.errors import ConfigError, TrainingError
from inkstone.learn.data.batches import LabelExample, PairBatch, PairExample, label_batch, pair_batch
from inkstone.learn.loop import TrainingOptions, train
from inkstone.learn.objectives import classification, sequence_to_sequence
from inkstone.learn.objectives.distillation import (
    DistillationOptions,
    distilled,
    distilled_labels,
    linear_divergence,
    unlike_states,
)
from inkstone.model.config import tiny
from inkstone.model.transformer import Transformer
from inkstone.ship.distil import AT_ONCE, teacher_targets


def model(seed: int, shape: Any = "encoder-decoder", **overlay: Any) -> Transformer:
    sizes = {"hidden_size": 32, "feed_forward_size": 48, "dropout": 0.0, "num_heads": 2, **overlay}
    return Transformer(tiny(20, shape, **sizes), torch.Generator().manual_seed(seed)).eval()


def examples(count: int = 64) -> list[PairExample]:
    generator = torch.Generator().manual_seed(4)
    rows = [torch.randint(4, 20, (4,), generator=generator).tolist() for _ in range(count)]
    return [PairExample((*row, 3), tuple(row[::-1])) for row in rows]


def collate(rows: Any) -> PairBatch:
    return pair_batch(rows, pad_id=0, bos_id=2, eos_id=3)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_divergence_in_chunks_is_the_plain_one(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, taught = torch.randn(600, 8, generator=generator), torch.randn(600, 5, generator=generator)
    weight, teacher = torch.randn(30, 8, generator=generator), torch.randn(30, 5, generator=generator)
    sides = []
    for plain in (True, False):
        own, matrix = x.clone().requires_grad_(), weight.clone().requires_grad_()
        if plain:
            found, wanted = own @ matrix.t() / temperature, taught @ teacher.t() / temperature
            value = temperature**2 * F.kl_div(
                found.log_softmax(1), wanted.log_softmax(1), log_target=True, reduction="batchmean"
            )
        else:
            value = linear_divergence(own, matrix, taught, teacher, temperature)
        (2 * value).backward()
        sides.append((value.detach(), own.grad, matrix.grad))
    for one, other in zip(*sides, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]


def test_without_the_teacher_it_is_the_objective_of_the_data_and_a_copy_has_nothing_to_learn() -> None:
    batch, student, teacher = collate(examples(8)), model(1), model(2, hidden_size=16, num_encoder_layers=2)
    plain = sequence_to_sequence(student, batch)
    alone = distilled(teacher, DistillationOptions(share=0.0))(student, batch)
    assert torch.equal(alone.mean, plain.mean) and alone.correct == plain.correct
    copy = distilled(model(1), DistillationOptions(share=1.0, hidden=1.0))(student, batch)
    assert copy.mean.abs() < 1e-5
    assert distilled(teacher, DistillationOptions(share=1.0))(student, batch).mean > 0.01


def test_the_teacher_is_never_changed() -> None:
    student, teacher = model(1), model(2)
    loss = distilled(teacher, DistillationOptions(hidden=0.5))(student, collate(examples(8)))
    loss.mean.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters())


def test_states_are_compared_whatever_their_widths() -> None:
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(40, 12, generator=generator)
    turn, _ = torch.linalg.qr(torch.randn(30, 30, generator=generator))
    assert float(unlike_states(own, own * 3)) == pytest.approx(0, abs=1e-6)  # only directions count
    assert float(unlike_states(own, -own)) == pytest.approx(2)
    wider = F.pad(own, (0, 18)) @ turn  # the same tokens are alike, in another space
    assert float(unlike_states(own, wider)) == pytest.approx(0, abs=1e-6)
    assert float(unlike_states(own, torch.randn(40, 30, generator=generator))) > 0.01


@pytest.mark.parametrize("multi_label", [False, True])
def test_labels_a_copy_has_nothing_to_learn(multi_label: bool) -> None:
    rows = [LabelExample((2, 5, 6), (1,)), LabelExample((2, 7), (0, 2) if multi_label else (2,))]
    batch = label_batch(rows, pad_id=0, num_labels=3, multi_label=multi_label)
    student, other = model(1, "encoder", num_labels=3), model(2, "encoder", num_labels=3)
    only = DistillationOptions(share=1.0)
    copy = model(1, "encoder", num_labels=3)
    assert distilled_labels(copy, only)(student, batch).mean.abs() < 1e-6
    assert distilled_labels(other, only)(student, batch).mean > 1e-4
    seen = DistillationOptions(share=0.0, hidden=1.0)
    plain = classification(student, batch)
    assert (distilled_labels(copy, seen)(student, batch).mean - plain.mean).abs() < 1e-5  # the same states
    assert distilled_labels(other, seen)(student, batch).mean > plain.mean + 0.01
    assert torch.equal(
        distilled_labels(other, DistillationOptions(share=0.0))(student, batch).mean, plain.mean
    )


def test_a_student_comes_nearer_to_its_teacher_through_the_one_loop(tmp_path: Path) -> None:
    student, teacher, rows = model(1, num_encoder_layers=1, num_decoder_layers=1), model(2), examples()
    objective = distilled(teacher, DistillationOptions(share=1.0, temperature=1.0))
    with torch.no_grad():
        before = float(objective(student, collate(rows)).mean)
    options = TrainingOptions(
        epochs=6,
        tokens_per_batch=200,
        learning_rate=5e-3,
        warmup_steps=2,
        threads=1,
        precision="float32",
        smoothing=0.0,
    )
    train(student, objective, rows, collate, lambda one: {"accuracy": 0.0}, options, tmp_path)  # type: ignore[arg-type]
    first = tmp_path / "checkpoints"
    assert first.exists()
    newest = sorted(first.glob("last-*"))[-1]
    from safetensors.torch import load_file

    student.load_state_dict(load_file(newest / "model.safetensors"))
    with torch.no_grad():
        assert float(objective(student, collate(rows)).mean) < 0.7 * before


class Teacher:
    """Says each source backwards with its best hypothesis; sources of one token it never brings to an end."""

    name = "teacher"

    def __init__(self) -> None:
        self.asked: list[GenerationOptions] = []

    def generate(
        self, sources: Sequence[Sequence[int]], options: GenerationOptions
    ) -> list[list[Hypothesis]]:
        self.asked.append(options)
        return [
            [Hypothesis(tuple(ids[-2::-1]), -1.0, finished=len(ids) > 2), Hypothesis((9,), -2.0)]
            for ids in sources
        ]

    def score(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[float]:
        raise AssertionError("nobody asks for scores")


def test_the_teachers_outputs_become_targets() -> None:
    teacher = Teacher()
    sources = [[5, 6, 7, 3], [9, 3], *([[8, 4, 3]] * AT_ONCE)]
    found = teacher_targets(teacher, sources, beam_size=2, most_tokens=40)
    assert found == [(7, 6, 5), (), *([(4, 8)] * AT_ONCE)]
    assert teacher.asked == [GenerationOptions(beam_size=2, max_length=40)] * 2
    with pytest.raises(TrainingError, match="no output to an end"):
        teacher_targets(teacher, [[9, 3]], most_tokens=9)


@pytest.mark.parametrize("student", [{}, {"output_bias": True}, {"scale_output": True, "hidden_size": 24}])
@pytest.mark.parametrize(
    "teacher",
    [
        {"output_bias": True},
        {"scale_output": True},
        {"output_bias": True, "scale_output": True, "tie_embeddings": False},
    ],
)
def test_scores_that_are_more_than_states_times_matrix(
    student: dict[str, Any], teacher: dict[str, Any]
) -> None:
    """Against the plain form over whole logits, in value and in every gradient."""
    batch, options = collate(examples(12)), DistillationOptions(share=0.7, temperature=2.0)
    learner, guide = model(1, **student), model(2, **teacher)
    with torch.no_grad():
        for number, one in enumerate((learner, guide)):
            if one.output_bias is not None:
                one.output_bias.normal_(0, 1, generator=torch.Generator().manual_seed(number))
    found = distilled(guide, options)(learner, batch, 0.1)
    found.mean.backward()  # type: ignore[no-untyped-call]
    gradients = {name: one.grad.clone() for name, one in learner.named_parameters() if one.grad is not None}
    learner.zero_grad()

    def logits(one: Transformer) -> torch.Tensor:
        return one(batch.source_BS, batch.target_BT).flatten(0, 1)[batch.counted_N]

    own_NV, taught_NV = logits(learner), logits(guide).detach()
    data = F.cross_entropy(own_NV, batch.wanted_N, label_smoothing=0.1)
    taught = F.kl_div(
        (own_NV / 2).log_softmax(1), (taught_NV / 2).log_softmax(1), log_target=True, reduction="batchmean"
    )
    plain = 0.3 * data + 0.7 * 4 * taught
    plain.backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(found.mean, plain, rtol=1e-4)
    assert set(gradients) == {name for name, one in learner.named_parameters() if one.grad is not None}
    assert ("output_bias" in gradients) == ("output_bias" in student)
    for name, one in learner.named_parameters():
        if one.grad is not None:
            assert torch.allclose(gradients[name], one.grad, rtol=1e-3, atol=1e-6), name


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        DistillationOptions(share=2.0, temperature=0.0, hidden=-1.0)
    assert all(word in str(caught.value) for word in ("share=2.0", "temperature=0.0", "hidden=-1.0"))
