"""Attention with H query heads over G groups of keys and values, and what decoding remembers of it.

It is written out as two matrix products and a softmax instead of calling the fused kernel: on a CPU and for sentences
the fused one is slower in the backward pass (docs/journal.md), and the written-out one is what a reader wants to see.
Masks are boolean, True = may look. Long rows on a GPU do go through the fused kernel (Dao et al., 2022): written out, the
scores of all pairs of tokens would be most of a large model's memory (docs/scaling.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkstone.model.config import ModelConfig
from inkstone.model.dropout import Dropout
from inkstone.model.norms import RMSNorm

FUSED_FROM = 256  # tokens to look at; below, the written-out products are small
_fused_on: ContextVar[tuple[str, ...]] = ContextVar("fused_on", default=("cuda",))


@dataclass(slots=True)
class Cache:
    """What decoding remembers: per layer the keys and values of the tokens so far and of the memory."""

    length: int = 0
    own: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # each (B, G, L, K)
    memory: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # each (B, G, S, K)
    padding_B: Tensor | None = None  # of each row on the left

    def reorder(self, rows_B: Tensor) -> None:
        """Keep these rows of the batch, in this order; beam search moves hypotheses about with it."""
        self.own = [(k[rows_B], v[rows_B]) for k, v in self.own]
        self.memory = [(k[rows_B], v[rows_B]) for k, v in self.memory]
        self.padding_B = None if self.padding_B is None else self.padding_B[rows_B]


def fuses(q_BHTK: Tensor, k_BGSK: Tensor) -> bool:
    """Whether these go through torch's fused kernel, which never holds all scores at once: long rows on a GPU."""
    return k_BGSK.shape[2] >= FUSED_FROM and q_BHTK.device.type in _fused_on.get()


@contextmanager
def fused_on(*devices: str) -> Iterator[None]:
    """While the block runs, these kinds of device use the fused kernel for long rows, and no others."""
    before = _fused_on.set(devices)
    try:
        yield
    finally:
        _fused_on.reset(before)


def hidden(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A boolean mask (True = may look) as numbers to add to the scores: 0, and the least there is."""
    if mask is None:
        return None
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
        ~mask, torch.finfo(dtype).min
    )


class Attention(nn.Module):
    """Scaled dot-product attention (Vaswani et al., 2017) over the tokens themselves or over a memory."""

    def __init__(self, config: ModelConfig, *, over_memory: bool) -> None:
        super().__init__()
        self.config, self.over_memory = config, over_memory
        size, kv_size = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
        bias = config.bias != "none"
        if over_memory:
            self.query = nn.Linear(config.hidden_size, size, bias=bias)
            self.key_value = nn.Linear(config.hidden_size, 2 * kv_size, bias=bias)
        else:
            self.query_key_value = nn.Linear(config.hidden_size, size + 2 * kv_size, bias=bias)
        self.output = nn.Linear(size, config.hidden_size, bias=config.bias in ("attention", "all"))
        normed = config.query_key_norm
        self.query_norm = RMSNorm(config.head_size, config.norm_epsilon) if normed else None
        self.key_norm = RMSNorm(config.head_size, config.norm_epsilon) if normed else None
        self.dropout = Dropout(config.dropout)

    def _split(self, x_BTX: Tensor) -> Tensor:
        split_BTHK: Tensor = x_BTX.unflatten(-1, (-1, self.config.head_size))  # type: ignore[no-untyped-call]
        return split_BTHK.transpose(1, 2)

    def project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the tokens themselves: (B, H, T, K), (B, G, T, K), (B, G, T, K)."""
        size, kv_size = (
            heads * self.config.head_size for heads in (self.config.num_heads, self.config.num_kv_heads)
        )
        q, k, v = self.query_key_value(x_BTD).split([size, kv_size, kv_size], dim=-1)
        q, k = self._split(q), self._split(k)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        return q, k, self._split(v)

    def project_query(self, x_BTD: Tensor) -> Tensor:
        """Queries to the memory: (B, H, T, K)."""
        q_BHTK = self._split(self.query(x_BTD))
        return q_BHTK if self.query_norm is None else self.query_norm(q_BHTK)

    def project_memory(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the memory: (B, G, S, K) each. They stay the same while decoding."""
        k, v = (self._split(x) for x in self.key_value(memory_BSD).chunk(2, dim=-1))
        return (k if self.key_norm is None else self.key_norm(k)), v

    def attend(
        self,
        q_BHTK: Tensor,
        k_BGSK: Tensor,
        v_BGSK: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """Mix the values by softmax(q k / sqrt(K) + bias): (B, T, D).

        bias: broadcasts to (B, H, T, S); hugely negative where a query may not look (`hidden`).
        """
        groups = self.config.num_heads // self.config.num_kv_heads
        if groups > 1:
            k_BGSK, v_BGSK = k_BGSK.repeat_interleave(groups, 1), v_BGSK.repeat_interleave(groups, 1)
        if self.config.scale_scores:
            q_BHTK = q_BHTK * self.config.head_size**-0.5
        if fuses(q_BHTK, k_BGSK):
            thinned = self.dropout.probability if self.training else 0.0
            fused_BHTK = F.scaled_dot_product_attention(
                q_BHTK, k_BGSK, v_BGSK, attn_mask=bias, dropout_p=thinned, scale=1.0
            )
            fused_BTD: Tensor = self.output(fused_BHTK.transpose(1, 2).flatten(2))
            return fused_BTD
        scores_BHTS = q_BHTK @ k_BGSK.transpose(-1, -2)
        if bias is not None:
            scores_BHTS = scores_BHTS.add_(bias)  # nobody else has seen them
        weights_BHTS = self.dropout(scores_BHTS.softmax(-1).to(v_BGSK.dtype))
        mixed_BTD: Tensor = self.output((weights_BHTS @ v_BGSK).transpose(1, 2).flatten(2))
        return mixed_BTD
