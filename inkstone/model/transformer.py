"""The one Transformer: encoder, decoder or both, built from the axes of `ModelConfig`.

    encoder      ids_BS ─ embed ─ [self-attention, feed-forward] x N ─ memory_BSD ─ (pool, classify) or (predict)
    decoder      ids_BT ─ embed ─ [causal self-attention, (attention to memory), feed-forward] x N ─ logits_BTV

Sequences are padded on the right, so a causal mask already hides the padding of a target; the source needs its own mask.
Prompts of unlike lengths that a decoder shall continue together are padded on the left, and `decode` is told how much.
Texts that share a row have a number each (segments): a token sees those of its own number, and places begin anew.

    row     a a a b b | segments 1 1 1 2 2 | places 0 1 2 0 1 | sees   a a a b b
                                                                     a x
                                                                     a x x
                                                                     a x x x
                                                                     b       x
                                                                     b       x x

With a `Cache`, `decode` takes only the new tokens and returns only their states; cached and uncached decoding give the
same numbers (tests/model/test_transformer.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkstone.ground.errors import ConfigError
from inkstone.model.attention import Attention, Cache, hidden
from inkstone.model.config import ModelConfig
from inkstone.model.dropout import Dropout
from inkstone.model.norms import norm
from inkstone.model.positions import sinusoids
from inkstone.model.relative import RelativeBias
from inkstone.model.rotary import Rotary, rotate

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu-tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}


def gated(inner_BTX: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """activation(gate) * up of states that hold first the gates and then what they let through: (B, T, F)."""
    if activation is F.silu and inner_BTX.device.type == "cpu":
        through: Tensor = _SiluGated.apply(inner_BTX)  # type: ignore[no-untyped-call]
        return through
    gate, up = inner_BTX.chunk(2, dim=-1)
    return activation(gate) * up


class _SiluGated(torch.autograd.Function):
    """The same, with both gradients written straight into one tensor."""

    @staticmethod
    def forward(ctx: Any, inner: Tensor) -> Tensor:
        ctx.save_for_backward(inner)
        gate, up = inner.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (inner,) = ctx.saved_tensors
        gate, up = inner.chunk(2, dim=-1)
        out = torch.empty_like(inner)
        to_gate, to_up = out.chunk(2, dim=-1)
        torch.mul(F.silu(gate), gradients[0], out=to_up)
        torch.ops.aten.silu_backward.grad_input(gradients[0] * up, gate, grad_input=to_gate)
        return out


class FeedForward(nn.Module):
    """Two linear layers with an activation between, plain or gated (Shazeer, 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gated, bias = config.feed_forward == "gated", config.bias == "all"
        self.activation = ACTIVATIONS[config.activation]
        self.up = nn.Linear(config.hidden_size, config.feed_forward_size * (2 if self.gated else 1), bias)
        self.down = nn.Linear(config.feed_forward_size, config.hidden_size, bias)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Each position by itself."""
        inner = self.up(x_BTD)
        inner = gated(inner, self.activation) if self.gated else self.activation(inner)
        out_BTD: Tensor = self.down(self.dropout(inner))
        return out_BTD


@dataclass(frozen=True, slots=True)
class Sight:
    """What the tokens of one pass see of each other: the same for all layers."""

    bias: Tensor | None  # added to scores: of their distances, and what hides; broadcasts to (B, H, T, L)
    rotary: Tensor | None = None  # the table of their positions


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
        sight: Sight,
        past: tuple[Tensor, Tensor] | None = None,
        memory: tuple[Tensor, Tensor] | None = None,
        memory_bias: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The new states, and the keys and values (past ones included) of self-attention for a cache."""
        q, k, v = self.attention.project(self._in(x_BTD, self.attention_norm))
        if sight.rotary is not None:
            q, k = rotate(q, sight.rotary), rotate(k, sight.rotary)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        mixed = self.attention.attend(q, k, v, sight.bias)
        x_BTD = self._add(x_BTD, mixed, self.attention_norm)
        if self.memory_attention is not None and self.memory_norm is not None and memory is not None:
            q = self.memory_attention.project_query(self._in(x_BTD, self.memory_norm))
            mixed = self.memory_attention.attend(q, *memory, memory_bias)
            x_BTD = self._add(x_BTD, mixed, self.memory_norm)
        changed = self.feed_forward(self._in(x_BTD, self.feed_forward_norm))
        return self._add(x_BTD, changed, self.feed_forward_norm), (k, v)

    def _in(self, x_BTD: Tensor, norm: nn.Module) -> Tensor:
        return norm(x_BTD) if self.before else x_BTD

    def _add(self, x_BTD: Tensor, change_BTD: Tensor, norm: nn.Module) -> Tensor:
        total: Tensor = self.dropout(change_BTD, onto=x_BTD)
        return total if self.before else norm(total)


def _across(block: nn.Module) -> Attention:
    """The attention to the memory of a block that has one."""
    assert isinstance(block, Block) and block.memory_attention is not None, (
        "a memory needs an encoder-decoder"
    )
    return block.memory_attention


class Side(nn.Module):
    """The encoder or the decoder: what is added to the embeddings, the layers, the last norm.

    The tables of positions and token types are its own; the embeddings of the tokens are the model's.
    """

    position_table: Tensor | None

    def __init__(self, config: ModelConfig, layers: int, *, causal: bool) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        D = config.hidden_size
        rows = config.max_positions + config.position_offset
        self.position_embedding = nn.Embedding(rows, D) if config.positions == "learned" else None
        self.type_embedding = nn.Embedding(config.token_types, D) if config.token_types else None
        self.embedding_norm = norm(config) if config.embedding_norm else None
        relative = config.positions == "relative"
        self.relative = RelativeBias(config, both_ways=not causal) if relative else None
        self.rotary = Rotary(config) if config.positions == "rotary" else None
        self.layers = nn.ModuleList(
            Block(config, over_memory=causal and config.has_encoder) for _ in range(layers)
        )
        self.norm = norm(config) if config.norm_place == "before" else None
        self.dropout = Dropout(config.dropout)
        self.register_buffer("position_table", None, persistent=False)
        self.remake_tables()

    def remake_tables(self) -> None:
        """Make what is computed and not learnt: the sinusoids, and the rotary angles anew."""
        config = self.config
        if config.positions == "sinusoidal":
            self.position_table = torch.from_numpy(sinusoids(config.max_positions, config.hidden_size))
        if self.rotary is not None:
            self.rotary = Rotary(config)

    def embed(
        self, x_BTD: Tensor, start: int, places_BT: Tensor | None = None, types_BT: Tensor | None = None
    ) -> Tensor:
        """The states before the first layer, from the embeddings of the tokens at start and after.

        places_BT: the positions of each row's tokens where rows differ. Raises ConfigError beyond the last position.
        """
        config, end = self.config, start + x_BTD.shape[1]
        if end > config.max_positions and self.relative is None:
            raise ConfigError(f"{end} tokens are more than the model's max_positions={config.max_positions}.")
        if config.scale_embeddings:
            x_BTD = x_BTD * config.hidden_size**0.5
        table = self.position_table if self.position_embedding is None else self.position_embedding.weight
        if table is not None:
            first = config.position_offset
            found = table[first + start : first + end] if places_BT is None else table[first + places_BT]
            x_BTD = x_BTD + found
        if self.type_embedding is not None:
            x_BTD = x_BTD + (
                self.type_embedding.weight[0] if types_BT is None else self.type_embedding(types_BT)
            )
        if self.embedding_norm is not None:
            x_BTD = self.embedding_norm(x_BTD)
        if torch.is_autocast_enabled(x_BTD.device.type):
            x_BTD = x_BTD.to(torch.get_autocast_dtype(x_BTD.device.type))
        embedded_BTD: Tensor = self.dropout(x_BTD)
        return embedded_BTD

    def sight(
        self,
        mask: Tensor | None,
        start: int,
        end: int,
        dtype: torch.dtype,
        places_BT: Tensor | None = None,
    ) -> Sight:
        """What tokens start to end see, given who may look where. dtype: of the states."""
        rotary = None if self.rotary is None else self.rotary(end, places_BT, start)
        bias = hidden(mask, dtype)
        if self.relative is not None:
            relative = self.relative(start, end).to(dtype)
            bias = relative if bias is None else relative + bias
        return Sight(bias, rotary)

    def causal_mask(
        self, start: int, end: int, padding_B: Tensor | None, device: torch.device
    ) -> Tensor | None:
        """True where a token at start to end may look at one at 0 to end: not ahead, not past the window, no padding."""
        window = self.config.window
        if end - start == 1 and padding_B is None and not 0 < window < end:
            return None
        mask = torch.ones(end - start, end, dtype=torch.bool, device=device).tril(start)
        if window:
            mask = mask.triu(start - window + 1)
        if padding_B is not None:
            real_BL = torch.arange(end, device=device) >= padding_B[:, None]
            mask = mask & real_BL[:, None, None, :]
        return mask

    def close(self, x_BTD: Tensor) -> Tensor:
        """The states after the last layer."""
        if self.norm is not None:
            x_BTD = self.norm(x_BTD)
        return x_BTD


def places_within(segments_BT: Tensor) -> Tensor:
    """The place of each token in its own text, from 0: (B, T)."""
    places_T = torch.arange(segments_BT.shape[1], device=segments_BT.device)
    begins_BT = F.pad(segments_BT[:, 1:] != segments_BT[:, :-1], (1, 0), value=True)
    return places_T - (places_T * begins_BT).cummax(1).values


class PredictionHead(nn.Module):
    """What an encoder's states go through before they are scored over the vocabulary (Devlin et al., 2019)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = norm(config)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x_BSD: Tensor) -> Tensor:
        """Each position by itself."""
        normed_BSD: Tensor = self.norm(self.activation(self.linear(x_BSD)))
        return normed_BSD


class Transformer(nn.Module):
    """The model of a `ModelConfig`. Weights are drawn from the generator handed in (or torch's global one)."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        D, scored = config.hidden_size, config.has_decoder or config.prediction_head
        self.embedding = nn.Embedding(config.vocab_size, D)
        self.encoder = Side(config, config.num_encoder_layers, causal=False) if config.has_encoder else None
        self.decoder = Side(config, config.num_decoder_layers, causal=True) if config.has_decoder else None
        untied = scored and not config.tie_embeddings
        self.prediction_head = PredictionHead(config) if config.prediction_head else None
        self.output = nn.Linear(D, config.vocab_size, bias=False) if untied else None
        biased = scored and config.output_bias
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size)) if biased else None
        self.pooler = nn.Linear(D, D) if config.pooler else None
        self.classifier = nn.Linear(config.pooled_size, config.num_labels) if config.num_labels else None
        self._initialise(generator)

    @classmethod
    def of_weights(cls, config: ModelConfig, weights: Mapping[str, Tensor]) -> Transformer:
        """The model with these weights, by its names, ready to evaluate. They are taken as they are, not copied."""
        with torch.device("meta"):
            model = cls(config)
        model.load_state_dict(weights, assign=True)
        for side in (model.encoder, model.decoder):
            if side is not None:
                side.remake_tables()
        return model.eval()

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

    def encode(self, ids_BS: Tensor, types_BS: Tensor | None = None) -> Tensor:
        """The memory of a batch of sources (padded with pad_id on the right): (B, S, D).

        types_BS: the row of the table of token types for each token; the first where nothing is said.
        """
        assert self.encoder is not None, "a decoder alone has no memory"
        last_BSD = deque(self._layer_by_layer(self.encoder, ids_BS, types_BS), maxlen=1).pop()
        return self.encoder.close(last_BSD)

    def _layer_by_layer(self, side: Side, ids_BS: Tensor, types_BS: Tensor | None = None) -> Iterator[Tensor]:
        """The states before the first layer, and after each."""
        x_BSD = side.embed(self.embedding(ids_BS), 0, types_BT=types_BS)
        yield x_BSD
        sight = side.sight(self.visible(ids_BS), 0, ids_BS.shape[1], x_BSD.dtype)
        for block in side.layers:
            x_BSD, _ = block(x_BSD, sight)
            yield x_BSD

    def visible(self, ids_BS: Tensor) -> Tensor:
        """True where a source token is not padding: (B, 1, 1, S)."""
        return (ids_BS != self.config.pad_id)[:, None, None, :]

    def new_cache(self) -> Cache:
        """An empty memory for `decode`."""
        return Cache()

    def decode(
        self,
        ids_BT: Tensor,
        memory_BSD: Tensor | None = None,
        memory_mask: Tensor | None = None,
        cache: Cache | None = None,
        padding_B: Tensor | None = None,
        segments_BT: Tensor | None = None,
    ) -> Tensor:
        """The states of the target tokens: (B, T, D).

        memory_BSD, memory_mask: from `encode` and `visible`, for encoder-decoder models. cache: tokens before these
        ones; it is extended in place, and memory and padding are then only needed at the first call. padding_B: how many
        tokens at the left of each row are padding. segments_BT: which of the texts in its row each token belongs to,
        without a cache; equal numbers stand together.
        """
        assert self.decoder is not None, "an encoder alone cannot decode"
        assert segments_BT is None or (cache is None and padding_B is None), "segments are read whole"
        cache = cache if cache is not None else Cache()
        start, end = cache.length, cache.length + ids_BT.shape[1]
        cache.padding_B = padding_B = padding_B if padding_B is not None else cache.padding_B
        places_BT = None
        if padding_B is not None:
            places_BT = (torch.arange(start, end, device=ids_BT.device) - padding_B[:, None]).clamp(min=0)
        mask = self.decoder.causal_mask(start, end, padding_B, ids_BT.device)
        if segments_BT is not None:
            places_BT = places_within(segments_BT)
            same_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]
            mask = same_BTT[:, None] if mask is None else mask & same_BTT[:, None]
        x_BTD = self.decoder.embed(self.embedding(ids_BT), start, places_BT)
        sight = self.decoder.sight(mask, start, end, x_BTD.dtype, places_BT)
        memory_bias = hidden(memory_mask, x_BTD.dtype)
        if not cache.memory and memory_BSD is not None:
            cache.memory = [_across(block).project_memory(memory_BSD) for block in self.decoder.layers]
        for number, block in enumerate(self.decoder.layers):
            past = cache.own[number] if start else None
            memory = cache.memory[number] if cache.memory else None
            x_BTD, present = block(x_BTD, sight, past, memory, memory_bias)
            cache.own[number : number + 1] = [present]
        cache.length = end
        return self.decoder.close(x_BTD)

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Scores over the vocabulary for states of the decoder, or of an encoder with a prediction head: (..., V)."""
        return F.linear(self.scored(x_BTD), self.output_weight, self.output_bias)

    def scored(self, x_BTD: Tensor) -> Tensor:
        """The states as the output matrix takes them."""
        if self.prediction_head is not None:
            x_BTD = self.prediction_head(x_BTD)
        return x_BTD * self.config.hidden_size**-0.5 if self.config.scale_output else x_BTD

    @property
    def output_weight(self) -> Tensor:
        """The matrix that turns states into scores: (V, D), the embedding itself when tied."""
        return self.embedding.weight if self.output is None else self.output.weight

    def forward(self, source_BS: Tensor, target_BT: Tensor | None = None) -> Tensor:
        """The whole model at once.

        encoder: class scores (B, C) when it has labels, scores over the vocabulary (B, S, V) when it has a prediction
        head, else states (B, S, D). decoder: logits (B, S, V) of the source read as a prefix. encoder-decoder: logits
        (B, T, V) of the target given the source.
        """
        if self.encoder is None:
            return self.logits(self.decode(source_BS))
        if self.classifier is not None:
            scores_BC: Tensor = self.classifier(self.pooled(source_BS))
            return scores_BC
        memory_BSD = self.encode(source_BS)
        if self.decoder is not None:
            assert target_BT is not None, "an encoder-decoder needs a target"
            return self.logits(self.decode(target_BT, memory_BSD, self.visible(source_BS)))
        if self.prediction_head is not None:
            return self.logits(memory_BSD)
        return memory_BSD

    def pooled(self, ids_BS: Tensor) -> Tensor:
        """One state per text, which the classification head reads: (B, config.pooled_size)."""
        if self.config.pooling != "layers" or self.encoder is None:
            return self.pool(self.encode(ids_BS), ids_BS)
        closed = [
            self.encoder.close(x_BSD) for x_BSD in islice(self._layer_by_layer(self.encoder, ids_BS), 1, None)
        ]
        return self.pool(torch.cat(closed, dim=-1), ids_BS)

    def pool(self, memory_BSD: Tensor, ids_BS: Tensor) -> Tensor:
        """Of some states, one per text: the first token's, or the mean of all that are not padding: (B, D)."""
        if self.config.pooling == "first":
            pooled_BD = memory_BSD[:, 0]
        else:
            weights_BS1 = (ids_BS != self.config.pad_id).unsqueeze(-1).to(memory_BSD.dtype)
            pooled_BD = (memory_BSD * weights_BS1).sum(1) / weights_BS1.sum(1).clamp(min=1)
        return pooled_BD if self.pooler is None else torch.tanh(self.pooler(pooled_BD))
