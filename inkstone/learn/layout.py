"""How a model would lie on several GPUs: memory for weights, gradients, moments and activations of each, and the time.

    sharded, a part on each of N GPUs    weights 4 P / N   gradients 4 P / N   AdamW's two moments 8 P / N   bytes
    gathered, on every GPU               the two largest blocks in turn (one is fetched while one computes), and what is
                                         outside the blocks, with its gradient
    activations                          what the forward pass keeps for the backward pass

P is counted on the model itself, built without memory. Activations are not estimated but counted: the forward pass is run
on tensors that have shapes and no content, and every tensor that it saves for the backward pass is added up. So the plan
follows the code. Time is arithmetic over the speed of the machine: 6 operations a parameter and token for the matrices
(8 with checkpointed activations), and those of attention (Kaplan et al., 2020). How much of the peak speed is reached is
an assumption, which is printed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from inkstone.learn.recompute import recomputed
from inkstone.model.attention import fused_on
from inkstone.model.config import ModelConfig
from inkstone.model.transformer import Block, Transformer

FLOAT32, BFLOAT16 = 4, 2  # bytes
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Machine:
    """A GPU and what is assumed of it."""

    name: str = "80 GB GPU"
    memory_bytes: float = 80e9
    peak_flops: float = 989e12  # bfloat16 matrices, dense, as an H100's data sheet says
    share: float = 0.4  # of the peak that a training step reaches
    bandwidth: float = 450e9  # bytes a second to the other GPUs, in one direction (NVLink 4)


@dataclass(frozen=True, slots=True)
class Layout:
    """What one GPU of several holds, in bytes, and how long a step takes, in seconds."""

    gpus: int
    tokens: int  # of one GPU in a step
    weights: float
    gradients: float
    moments: float
    gathered: float
    activations: float
    compute_s: float
    traffic_s: float

    @property
    def total(self) -> float:
        """All of it, in bytes."""
        return self.weights + self.gradients + self.moments + self.gathered + self.activations

    @property
    def step_s(self) -> float:
        """Parts are fetched while others are computed with, so the longer of the two counts."""
        return max(self.compute_s, self.traffic_s)

    @property
    def tokens_per_second(self) -> float:
        """Of all GPUs together."""
        return self.gpus * self.tokens / self.step_s


def layout(
    config: ModelConfig,
    gpus: int,
    *,
    rows: int,
    length: int,
    recompute: bool = False,
    machine: Machine | None = None,
) -> Layout:
    """How a decoder of this configuration lies on so many GPUs, each reading so many rows of so many tokens a step."""
    machine = machine or Machine()
    model = without_memory(config)
    count = parameters(model)
    blocks = [parameters(block) for block in model.modules() if isinstance(block, Block)]
    outside = count - sum(blocks)
    gathered = 0.0
    if gpus > 1:
        gathered = FLOAT32 * (2 * outside + 2 * sum(sorted(blocks)[-2:]))  # each with its gradient
    tokens = rows * length
    flops = tokens * flops_per_token(config, count, length) * (4 / 3 if recompute else 1)
    traffic = 3 * FLOAT32 * count * (gpus - 1) / gpus  # gathered twice, gradients scattered once
    return Layout(
        gpus=gpus,
        tokens=tokens,
        weights=FLOAT32 * count / gpus,
        gradients=FLOAT32 * count / gpus,
        moments=2 * FLOAT32 * count / gpus,
        gathered=gathered,
        activations=activations(config, rows, length, recompute=recompute),
        compute_s=flops / (machine.peak_flops * machine.share),
        traffic_s=traffic / machine.bandwidth,
    )


def without_memory(config: ModelConfig) -> Transformer:
    """The model with shapes and no content."""
    with torch.device("meta"):
        return Transformer(config)


def parameters(model: nn.Module) -> int:
    """How many numbers a model has learnt."""
    return sum(parameter.numel() for parameter in model.parameters())


def flops_per_token(config: ModelConfig, count: int, length: int) -> float:
    """Of the forward and the backward pass: a multiplication and an addition with every parameter, three times, and those
    of queries with keys and of weights with values over the whole row (Chowdhery et al., 2022). A table of embeddings
    that does not score the outputs as well is only looked up."""
    looked_up = 0 if config.tie_embeddings else config.vocab_size * config.hidden_size
    attention = 12 * config.num_decoder_layers * config.num_heads * config.head_size * length
    return 6.0 * (count - looked_up) + attention


def activations(config: ModelConfig, rows: int, length: int, *, recompute: bool = False) -> float:
    """Bytes that a decoder keeps from its forward to its backward pass under autocast to bfloat16, without dropout.

    Under recomputation the block that is being computed again counts too. The scores over the vocabulary are made and
    used up in chunks, and are not among them (`objectives.loss`).
    """
    kept = _kept(config, rows, length, recompute=recompute)
    if recompute:
        one, two = (_kept(replace(config, num_decoder_layers=n), rows, length) for n in (1, 2))
        kept += two - one
    return kept


def _kept(config: ModelConfig, rows: int, length: int, *, recompute: bool = False) -> float:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.device("cpu"), fused_on("cpu"):  # as on a GPU
        model = Transformer(replace(config, dropout=0.0, max_positions=max(config.max_positions, length)))
        ids_BT = torch.zeros(rows, length, dtype=torch.long)
        return float(saved_bytes(model, ids_BT, recompute=recompute))


def saved_bytes(model: Transformer, ids_BT: Tensor, *, recompute: bool = False) -> int:
    """Bytes of all tensors that a decoder's forward pass saves for the backward pass, its parameters aside."""
    found: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage._cdata] = storage
        return tensor

    learnt = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    with (
        recomputed(model, recompute),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        states_BTD = model.decode(ids_BT)
    assert states_BTD.requires_grad
    return sum(storage.nbytes() for address, storage in found.items() if address not in learnt)


def table(layouts: Iterable[Layout], machine: Machine, tokens: float) -> str:
    """A Markdown table of layouts, with the days that so many tokens take."""
    head = ["GPUs", "weights", "gradients", "moments", "gathered", "activations", "GiB a GPU", "fits"]
    lines = [[*head, "compute s", "traffic s", "tokens/s", "days"]]
    lines.append(["---:"] * len(lines[0]))
    for one in layouts:
        sizes = (one.weights, one.gradients, one.moments, one.gathered, one.activations, one.total)
        fits = "yes" if one.total <= 0.92 * machine.memory_bytes else "no"
        days = tokens / one.tokens_per_second / 86_400
        speeds = [
            f"{one.compute_s:.2f}",
            f"{one.traffic_s:.2f}",
            f"{one.tokens_per_second:,.0f}",
            f"{days:,.1f}",
        ]
        lines.append([str(one.gpus), *(f"{size / GIB:.1f}" for size in sizes), fits, *speeds])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
