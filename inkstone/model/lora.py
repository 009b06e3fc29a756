"""LoRA (Hu et al., 2021): a frozen linear layer and beside it a small one of low rank, which alone is learnt.

    y = W x + s B A x        A (r, I), B (rows, r), s = alpha / r, or alpha / sqrt(r) when rank-stabilised
                             (Kalajdzievski, 2023)

Several adapters share one base; `use` says which one counts, for a whole request or for each row of a batch, in this
thread or task only. Our matrices hold what others keep apart (queries, keys and values; gate and up), so an adapter of a
layer is made of *parts*, each over a range of the layer's outputs:

    query_key_value    q q q q q q | k k | v v        a PEFT adapter of q_proj and v_proj has parts over q and v

An adapter is saved and read as PEFT does (github.com/huggingface/peft): adapter_config.json and
adapter_model.safetensors, under the names of a foreign family (`model.families`) or under our own. A part over several of
their matrices is written to each of them: A again and again, B cut by rows, which is the same function.

Models of every architecture have linear layers and so can have adapters; the recurrences of an LSTM or GRU and the
filters of a TextCNN are no linear layers and stay as they are.

What is not here: DoRA, biases, embeddings, modules trained in full beside the adapter; they are refused by name.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkstone.ground.errors import ConfigError, not_known, raise_all
from inkstone.model.dropout import Dropout
from inkstone.model.transformer import Transformer

Chosen = str | None | tuple[str | None, ...]  # an adapter, none, or one for each row of the batch
ATTENTION = ("*.attention.query_key_value", "*.memory_attention.query", "*.memory_attention.key_value")


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """One adapter. targets: patterns of names of linear layers, as in `*.feed_forward.up` (fnmatch).

    The default are the attentions of a Transformer; of a model without any, all linear layers.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    rank_stabilised: bool = False
    targets: tuple[str, ...] = ATTENTION

    def __post_init__(self) -> None:
        problems = [] if self.rank >= 1 else [f"rank={self.rank} must be at least 1"]
        problems += (
            [] if self.alpha > 0 and math.isfinite(self.alpha) else [f"alpha={self.alpha} must be above 0"]
        )
        problems += (
            [] if 0 <= self.dropout < 1 else [f"dropout={self.dropout} must be at least 0 and below 1"]
        )
        problems += [] if self.targets else ["targets is empty: name at least one linear layer"]
        raise_all(ConfigError, "LoRA", problems)

    def scale(self, rank: int) -> float:
        """What B A x is multiplied by, for a part of this rank."""
        return self.alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


class Part(nn.Module):
    """A and B over the outputs `start` to `stop` of a layer."""

    def __init__(
        self, down_RI: Tensor, up_OR: Tensor, start: int, *, scale: float, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(down_RI), nn.Parameter(up_OR)
        self.start, self.stop, self.scale = start, start + len(up_OR), scale
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, outputs: int) -> Tensor:
        """What is added to the outputs: (..., I) to (..., outputs)."""
        change: Tensor = F.linear(F.linear(self.dropout(x), self.down), self.up) * self.scale
        return F.pad(change, (self.start, outputs - self.stop))

    def matrix(self, outputs: int) -> Tensor:
        """What is added to the weights: (outputs, I)."""
        return F.pad((self.up @ self.down) * self.scale, (0, 0, self.start, outputs - self.stop))


class LoraLinear(nn.Module):
    """A linear layer that stays as it is, and the adapters beside it."""

    def __init__(self, base: nn.Linear, chosen: ContextVar[Chosen]) -> None:
        super().__init__()
        self.base, self.adapters, self._chosen = base, nn.ModuleDict(), chosen
        self.in_features, self.out_features = base.in_features, base.out_features
        base.requires_grad_(False)

    @property
    def bias(self) -> Tensor | None:
        """Of the base; adapters have none."""
        return self.base.bias

    @property
    def weight(self) -> Tensor:
        """The matrix with the chosen adapter in it, for layers whose matrix is read instead of being called."""
        chosen = self._chosen.get()
        if isinstance(chosen, tuple):
            raise ConfigError("an adapter for each row cannot be used with one over the output matrix.")
        return self.merged(chosen)

    def merged(self, name: str | None) -> Tensor:
        """The matrix with an adapter in it: (O, I)."""
        weight_OI: Tensor = self.base.weight
        for part in self._parts(name):
            weight_OI = weight_OI + part.matrix(self.out_features).to(weight_OI.dtype)
        return weight_OI

    def plain(self, name: str | None, memo: dict[int, Any]) -> nn.Linear:
        """The layer with an adapter merged into it. memo: what stands for the base's own tensors, by their id."""
        with torch.device("meta"):
            layer = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        changed = name is not None and name in self.adapters
        layer.weight = nn.Parameter(self.merged(name)) if changed else memo[id(self.base.weight)]
        if layer.bias is not None:
            layer.bias = memo[id(self.base.bias)]
        return layer

    def _parts(self, name: str | None) -> Iterator[Part]:
        if name is not None and name in self.adapters:
            yield from self.adapters[name]  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O), by the adapter that is in use."""
        chosen = self._chosen.get()
        out: Tensor = self.base(x)
        if not isinstance(chosen, tuple):
            for part in self._parts(chosen):
                out = out + part(x, self.out_features)
            return out
        if len(chosen) != len(x):
            raise ConfigError(f"{len(chosen)} adapters were chosen for the rows of a batch of {len(x)}.")
        for name in {name for name in chosen if name is not None and name in self.adapters}:
            rows = torch.tensor([n for n, one in enumerate(chosen) if one == name], device=x.device)
            for part in self._parts(name):
                out = out.index_add(0, rows, part(x[rows], self.out_features).to(out.dtype))
        return out


@dataclass(slots=True)
class Adapters:
    """The adapters of one model. Making this freezes the model; adapters are added, read and removed by name.

    >>> adapters = Adapters(model); adapters.add("legal", LoraConfig(rank=8), generator)
    >>> with adapters.use("legal"):
    ...     model(source_BS, target_BT)
    """

    model: nn.Module
    configs: dict[str, LoraConfig] = field(default_factory=dict)
    _chosen: ContextVar[Chosen] = field(default_factory=lambda: ContextVar("adapter", default=None))

    def __post_init__(self) -> None:
        if any(isinstance(module, LoraLinear) for module in self.model.modules()):
            raise ConfigError("this model has adapters already. Add to those, or begin with `without`.")
        self.model.requires_grad_(False)

    def add(self, name: str, config: LoraConfig, generator: torch.Generator | None = None) -> None:
        """A new adapter, with A drawn as He et al. (2015) and B zero: it changes nothing before it has learnt.

        Raises ConfigError for a name that is taken and for every target that fits no linear layer.
        """
        linear = self.layers()
        if config.targets == ATTENTION and not isinstance(self.model, Transformer):
            config = replace(config, targets=("*",))
        unknown = [
            not_known("target", target, sorted({"*." + path.split(".", 3)[-1] for path in linear}))
            for target in config.targets
            if not any(fnmatch(path, target) for path in linear)
        ]
        # The default names the attention of all shapes; a model need not have each of its layers.
        missed = [] if config.targets == ATTENTION and len(unknown) < len(ATTENTION) else unknown
        raise_all(ConfigError, f"adapter {name}", self._wrong_name(name) + missed)
        parts: dict[str, list[Part]] = {}
        for path, layer in linear.items():
            if any(fnmatch(path, target) for target in config.targets):
                weight = layer.weight
                down_RI = torch.empty(config.rank, layer.in_features)
                nn.init.kaiming_uniform_(down_RI, a=math.sqrt(5), generator=generator)
                up_OR = torch.zeros(layer.out_features, config.rank)
                scale = config.scale(config.rank)
                parts[path] = [
                    Part(down_RI.to(weight), up_OR.to(weight), 0, scale=scale, dropout=config.dropout)
                ]
        self.put(name, config, parts)

    def put(self, name: str, config: LoraConfig, parts: Mapping[str, Sequence[Part]]) -> None:
        """Add an adapter made of these parts, by the name of their layer."""
        raise_all(ConfigError, f"adapter {name}", self._wrong_name(name))
        for path, its in parts.items():
            layer = self.model.get_submodule(path)
            if not isinstance(layer, LoraLinear):
                assert isinstance(layer, nn.Linear), f"{path} is no linear layer"
                layer = LoraLinear(layer, self._chosen)
                parent, _, last = path.rpartition(".")
                setattr(self.model.get_submodule(parent), last, layer)
            layer.adapters[name] = nn.ModuleList(its)
        self.configs[name] = config

    def _wrong_name(self, name: str) -> list[str]:
        if not name or "." in name:
            return [f'"{name}" is no name: it must not be empty and have no dot']
        return (
            [f'"{name}" is taken. Choose another name, or remove that adapter']
            if name in self.configs
            else []
        )

    def layers(self) -> dict[str, nn.Linear]:
        """The linear layers that an adapter can be put on, by their names without adapters."""
        found: dict[str, nn.Linear] = {}
        for path, module in self.model.named_modules():
            if isinstance(module, LoraLinear):
                found[path] = module.base
            elif isinstance(module, nn.Linear) and not path.endswith(".base"):
                found[path] = module
        return found

    def parts(self, name: str) -> dict[str, list[Part]]:
        """The parts of an adapter, by the name of their layer. Raises ConfigError for a name that is not known."""
        self._known(name)
        return {
            path: list(module._parts(name))
            for path, module in self.model.named_modules()
            if isinstance(module, LoraLinear) and name in module.adapters
        }

    def _known(self, *names: str | None) -> None:
        wrong = [
            not_known("adapter", one, self.configs)
            for one in names
            if one is not None and one not in self.configs
        ]
        raise_all(ConfigError, "adapters", wrong)

    @contextmanager
    def use(self, name: str | Sequence[str | None] | None) -> Iterator[None]:
        """Use an adapter (None: the base alone), or one for each row of a batch, while the block runs.

        Only here: other threads and tasks go on with what they use. Raises ConfigError for names that are not known.
        """
        chosen: Chosen = name if name is None or isinstance(name, str) else tuple(name)
        self._known(*(chosen if isinstance(chosen, tuple) else (chosen,)))
        token = self._chosen.set(chosen)
        try:
            yield
        finally:
            self._chosen.reset(token)

    def learn(self, name: str) -> list[nn.Parameter]:
        """From now on only this adapter's parameters get gradients; they are returned."""
        self.model.requires_grad_(False)
        own = [p for parts in self.parts(name).values() for part in parts for p in part.parameters()]
        for parameter in own:
            parameter.requires_grad_(True)
        return own

    def remove(self, name: str) -> None:
        """Forget an adapter."""
        self._known(name)
        del self.configs[name]
        for module in self.model.modules():
            if isinstance(module, LoraLinear) and name in module.adapters:
                del module.adapters[name]

    def without(self) -> Any:
        """The base as a plain model of its own class, sharing its weights."""
        return self._plain(None)

    def merged(self, name: str) -> Any:
        """A plain model of the base's class with an adapter merged into it; the base stays as it is."""
        self._known(name)
        return self._plain(name)

    @torch.no_grad()
    def _plain(self, name: str | None) -> nn.Module:
        """A copy of the model, whatever its class, in which every layer with adapters is a plain one.

        What is in the memo is taken instead of being copied: the tensors themselves, and the new layers.
        """
        memo: dict[int, Any] = {}
        memo |= {id(one): nn.Parameter(one.detach()) for one in self.model.parameters()}
        memo |= {id(one): one for one in self.model.buffers()}
        for module in self.model.modules():
            if isinstance(module, LoraLinear):
                memo[id(module)] = module.plain(name, memo)
        return copy.deepcopy(self.model, memo).eval()
