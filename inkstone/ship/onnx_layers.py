"""The layers of the one Transformer in ONNX's operators, for every axis of `ModelConfig`.

It is written out, as `model.transformer` is, and not traced from it: torch's exporter needs seconds for every layer,
turns and copies the shared embedding, and takes a length of zero, with which a cache begins, for a special case. Written
out, a graph takes milliseconds, and what it says can be compared line by line with what torch runs; `ship.proof` compares
the numbers.

Two things are said otherwise than in torch and come to the same. Rotary angles are computed from the positions, so that
no table limits them. The bias of a relative position is looked up by the distance itself, cut where all further distances
share a bucket. Tensors have the shapes of ARCHITECTURE.md's legend; L counts the tokens in the cache and the new ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inkstone.model.relative import bucket
from inkstone.model.rotary import rotary_rates
from inkstone.model.transformer import Transformer
from inkstone.ship.onnx_graph import EXACT, NUMBER, Graph

LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the tokens of one pass see of each other: the same for all layers."""

    hidden: str = (
        ""  # added to the scores: the lowest number where nothing may be seen, and biases; (.., T, L)
    )
    rotary: tuple[str, str] | None = None  # cosines and sines, (.., T, K/2)


class Drawing:
    """The parts of a Transformer, each put into a graph when it is called."""

    def __init__(self, model: Transformer, graph: Graph) -> None:
        self.graph, self.config = graph, model.config
        self._weights = {name: tensor.detach().float() for name, tensor in model.state_dict().items()}

    # Parts ---------------------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether the model has this tensor."""
        return name in self._weights

    def array(self, name: str) -> NDArray[Any]:
        """A tensor of the model."""
        found: NDArray[Any] = self._weights[name].numpy()
        return found

    def weight(self, name: str) -> str:
        """A tensor of the model in the graph."""
        return self.graph.weight(name, self.array(name))

    def number(self, value: float) -> str:
        """One constant number."""
        return self.graph.constant(value, np.float32)

    def linear(self, x: str, name: str) -> str:
        """x times a matrix, which is kept as (inputs, outputs), plus its bias where it has one."""
        y = self.graph.node("MatMul", x, self.graph.weight(f"{name}.matrix", self.array(f"{name}.weight").T))
        return self.graph.node("Add", y, self.weight(f"{name}.bias")) if self.has(f"{name}.bias") else y

    def norm(self, x: str, name: str) -> str:
        """Of the last dimension."""
        node, epsilon = self.graph.node, self.config.norm_epsilon
        if self.config.norm == "layer":
            return node(
                "LayerNormalization", x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"),
                axis=-1, epsilon=epsilon,
            )  # fmt: skip
        return self.root_mean_square(x, name)

    def root_mean_square(self, x: str, name: str) -> str:
        """As `model.norms.RMSNorm`, in the order of operators that onnxruntime makes one of."""
        node = self.graph.node
        squares = node("ReduceMean", node("Pow", x, self.number(2)), self.graph.constant([-1]), keepdims=1)
        size = node("Sqrt", node("Add", squares, self.number(self.config.norm_epsilon)))
        return node("Mul", node("Div", x, size), self.weight(f"{name}.weight"))

    def activated(self, x: str) -> str:
        """Each number by itself."""
        node, kind = self.graph.node, self.config.activation
        if kind == "silu":
            return node("Mul", x, node("Sigmoid", x))
        if kind == "relu":
            return node("Relu", x)
        return node("Gelu", x, approximate="tanh" if kind == "gelu-tanh" else "none")

    def feed_forward(self, x: str, name: str) -> str:
        """As `model.transformer.FeedForward`."""
        inner = self.linear(x, f"{name}.up")
        if self.config.feed_forward == "gated":
            gate, up = self.graph.nodes("Split", 2, inner, axis=-1, num_outputs=2)
            inner = self.graph.node("Mul", self.activated(gate), up)
        else:
            inner = self.activated(inner)
        return self.linear(inner, f"{name}.down")

    def shaped(self, x: str, *sizes: int) -> str:
        """x with these sizes; 0 keeps that of x, -1 takes what is left."""
        return self.graph.node("Reshape", x, self.graph.constant(sizes))

    def size(self, x: str, place: int) -> str:
        """One size of x: a number."""
        found = self.graph.node("Shape", x, start=place, end=place + 1)
        return self.graph.node("Squeeze", found, self.graph.constant([0]))

    # Attention -----------------------------------------------------------------------------------------------------

    def heads(self, x: str, count: int, norm: str = "") -> str:
        """(B, T, heads x K) -> (B, heads, T, K), each normed where the model does that."""
        split = self.graph.node(
            "Transpose", self.shaped(x, 0, 0, count, self.config.head_size), perm=[0, 2, 1, 3]
        )
        return self.root_mean_square(split, norm) if norm and self.config.query_key_norm else split

    def rotated(self, x: str, rotary: tuple[str, str]) -> str:
        """As `model.rotary.rotate`."""
        node, (cos, sin) = self.graph.node, rotary
        first, second = self.graph.nodes("Split", 2, x, axis=-1, num_outputs=2)
        one = node("Sub", node("Mul", first, cos), node("Mul", second, sin))
        other = node("Add", node("Mul", second, cos), node("Mul", first, sin))
        return node("Concat", one, other, axis=-1)

    def attend(self, q: str, k: str, v: str, hidden: str, name: str) -> str:
        """As `model.attention.Attention.attend`. Heads of one group stand behind each other as further queries."""
        node, config = self.graph.node, self.config
        grouped = config.num_heads != config.num_kv_heads
        if config.scale_scores:
            q = node("Mul", q, self.number(config.head_size**-0.5))
        if grouped:  # (B, H, T, K) -> (B, G, H / G x T, K)
            q = self.shaped(q, 0, config.num_kv_heads, -1, config.head_size)
        scores = node("MatMul", q, node("Transpose", k, perm=[0, 1, 3, 2]))
        if grouped:
            scores = self._regrouped(scores, k, config.num_heads)
        if hidden:
            scores = node("Add", scores, hidden)
        weights = node("Softmax", scores, axis=-1)
        if grouped:
            weights = self._regrouped(weights, k, config.num_kv_heads)
        mixed = node("MatMul", weights, v)
        if grouped:
            mixed = self.shaped(mixed, 0, config.num_heads, -1, config.head_size)
        together = self.shaped(
            node("Transpose", mixed, perm=[0, 2, 1, 3]), 0, 0, config.num_heads * config.head_size
        )
        return self.linear(together, f"{name}.output")

    def _regrouped(self, scores: str, k: str, count: int) -> str:
        """Scores for `count` heads instead: (B, count, what is left, L)."""
        length = self.graph.node("Shape", k, start=2, end=3)
        sizes = self.graph.node("Concat", self.graph.constant([0, count, -1]), length, axis=0)
        return self.graph.node("Reshape", scores, sizes)

    def memory(self, x: str, name: str) -> tuple[str, str]:
        """Keys and values of a memory for the attention of this name: (B, G, S, K) each."""
        keys, values = self.graph.nodes(
            "Split", 2, self.linear(x, f"{name}.key_value"), axis=-1, num_outputs=2
        )
        groups = self.config.num_kv_heads
        return self.heads(keys, groups, f"{name}.key_norm"), self.heads(values, groups)

    # Layers --------------------------------------------------------------------------------------------------------

    def block(
        self,
        x: str,
        name: str,
        seen: Seen,
        past: tuple[str, str] | None = None,
        memory: tuple[str, str] | None = None,
        memory_hidden: str = "",
    ) -> tuple[str, tuple[str, str]]:
        """As `model.transformer.Block`: the new states, and the keys and values, past ones included."""
        config, node = self.config, self.graph.node
        own = f"{name}.attention"
        size, kv_size = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
        parts = self.graph.constant([size, kv_size, kv_size])
        both = self.linear(self._before(x, f"{own}_norm"), f"{own}.query_key_value")
        flat_q, flat_k, flat_v = self.graph.nodes("Split", 3, both, parts, axis=-1)
        q = self.heads(flat_q, config.num_heads, f"{own}.query_norm")
        k = self.heads(flat_k, config.num_kv_heads, f"{own}.key_norm")
        v = self.heads(flat_v, config.num_kv_heads)
        if seen.rotary is not None:
            q, k = self.rotated(q, seen.rotary), self.rotated(k, seen.rotary)
        if past is not None:
            k, v = node("Concat", past[0], k, axis=2), node("Concat", past[1], v, axis=2)
        x = self._added(x, self.attend(q, k, v, seen.hidden, own), f"{own}_norm")
        if memory is not None:
            across = f"{name}.memory_attention"
            asked = self.linear(self._before(x, f"{name}.memory_norm"), f"{across}.query")
            q = self.heads(asked, config.num_heads, f"{across}.query_norm")
            x = self._added(x, self.attend(q, *memory, memory_hidden, across), f"{name}.memory_norm")
        changed = self.feed_forward(self._before(x, f"{name}.feed_forward_norm"), f"{name}.feed_forward")
        return self._added(x, changed, f"{name}.feed_forward_norm"), (k, v)

    def _before(self, x: str, norm: str) -> str:
        return self.norm(x, norm) if self.config.norm_place == "before" else x

    def _added(self, x: str, change: str, norm: str) -> str:
        total = self.graph.node("Add", x, change)
        return total if self.config.norm_place == "before" else self.norm(total, norm)

    def close(self, x: str, side: str) -> str:
        """The states after the last layer."""
        return self.norm(x, f"{side}.norm") if self.config.norm_place == "before" else x

    # Before the layers ---------------------------------------------------------------------------------------------

    def embed(self, ids: str, places: str, side: str) -> str:
        """As `Side.embed`. places: the positions, (T) or (B, T)."""
        node, config = self.graph.node, self.config
        x = node("Gather", self.weight("embedding.weight"), ids)
        if config.scale_embeddings:
            x = node("Mul", x, self.number(config.hidden_size**0.5))
        if table := self._position_table(side):
            x = node("Add", x, node("Gather", table, places, name=f"{EXACT}{side}.positions"))
        if config.token_types:
            first = self.array(f"{side}.type_embedding.weight")[0]
            x = node("Add", x, self.graph.weight(f"{side}.first_type", first))
        return self.norm(x, f"{side}.embedding_norm") if config.embedding_norm else x

    def _position_table(self, side: str) -> str:
        """The rows to add to the embeddings, from position 0 on; none for other kinds of positions."""
        name, config = f"{side}.position_embedding.weight", self.config
        if config.positions == "learned":
            return self.graph.weight(name, self.array(name)[config.position_offset :])
        if config.positions == "sinusoidal":
            from inkstone.model.positions import sinusoids

            return self.graph.weight("sinusoids", sinusoids(config.max_positions, config.hidden_size))
        return ""

    def angles(self, places: str) -> tuple[str, str] | None:
        """The cosines and sines of positions (T) or (B, 1, T), where they are what the model goes by: (..., T, K/2)."""
        if self.config.positions != "rotary":
            return None
        node, config = self.graph.node, self.config
        turned = node("Unsqueeze", node("Cast", places, to=NUMBER), self.graph.constant([-1]))
        angles = node("Mul", turned, self.graph.weight("rotary_rates", rotary_rates(config).numpy()))
        cos, sin = node("Cos", angles), node("Sin", angles)
        if config.rotary_magnitude != 1:
            much = self.number(config.rotary_magnitude)
            cos, sin = node("Mul", cos, much), node("Mul", sin, much)
        return cos, sin

    def bias(self, queries: str, keys: str, side: str) -> str:
        """As `model.relative.RelativeBias`, by the places of queries (T) and keys (L): (1, H, T, L)."""
        node, config, far = self.graph.node, self.config, self.config.relative_distance
        numbers = bucket(
            torch.arange(-far, far + 1), config.relative_buckets, far, both_ways=side == "encoder"
        )
        table = self.array(f"{side}.relative.embedding.weight")[numbers.numpy()]  # (2 far + 1, H)
        apart = node("Sub", keys, node("Unsqueeze", queries, self.graph.constant([1])))
        place = node(
            "Add",
            node("Clip", apart, self.graph.constant(-far), self.graph.constant(far)),
            self.graph.constant(far),
        )
        found = node(
            "Gather", self.graph.weight(f"{side}.bias_of_distance", table), place, name=f"{EXACT}{side}.bias"
        )
        return node("Unsqueeze", node("Transpose", found, perm=[2, 0, 1]), self.graph.constant([0]))

    def hidden(self, mask: str) -> str:
        """0 where the mask says True, else the lowest number, to be added to scores."""
        return self.graph.node("Where", mask, self.number(0), self.number(LOWEST))

    def both(self, one: str, other: str) -> str:
        """The sum of two things to be added to scores, of which either may be none."""
        return self.graph.node("Add", one, other) if one and other else one or other

    # After the layers ----------------------------------------------------------------------------------------------

    def logits(self, x: str) -> str:
        """As `Transformer.logits`: (N, P, D) -> (N, P, V). The embedding, where it is the output too, is there once."""
        node, config = self.graph.node, self.config
        if config.prediction_head:
            x = self.norm(self.activated(self.linear(x, "prediction_head.linear")), "prediction_head.norm")
        if config.scale_output:
            x = node("Mul", x, self.number(config.hidden_size**-0.5))
        matrix = self.weight("embedding.weight" if config.tie_embeddings else "output.weight")
        bias = [self.weight("output_bias")] if config.output_bias else []
        flat = node("Gemm", self.shaped(x, -1, config.hidden_size), matrix, *bias, transB=1)
        sizes = node(
            "Concat", node("Shape", x, start=0, end=2), self.graph.constant([config.vocab_size]), axis=0
        )
        return node("Reshape", flat, sizes)

    def span(self, start: str, end: str) -> str:
        """The numbers from start to before end."""
        return self.graph.node("Range", start, end, self.graph.constant(1))
