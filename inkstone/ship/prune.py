"""Pruning: weights that matter little become zero, or whole heads and feed-forward columns go and the model gets smaller.

How much a weight matters is one of two scores:

    magnitude   |w_oi|               (Han et al., 2015)
    wanda       |w_oi| |x_i|_2       times how large the inputs of that column are on real text (Sun et al., 2023)

`prune_weights` sets the lowest share of every row of every matrix to zero: rows are compared with themselves, as Sun et
al. found better. The model is as large and as fast as before; only what compresses files gains by it.

`prune_structure` takes heads and feed-forward columns away. A head is as good as the columns of the output matrix that
read it, a feed-forward column as the column of the down matrix: the sum of the squared scores. Every layer keeps as many
as the others, each its own best, so what is left is an ordinary `ModelConfig` and an ordinary checkpoint. With grouped
queries a group of keys and values goes with all its heads.

`drop_layers` keeps layers spread evenly over the depth, the first and the last among them (Sajjad et al., 2023).

What was taken away hurts; distillation from the whole model heals most of it (`recipes.compress`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from inkstone.ground.errors import ConfigError, not_known, raise_all
from inkstone.model.attention import Attention
from inkstone.model.config import ModelConfig
from inkstone.model.transformer import FeedForward, Transformer

Score = Literal["magnitude", "wanda"]
SCORES: tuple[str, ...] = get_args(Score)
COLUMNS = 16  # feed-forward columns go in multiples of this, which kernels like
Norms = Mapping[str, Tensor]  # of a linear layer by its name: |x_i|_2 of its inputs, (I)


@dataclass(slots=True)
class _Sum:
    squares: Tensor


@contextmanager
def _listening(model: nn.Module, sums: dict[str, _Sum]) -> Iterator[None]:
    """Add up the squares of what goes into every linear layer."""

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            squares_I = given[0].detach().float().flatten(0, -2).square().sum(0)
            if name in sums:
                sums[name].squares += squares_I
            else:
                sums[name] = _Sum(squares_I)

        return hook

    handles = [
        module.register_forward_pre_hook(note(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def input_norms(model: nn.Module, run: Callable[[nn.Module], object]) -> dict[str, Tensor]:
    """The norm of each input of every linear layer while `run` puts texts through the model. Padding counts too."""
    sums: dict[str, _Sum] = {}
    model.eval()
    with torch.no_grad(), _listening(model, sums):
        run(model)
    if not sums:
        raise ConfigError(
            "no text went through the model: there is nothing to tell how large its inputs are."
        )
    return {name: one.squares.sqrt() for name, one in sums.items()}


def _checked(share: float, score: str, norms: Norms | None) -> None:
    problems = [] if 0 < share < 1 else [f"share={share} must be above 0 and below 1"]
    problems += [] if score in SCORES else [not_known("score", score, SCORES)]
    if score == "wanda" and norms is None:
        problems.append("score=wanda needs the norms of the inputs: give texts, or use magnitude")
    raise_all(ConfigError, "pruning", problems)


def _scores(weight_OI: Tensor, name: str, score: str, norms: Norms | None) -> Tensor:
    size_OI = weight_OI.detach().abs().float()
    if score == "wanda" and norms is not None and name in norms:
        size_OI = size_OI * norms[name]
    return size_OI


@torch.no_grad()
def prune_weights(
    model: nn.Module, share: float, *, score: Score = "wanda", norms: Norms | None = None
) -> float:
    """Set this share of every row of every linear layer to zero, in place; the share of zeros in them then.

    Embeddings stay, and so do linear layers that no text went through (wanda): nothing is known of them.
    Raises ConfigError for a share or a score that cannot be.
    """
    _checked(share, score, norms)
    zeros = total = 0
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear) or (
            score == "wanda" and norms is not None and name not in norms
        ):
            continue
        scores_OI = _scores(module.weight, name, score, norms)
        count = int(share * scores_OI.shape[1])
        if count:
            lowest = scores_OI.topk(count, dim=1, largest=False).indices
            module.weight.scatter_(1, lowest, 0.0)
        zeros += int((module.weight == 0).sum())
        total += module.weight.numel()
    return zeros / max(1, total)


def prune_structure(
    model: Transformer,
    *,
    heads: float = 0.0,
    columns: float = 0.0,
    score: Score = "wanda",
    norms: Norms | None = None,
) -> Transformer:
    """A smaller model without this share of the heads and of the feed-forward columns, the least important of each layer.

    Of grouped queries, whole groups go. At least one head and one column stay. Raises ConfigError for shares or a score
    that cannot be.
    """
    for share in (heads, columns):
        _checked(share or 0.5, score, norms)
    config = model.config
    if heads and config.positions == "relative":
        raise ConfigError(
            "heads cannot be pruned with positions=relative: all layers share one bias for each head. "
            "Prune columns or weights."
        )
    groups = max(1, round(config.num_kv_heads * (1 - heads)))
    per_group = config.num_heads // config.num_kv_heads
    step = COLUMNS if config.feed_forward_size >= 4 * COLUMNS else 1
    width = (
        max(step, round(config.feed_forward_size * (1 - columns) / step) * step)
        if columns
        else config.feed_forward_size
    )
    smaller = replace(config, num_heads=groups * per_group, num_kv_heads=groups, feed_forward_size=width)
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, Attention) and groups < config.num_kv_heads:
            _cut_heads(weights, name, module, groups, score, norms)
        if isinstance(module, FeedForward) and width < config.feed_forward_size:
            _cut_columns(weights, name, module, width, score, norms)
    return Transformer.of_weights(smaller, weights)


def _best(importance: Tensor, count: int) -> Tensor:
    """The places of the largest, in their old order."""
    return importance.topk(count).indices.sort().values


def _cut_heads(
    weights: dict[str, Tensor], name: str, module: Attention, groups: int, score: str, norms: Norms | None
) -> None:
    config: ModelConfig = module.config
    G, K = config.num_kv_heads, config.head_size
    per_group = config.num_heads // G
    scores_DX = _scores(module.output.weight, f"{name}.output", score, norms)
    kept = _best(scores_DX.square().sum(0).view(G, -1).sum(1), groups)
    heads = (kept[:, None] * per_group + torch.arange(per_group, device=kept.device)).flatten()
    queries, keys = _rows_of(heads, K), _rows_of(kept, K)
    size, kv = config.num_heads * K, G * K
    if module.over_memory:
        rows = {"query": queries, "key_value": torch.cat([keys, kv + keys])}
    else:
        rows = {"query_key_value": torch.cat([queries, size + keys, size + kv + keys])}
    for layer, chosen in rows.items():
        for kind in ("weight", "bias"):
            if f"{name}.{layer}.{kind}" in weights:
                weights[f"{name}.{layer}.{kind}"] = weights[f"{name}.{layer}.{kind}"][chosen].contiguous()
    weights[f"{name}.output.weight"] = weights[f"{name}.output.weight"][:, queries].contiguous()


def _rows_of(heads: Tensor, size: int) -> Tensor:
    """The rows of these heads in a matrix that holds heads one under the other."""
    return (heads[:, None] * size + torch.arange(size, device=heads.device)).flatten()


def _cut_columns(
    weights: dict[str, Tensor], name: str, module: FeedForward, width: int, score: str, norms: Norms | None
) -> None:
    scores_DF = _scores(module.down.weight, f"{name}.down", score, norms)
    kept = _best(scores_DF.square().sum(0), width)
    rows = torch.cat([kept, scores_DF.shape[1] + kept]) if module.gated else kept
    for kind in ("weight", "bias"):
        if f"{name}.up.{kind}" in weights:
            weights[f"{name}.up.{kind}"] = weights[f"{name}.up.{kind}"][rows].contiguous()
    weights[f"{name}.down.weight"] = weights[f"{name}.down.weight"][:, kept].contiguous()


def drop_layers(model: Transformer, *, encoder: int, decoder: int) -> Transformer:
    """A model of so many layers a side, taken evenly from the old ones; 0 keeps all of that side.

    Raises ConfigError for more layers than there are.
    """
    config = model.config
    wanted = {
        "encoder": encoder or config.num_encoder_layers,
        "decoder": decoder or config.num_decoder_layers,
    }
    problems = [
        f"{count} {side} layers cannot be kept of {has}"
        for side, count in wanted.items()
        if not 0 <= count <= (has := getattr(config, f"num_{side}_layers")) or (has and not count)
    ]
    raise_all(ConfigError, "dropping layers", problems)
    kept = {
        side: evenly_spread(getattr(config, f"num_{side}_layers"), count) for side, count in wanted.items()
    }
    weights: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        if len(parts) > 2 and parts[0] in kept and parts[1] == "layers":
            if int(parts[2]) not in kept[parts[0]]:
                continue
            parts[2] = str(kept[parts[0]].index(int(parts[2])))
        weights[".".join(parts)] = tensor.detach().clone()
    smaller = replace(config, num_encoder_layers=wanted["encoder"], num_decoder_layers=wanted["decoder"])
    return Transformer.of_weights(smaller, weights)


def evenly_spread(depth: int, count: int) -> list[int]:
    """Which of `depth` layers stay when `count` do: the first, the last, and evenly between; of one, the first.

    >>> evenly_spread(6, 3)
    [0, 2, 5]
    """
    if count <= 1:
        return [0][:count]
    return [round(n * (depth - 1) / (count - 1)) for n in range(count)]
