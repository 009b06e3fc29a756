"""The one Transformer: encoder, decoder or both, built from the axes of `ModelConfig`.

    encoder      ids_BS ─ embed ─ [self-attention, feed-forward] x N ─ memory_BSD ─ (pool, classify)
    decoder      ids_BT ─ embed ─ [causal self-attention, (attention to memory), feed-forward] x N ─ logits_BTV

Attention is written out as two matrix products and a softmax instead of calling the fused kernel: on a CPU and for
sentences the fused one is slower in the backward pass (docs/journal.md), and the written-out one is what a reader wants
to see. Masks are boolean, True = may look. Sequences are padded on the right, so a causal mask already hides the
padding of a target; the source needs its own mask.

With a `Cache`, `decode` takes only the new tokens and returns only their states; cached and uncached decoding give the
same numbers (tests/model/test_transformer.py).

Not here: relative position biases, query-key norms, and the other families' axes; they come with their checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkstone.ground.errors import ConfigError
from inkstone.model.config import ModelConfig
from inkstone.model.dropout import Dropout
from inkstone.model.positions import sinusoids

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


class RMSNorm(nn.Module):
    """x / rms(x) * weight (Zhang and Sennrich, 2019), computed in float32."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return (wide * self.weight).to(x.dtype)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation (Ba et al., 2016) that gives back the type it was given, whatever autocast says."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps).to(x.dtype)


def norm(config: ModelConfig) -> nn.Module:
    """The normalisation the configuration asks for."""
    kind = RMSNorm if config.norm == "rms" else LayerNorm
    return kind(config.hidden_size, config.norm_epsilon)


def rotary_table(length: int, size: int, base: float) -> Tensor:
    """Cosines and sines of the rotary angles (Su et al., 2021), halves repeated: (2, T, K)."""
    rates = base ** (-torch.arange(0, size, 2).float() / size)
    angles = (torch.arange(length).float()[:, None] * rates).repeat(1, 2)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x_BHTK: Tensor, table_2TK: Tensor) -> Tensor:
    """Turn each pair (i, i + K/2) of query or key features by its position's angle."""
    first, second = x_BHTK.chunk(2, dim=-1)
    cos, sin = table_2TK.to(x_BHTK.dtype).unbind(0)
    return x_BHTK * cos + torch.cat([-second, first], dim=-1) * sin


@dataclass(slots=True)
class Cache:
    """What decoding remembers: per layer the keys and values of the tokens so far and of the memory."""

    length: int = 0
    own: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # each (B, G, L, K)
    memory: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # each (B, G, S, K)

    def reorder(self, rows_B: Tensor) -> None:
        """Keep these rows of the batch, in this order; beam search moves hypotheses about with it."""
        self.own = [(k[rows_B], v[rows_B]) for k, v in self.own]
        self.memory = [(k[rows_B], v[rows_B]) for k, v in self.memory]


class Attention(nn.Module):
    """Scaled dot-product attention with H query heads over G groups of keys and values."""

    def __init__(self, config: ModelConfig, *, over_memory: bool) -> None:
        super().__init__()
        self.config, self.over_memory = config, over_memory
        size, kv_size = config.hidden_size, config.num_kv_heads * config.head_size
        if over_memory:
            self.query = nn.Linear(size, size, bias=config.bias)
            self.key_value = nn.Linear(size, 2 * kv_size, bias=config.bias)
        else:
            self.query_key_value = nn.Linear(size, size + 2 * kv_size, bias=config.bias)
        self.output = nn.Linear(size, size, bias=config.bias)
        self.dropout = Dropout(config.dropout)

    def _split(self, x_BTX: Tensor) -> Tensor:
        split_BTHK: Tensor = x_BTX.unflatten(-1, (-1, self.config.head_size))  # type: ignore[no-untyped-call]
        return split_BTHK.transpose(1, 2)

    def project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the tokens themselves: (B, H, T, K), (B, G, T, K), (B, G, T, K)."""
        size, kv_size = self.config.hidden_size, self.config.num_kv_heads * self.config.head_size
        q, k, v = self.query_key_value(x_BTD).split([size, kv_size, kv_size], dim=-1)
        return self._split(q), self._split(k), self._split(v)

    def project_memory(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the memory: (B, G, S, K) each. They stay the same while decoding."""
        k, v = self.key_value(memory_BSD).chunk(2, dim=-1)
        return self._split(k), self._split(v)

    def attend(self, q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Tensor | None) -> Tensor:
        """Mix the values by softmax(q k / sqrt(K)) where the mask (broadcast to B, H, T, S) says so: (B, T, D)."""
        groups = self.config.num_heads // self.config.num_kv_heads
        if groups > 1:
            k_BGSK, v_BGSK = k_BGSK.repeat_interleave(groups, 1), v_BGSK.repeat_interleave(groups, 1)
        scores_BHTS = (q_BHTK * self.config.head_size**-0.5) @ k_BGSK.transpose(-1, -2)
        if mask is not None:
            scores_BHTS = scores_BHTS.masked_fill(~mask, torch.finfo(scores_BHTS.dtype).min)
        weights_BHTS = self.dropout(scores_BHTS.float().softmax(-1).to(v_BGSK.dtype))
        mixed_BTD: Tensor = self.output((weights_BHTS @ v_BGSK).transpose(1, 2).flatten(2))
        return mixed_BTD


class FeedForward(nn.Module):
    """Two linear layers with an activation between, plain or gated (Shazeer, 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gated = config.feed_forward == "gated"
        self.activation = ACTIVATIONS[config.activation]
        self.up = nn.Linear(
            config.hidden_size, config.feed_forward_size * (2 if self.gated else 1), config.bias
        )
        self.down = nn.Linear(config.feed_forward_size, config.hidden_size, config.bias)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Each position by itself."""
        inner = self.up(x_BTD)
        if self.gated:
            gate, up = inner.chunk(2, dim=-1)
            inner = self.activation(gate) * up
        else:
            inner = self.activation(inner)
        out_BTD: Tensor = self.down(self.dropout(inner))
        return out_BTD


class Block(nn.Module):
    """One layer: self-attention, attention to the memory where there is one, feed-forward; each added to its input."""

    def __init__(self, config: ModelConfig, *, over_memory: bool) -> None:
        super().__init__()
        self.before = config.norm_place == "before"
        self.attention = Attention(config, over_memory=False)
        self.attention_norm = norm(config)
        self.memory_attention = Attention(config, over_memory=True) if over_memory else None
        self.memory_norm = norm(config) if over_memory else None
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = norm(config)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        mask: Tensor | None,
        table_2TK: Tensor | None,
        past: tuple[Tensor, Tensor] | None = None,
        memory: tuple[Tensor, Tensor] | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The new states, and the keys and values (past ones included) of self-attention for a cache."""
        q, k, v = self.attention.project(self._in(x_BTD, self.attention_norm))
        if table_2TK is not None:
            q, k = rotate(q, table_2TK), rotate(k, table_2TK)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        x_BTD = self._add(x_BTD, self.attention.attend(q, k, v, mask), self.attention_norm)
        if self.memory_attention is not None and self.memory_norm is not None and memory is not None:
            across = self.memory_attention
            q = across._split(across.query(self._in(x_BTD, self.memory_norm)))
            x_BTD = self._add(x_BTD, across.attend(q, *memory, memory_mask), self.memory_norm)
        x_BTD = self._add(
            x_BTD, self.feed_forward(self._in(x_BTD, self.feed_forward_norm)), self.feed_forward_norm
        )
        return x_BTD, (k, v)

    def _in(self, x_BTD: Tensor, norm: nn.Module) -> Tensor:
        return norm(x_BTD) if self.before else x_BTD

    def _add(self, x_BTD: Tensor, change_BTD: Tensor, norm: nn.Module) -> Tensor:
        total: Tensor = x_BTD + self.dropout(change_BTD)
        return total if self.before else norm(total)


def _across(block: nn.Module) -> Attention:
    """The attention to the memory of a block that has one."""
    assert isinstance(block, Block) and block.memory_attention is not None, (
        "a memory needs an encoder-decoder"
    )
    return block.memory_attention


class Transformer(nn.Module):
    """The model of a `ModelConfig`. Weights are drawn from the generator handed in (or torch's global one)."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        tables = {"learned": lambda: nn.Embedding(config.max_positions, config.hidden_size)}
        self.position_embedding = tables[config.positions]() if config.positions in tables else None
        self.encoder = nn.ModuleList(
            Block(config, over_memory=False) for _ in range(config.num_encoder_layers)
        )
        self.decoder = nn.ModuleList(
            Block(config, over_memory=config.has_encoder) for _ in range(config.num_decoder_layers)
        )
        final = config.norm_place == "before"
        self.encoder_norm = norm(config) if final and config.has_encoder else None
        self.decoder_norm = norm(config) if final and config.has_decoder else None
        untied = config.has_decoder and not config.tie_embeddings
        self.output = nn.Linear(config.hidden_size, config.vocab_size, bias=False) if untied else None
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels else None
        self.dropout = Dropout(config.dropout)
        self.register_buffer("position_table", self._position_table(), persistent=False)
        self._initialise(generator)

    def _position_table(self) -> Tensor | None:
        config = self.config
        if config.positions == "rotary":
            return rotary_table(config.max_positions, config.head_size, config.rotary_base)
        return (
            torch.from_numpy(sinusoids(config.max_positions, config.hidden_size))
            if config.positions == "sinusoidal"
            else None
        )

    def _initialise(self, generator: torch.Generator | None) -> None:
        """Xavier for matrices, as Vaswani et al.; the embedding so that the tied output starts with unit-sized logits."""
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                if name.endswith("bias"):
                    nn.init.zeros_(parameter)
            elif "embedding" in name:
                nn.init.normal_(parameter, std=self.config.hidden_size**-0.5, generator=generator)
            else:
                nn.init.xavier_uniform_(parameter, generator=generator)
        with torch.no_grad():
            self.embedding.weight[self.config.pad_id].zero_()

    def _embed(self, ids_BT: Tensor, start: int) -> tuple[Tensor, Tensor | None]:
        """The states before the first layer, and the rotary table of these positions."""
        config, end = self.config, start + ids_BT.shape[1]
        if end > config.max_positions:
            raise ConfigError(f"{end} tokens are more than the model's max_positions={config.max_positions}.")
        x_BTD = self.embedding(ids_BT)
        if config.scale_embeddings:
            x_BTD = x_BTD * config.hidden_size**0.5
        table = None
        if self.position_embedding is not None:
            x_BTD = x_BTD + self.position_embedding.weight[start:end]
        elif config.positions == "rotary":
            table = self.position_table[:, start:end]  # type: ignore[index]
        else:
            x_BTD = x_BTD + self.position_table[start:end]  # type: ignore[index]
        if torch.is_autocast_enabled(x_BTD.device.type):
            x_BTD = x_BTD.to(torch.get_autocast_dtype(x_BTD.device.type))
        return self.dropout(x_BTD), table

    def encode(self, ids_BS: Tensor) -> Tensor:
        """The memory of a batch of sources (padded with pad_id on the right): (B, S, D)."""
        mask_B11S = self.visible(ids_BS)
        x_BSD, table = self._embed(ids_BS, 0)
        for block in self.encoder:
            x_BSD, _ = block(x_BSD, mask_B11S, table)
        return x_BSD if self.encoder_norm is None else self.encoder_norm(x_BSD)

    def visible(self, ids_BS: Tensor) -> Tensor:
        """True where a source token is not padding: (B, 1, 1, S)."""
        return (ids_BS != self.config.pad_id)[:, None, None, :]

    def decode(
        self,
        ids_BT: Tensor,
        memory_BSD: Tensor | None = None,
        memory_mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """The states of the target tokens: (B, T, D).

        memory_BSD, memory_mask: from `encode` and `visible`, for encoder-decoder models. cache: tokens before these
        ones; it is extended in place, and the memory is then only needed at the first call.
        """
        start = cache.length if cache is not None else 0
        length = ids_BT.shape[1]
        x_BTD, table = self._embed(ids_BT, start)
        mask_TL = None
        if length > 1:
            mask_TL = torch.ones(length, start + length, dtype=torch.bool, device=ids_BT.device).tril(start)
        if cache is not None and not cache.memory and memory_BSD is not None:
            cache.memory = [_across(block).project_memory(memory_BSD) for block in self.decoder]
        for number, block in enumerate(self.decoder):
            past = cache.own[number] if cache is not None and start else None
            memory: tuple[Tensor, Tensor] | None
            if cache is not None and cache.memory:
                memory = cache.memory[number]
            else:
                memory = None if memory_BSD is None else _across(block).project_memory(memory_BSD)
            x_BTD, present = block(x_BTD, mask_TL, table, past, memory, memory_mask)
            if cache is not None:
                cache.own[number : number + 1] = [present]
        if cache is not None:
            cache.length += length
        return x_BTD if self.decoder_norm is None else self.decoder_norm(x_BTD)

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Scores over the vocabulary for states of the decoder: (..., V)."""
        return F.linear(x_BTD, self.output_weight)

    @property
    def output_weight(self) -> Tensor:
        """The matrix that turns states into scores: (V, D), the embedding itself when tied."""
        return self.embedding.weight if self.output is None else self.output.weight

    def forward(self, source_BS: Tensor, target_BT: Tensor | None = None) -> Tensor:
        """The whole model at once.

        encoder: class scores (B, C) when it has labels, else states (B, S, D). decoder: logits (B, S, V) of the source
        read as a prefix. encoder-decoder: logits (B, T, V) of the target given the source.
        """
        config = self.config
        if not config.has_encoder:
            return self.logits(self.decode(source_BS))
        memory_BSD = self.encode(source_BS)
        if config.has_decoder:
            assert target_BT is not None, "an encoder-decoder needs a target"
            return self.logits(self.decode(target_BT, memory_BSD, self.visible(source_BS)))
        return memory_BSD if self.classifier is None else self.classifier(self.pool(memory_BSD, source_BS))

    def pool(self, memory_BSD: Tensor, ids_BS: Tensor) -> Tensor:
        """One state per text, the first token's or the mean of all that are not padding: (B, D)."""
        if self.config.pooling == "first":
            return memory_BSD[:, 0]
        weights_BS1 = (ids_BS != self.config.pad_id).unsqueeze(-1).to(memory_BSD.dtype)
        return (memory_BSD * weights_BS1).sum(1) / weights_BS1.sum(1).clamp(min=1)
