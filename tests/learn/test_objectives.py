"""Objectives, schedules and the optimiser beside torch's plain versions."""

from __future__ import annotations

import itertools
import math

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

import torch.nn.functional as F  # noqa: E402

from inkstone.learn.data.batches import LabelBatch, PairExample, pair_batch  # noqa: E402
from inkstone.learn.muon import Muon  # noqa: E402
from inkstone.learn.objectives import OBJECTIVES, classification, sequence_to_sequence  # noqa: E402
from inkstone.learn.objectives.loss import CHUNK, linear_cross_entropy  # noqa: E402
from inkstone.learn.optim import SCHEDULES, adamw, muon, rate  # noqa: E402
from inkstone.model.config import tiny  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402

COUNTS = (1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7)


def rows(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    x, weight = (torch.randn(n, 16, generator=generator) for n in (count, 37))
    return x, weight, torch.randint(0, 37, (count,), generator=generator)


@pytest.mark.parametrize(("count", "smoothing"), [*itertools.product(COUNTS, (0.0, 0.1, 0.5))])
def test_linear_cross_entropy_is_torch_s(count: int, smoothing: float) -> None:
    x, weight, wanted = rows(count)
    mine = [t.clone().requires_grad_() for t in (x, weight)]
    plain = [t.clone().requires_grad_() for t in (x, weight)]
    loss = linear_cross_entropy(mine[0], mine[1], wanted, smoothing)
    logits = plain[0] @ plain[1].T
    expected = F.cross_entropy(logits, wanted, label_smoothing=smoothing)
    (loss.mean * 3).backward()
    (expected * 3).backward()
    torch.testing.assert_close(loss.mean, expected, atol=1e-5, rtol=1e-5)
    for a, b in zip(mine, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4)
    assert (loss.count, loss.correct) == (count, int((logits.argmax(1) == wanted).sum()))


@pytest.mark.parametrize("count", (5, CHUNK + 1))
def test_linear_cross_entropy_in_bfloat16_is_near_float32(count: int) -> None:
    x, weight, wanted = rows(count)
    mine = (x.bfloat16().requires_grad_(), weight.clone().requires_grad_())
    plain = (x.clone().requires_grad_(), weight.clone().requires_grad_())
    loss = linear_cross_entropy(*mine, wanted, 0.1)
    expected = F.cross_entropy(plain[0] @ plain[1].T, wanted, label_smoothing=0.1)
    loss.mean.backward()
    expected.backward()
    assert (mine[0].grad.dtype, mine[1].grad.dtype) == (torch.bfloat16, torch.float32)
    assert float(loss.mean.detach()) == pytest.approx(float(expected.detach()), rel=0.02)
    for a, b in zip(mine, plain, strict=True):
        assert float((a.grad.float() - b.grad).norm() / b.grad.norm()) < 0.03


def test_large_logits_do_not_overflow() -> None:
    x, weight = torch.full((2, 1), 1000.0), torch.tensor([[1.0], [-1.0], [0.0]])
    loss = linear_cross_entropy(x, weight, torch.tensor([0, 1]))
    assert float(loss.mean.detach()) == pytest.approx(1000.0)


def test_sequence_to_sequence_scores_every_real_token_and_no_padding() -> None:
    model = Transformer(tiny(60, dropout=0.0), torch.Generator().manual_seed(1)).eval()
    data = [PairExample([5, 6, 3], [7, 8, 9, 10]), PairExample([11, 3], [12]), PairExample([5, 3], [])]
    batch = pair_batch(data, pad_id=0, bos_id=2, eos_id=3)
    loss = sequence_to_sequence(model, batch, 0.1)
    logits, wanted = [], []
    for example in data:  # one by one, by hand
        target = torch.tensor([[2, *example.target]])
        logits.append(model(torch.tensor([example.source]), target)[0])
        wanted += [*example.target, 3]
    expected = F.cross_entropy(torch.cat(logits), torch.tensor(wanted), label_smoothing=0.1)
    torch.testing.assert_close(loss.mean, expected, atol=1e-5, rtol=1e-5)
    assert loss.count == len(wanted) == 8


def test_classification_is_torch_s_cross_entropy() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    ids = torch.zeros(6, 1, dtype=torch.long)
    classes = torch.tensor([0, 1, 2, 3, 0, 1])
    model = torch.nn.Identity()
    model.forward = lambda _: logits
    loss = classification(model, LabelBatch(ids, classes, 6), 0.1)
    torch.testing.assert_close(loss.mean, F.cross_entropy(logits, classes, label_smoothing=0.1))
    assert (loss.count, loss.correct) == (6, int((logits.argmax(1) == classes).sum()))
    many = torch.randint(0, 2, (6, 4), generator=torch.Generator().manual_seed(2)).float()
    loss = classification(model, LabelBatch(ids, many, 6))
    torch.testing.assert_close(loss.mean, F.binary_cross_entropy_with_logits(logits, many))
    assert loss.correct == int(((logits > 0) == many.bool()).all(1).sum())
    assert OBJECTIVES["classification"] is classification


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_rises_to_one_and_never_rises_again(schedule: str) -> None:
    rates = [rate(schedule, step, 10, 100) for step in range(100)]
    assert rates[:10] == [pytest.approx((step + 1) / 10) for step in range(10)]
    assert max(rates) == pytest.approx(1.0) and min(rates) >= 0
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(rates[9:]))
    assert rate(schedule, 0, 0, 100) == pytest.approx(1.0), "without a warm-up the peak comes at once"


def test_the_schedules_go_where_they_should() -> None:
    assert rate("cosine", 55, 10, 100) == pytest.approx(0.5)
    assert rate("cosine", 100, 10, 100) == pytest.approx(0.0)
    assert rate("linear", 55, 10, 100) == pytest.approx(0.5)
    assert rate("inverse-sqrt", 40, 10, 100) == pytest.approx(0.5)
    assert rate("constant", 99, 10, 100) == 1.0
    assert math.isfinite(rate("cosine", 5, 10, 3)), "a run shorter than its warm-up"


def test_only_matrices_decay() -> None:
    model = Transformer(tiny(60, bias="all", positions="learned", tie_embeddings=False))
    decayed, others = (
        {id(parameter) for parameter in group["params"]}
        for group in adamw(model, learning_rate=1, weight_decay=0.5, beta2=0.9).param_groups
    )
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() == 2 and "embedding" not in name
        assert (id(parameter) in decayed, id(parameter) in others) == (is_matrix, not is_matrix), name


def test_one_step_of_the_optimiser_is_adamw_by_hand() -> None:
    layer = torch.nn.Linear(3, 2)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    optimiser = adamw(layer, learning_rate=0.1, weight_decay=0.5, beta2=0.98)
    layer(torch.tensor([[1.0, -2.0, 3.0]])).sum().backward()
    optimiser.step()
    for name, p in layer.named_parameters():
        decay = 1 - 0.1 * 0.5 if name == "weight" else 1.0
        torch.testing.assert_close(
            p.detach(), before[name] * decay - 0.1 * p.grad.sign(), atol=1e-5, rtol=1e-4
        )


def test_muon_steps_every_direction_of_a_matrix_alike_and_the_rest_with_adamw() -> None:
    layer = torch.nn.Linear(24, 16)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    optimiser = muon(layer, learning_rate=0.1, weight_decay=0.0, beta2=0.98)
    generator = torch.Generator().manual_seed(1)
    inputs, outputs = torch.randn(64, 24, generator=generator), torch.randn(64, 16, generator=generator)
    torch.nn.functional.mse_loss(layer(inputs), outputs).backward()
    optimiser.step()
    step = (layer.weight.detach() - before["weight"]) / (0.1 * 0.2 * 24**0.5)
    sizes = torch.linalg.svdvals(step)
    gradient = torch.linalg.svdvals(layer.weight.grad)
    assert gradient[0] / gradient[-1] > 3 > 1.3 > sizes[0] and sizes[-1] > 0.6, sizes
    assert (step * layer.weight.grad).sum() < 0, "downhill"
    torch.testing.assert_close(
        layer.bias.detach(), before["bias"] - 0.1 * layer.bias.grad.sign(), atol=1e-5, rtol=1e-4
    )


def test_muon_in_stacks_is_torchs_muon() -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = [(8, 12), (8, 12), (12, 8), (16, 16)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    ours, theirs = ([torch.nn.Parameter(one.clone()) for one in start] for _ in range(2))
    optimisers = [
        Muon(ours, lr=0.2, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(3):
        for shape, one, other in zip(shapes, ours, theirs, strict=True):
            one.grad = torch.randn(shape, generator=generator)
            other.grad = one.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        torch.testing.assert_close(one.detach(), other.detach(), atol=0.02, rtol=0)  # bfloat16 inside
        assert (one.detach() - before).abs().mean() > 0.05


def test_the_bias_and_the_scale_of_the_output_are_learnt_too() -> None:
    config = tiny(40, output_bias=True, scale_output=True, dropout=0.0)
    model = Transformer(config, torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.output_bias.copy_(torch.randn(40, generator=torch.Generator().manual_seed(2)))
    examples = [PairExample((5, 6, 7, 3), (8, 9)), PairExample((10, 3), (11, 12, 13))]
    batch = pair_batch(examples, pad_id=0, bos_id=2, eos_id=3)
    sequence_to_sequence(model, batch, 0.1).mean.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    logits = model(batch.source_BS, batch.target_BT).flatten(0, 1)[batch.counted_N]
    F.cross_entropy(logits, batch.wanted_N, label_smoothing=0.1).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-6, rtol=1e-4, msg=name)
    assert found["output_bias"].abs().sum() > 0.1
