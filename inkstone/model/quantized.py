"""Linear layers and embeddings whose weights are kept in 8 or 4 bits. Needs torch, and nothing else.

    int8   w ~ q_OI s_O           one scale a row; inputs are rounded too, row by row as they come, and the product is
                                  one of whole numbers (LLM.int8, Dettmers et al., 2022, without its outliers)
    int4   w ~ (q - 8) s + z      one scale and one zero for each group of inputs; inputs stay as they are, so only the
                                  weights are smaller (the grouped format of GPTQ, Frantar et al., 2023; plain rounding)

Embeddings are kept in int8, row by row, in both; where one is tied to the output it is widened at the first use, since
its matrix is scored as a whole. Layers whose sizes the 4-bit kernel does not take (inputs not a multiple of the group,
outputs not of 16) stay in int8. What a model rounds to is decided here; what it costs is measured elsewhere
(`recipes.compress`). Gradients do not pass: this is for models that are done learning, on a CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inkstone.ground.errors import BundleError, ConfigError, not_known, raise_all
from inkstone.ground.files import explained, write_json
from inkstone.ground.manifest import read_json
from inkstone.model.config import ModelConfig
from inkstone.model.transformer import Transformer

Bits = Literal["int8", "int4"]
KINDS: tuple[str, ...] = get_args(Bits)
GROUPS = (32, 64, 128, 256)  # what the kernel takes
ROWS = 16  # outputs come in multiples of this
CONFIG, WEIGHTS, KEY = "config.json", "model.safetensors", "quantization"
_AS_MATRIX = frozenset({"output"})  # layers of the Transformer whose matrix is read instead of being called


def rounded_rows(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix as whole numbers of -127 to 127 and a scale for each row: (O, I) int8, (O) float32."""
    weight_OI = weight_OI.detach().float()
    scale_O = weight_OI.abs().amax(1).clamp(min=1e-12) / 127
    return (weight_OI / scale_O[:, None]).round().to(torch.int8), scale_O


class Int8Linear(nn.Module):
    """x W^T + b with W in int8; each row of x is rounded to int8 on its way in."""

    weight_int8: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.register_buffer("weight_int8", torch.zeros(outputs, inputs, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(outputs))
        self.register_buffer("bias", torch.zeros(outputs) if bias else None)

    @classmethod
    def of(cls, linear: nn.Linear) -> Int8Linear:
        """The layer in int8."""
        layer = cls(linear.in_features, linear.out_features, bias=linear.bias is not None)
        layer.weight_int8, layer.scale = rounded_rows(linear.weight)
        if linear.bias is not None:
            layer.bias = linear.bias.detach().float().clone()
        return layer

    def dequantized(self) -> Tensor:
        """The matrix that is computed with: (O, I) float32."""
        return self.weight_int8.float() * self.scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        flat_NI = x.reshape(-1, x.shape[-1]).float()
        scale_N1 = flat_NI.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        rounded_NI = (flat_NI / scale_N1).round().to(torch.int8)
        product_NO = torch._int_mm(rounded_NI, self.weight_int8.t()).float()
        out_NO = product_NO * scale_N1 * self.scale
        if self.bias is not None:
            out_NO = out_NO + self.bias
        return out_NO.view(*x.shape[:-1], -1)


class Int4Linear(nn.Module):
    """x W^T + b with W in 4 bits, two weights a byte; computed in bfloat16, as the kernel is fast in nothing else.

    Beside the bytes that are stored, which are the same on every machine, the layer keeps them in the order of this
    machine's kernel: one byte a weight in all.
    """

    weight_int4: Tensor
    scales_zeros: Tensor
    bias: Tensor | None

    def __init__(self, inputs: int, outputs: int, *, bias: bool, group: int) -> None:
        super().__init__()
        self.group = group
        self.register_buffer("weight_int4", torch.zeros(outputs, inputs // 2, dtype=torch.uint8))
        self.register_buffer("scales_zeros", torch.zeros(inputs // group, outputs, 2, dtype=torch.bfloat16))
        self.register_buffer("bias", torch.zeros(outputs) if bias else None)
        self._packed: Tensor | None = None

    @staticmethod
    def fits(linear: nn.Linear, group: int) -> bool:
        """Whether the kernel takes a layer of these sizes."""
        return linear.in_features % group == 0 and linear.out_features % ROWS == 0

    @classmethod
    def of(cls, linear: nn.Linear, group: int) -> Int4Linear:
        """The layer in 4 bits: each group of inputs between its least and its largest weight, in 15 steps."""
        layer = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, group=group)
        weight_OGI = linear.weight.detach().float().unflatten(1, (-1, group))  # type: ignore[no-untyped-call]
        low, high = weight_OGI.amin(2), weight_OGI.amax(2)
        scale_OG = ((high - low) / 15).clamp(min=1e-8).bfloat16()
        zero_OG = (low + 8 * scale_OG.float()).bfloat16()
        steps = (weight_OGI - zero_OG.float()[:, :, None]) / scale_OG.float()[:, :, None]
        codes_OI = (steps.round() + 8).clamp(0, 15).to(torch.uint8).flatten(1)
        layer.weight_int4 = codes_OI[:, ::2] | (codes_OI[:, 1::2] << 4)
        layer.scales_zeros = torch.stack([scale_OG.t(), zero_OG.t()], dim=-1).contiguous()
        if linear.bias is not None:
            layer.bias = linear.bias.detach().float().clone()
        return layer

    def codes(self) -> Tensor:
        """The stored weights, one by one: (O, I), 0 to 15."""
        return torch.stack([self.weight_int4 & 15, self.weight_int4 >> 4], dim=-1).flatten(1)

    def dequantized(self) -> Tensor:
        """The matrix that is computed with: (O, I) float32."""
        scale_OG1, zero_OG1 = (part.t()[:, :, None].float() for part in self.scales_zeros.unbind(-1))
        codes_OGI: Tensor = self.codes().float().unflatten(1, (-1, self.group))  # type: ignore[no-untyped-call]
        return ((codes_OGI - 8) * scale_OG1 + zero_OG1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        if self._packed is None:
            self._packed = torch._convert_weight_to_int4pack_for_cpu(self.codes().int(), 1)
        flat_NI = x.reshape(-1, x.shape[-1]).bfloat16()
        out_NO = torch._weight_int4pack_mm_for_cpu(
            flat_NI, self._packed, self.group, self.scales_zeros
        ).float()
        if self.bias is not None:
            out_NO = out_NO + self.bias
        return out_NO.view(*x.shape[:-1], -1)


class Int8Embedding(nn.Module):
    """A table of embeddings in int8, a scale for each row."""

    weight_int8: Tensor
    scale: Tensor

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.register_buffer("weight_int8", torch.zeros(rows, width, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(rows))
        self._weight: Tensor | None = None

    @classmethod
    def of(cls, embedding: nn.Embedding) -> Int8Embedding:
        """The table in int8."""
        table = cls(embedding.num_embeddings, embedding.embedding_dim)
        table.weight_int8, table.scale = rounded_rows(embedding.weight)
        return table

    @property
    def weight(self) -> Tensor:
        """The whole table in float32, (V, D); made at the first use and kept."""
        if self._weight is None:
            self._weight = self.weight_int8.float() * self.scale[:, None]
        return self._weight

    def forward(self, ids: Tensor) -> Tensor:
        """(...) to (..., D)."""
        return self.weight_int8[ids].float() * self.scale[ids][..., None]


def quantized(model: Transformer, kind: Bits, *, group: int = 32) -> Transformer:
    """A copy of a model with its linear layers and its embedding rounded; the model itself stays as it is.

    group: of inputs that share a scale (int4). Raises ConfigError for a kind or a group that does not exist.
    """
    problems = [] if kind in KINDS else [not_known("quantization", kind, KINDS)]
    problems += [] if group in GROUPS else [not_known("group", group, GROUPS)]
    raise_all(ConfigError, "quantization", problems)
    copy = Transformer.of_weights(
        model.config, {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    )
    for place, name, layer in list(_layers(copy)):
        setattr(place, name, _rounded(layer, kind, group))
    return copy.eval()


def _layers(model: Transformer) -> list[tuple[nn.Module, str, nn.Linear | nn.Embedding]]:
    """What is rounded: where it stands, under which name. Tables of positions and types are small and stay."""
    found: list[tuple[nn.Module, str, nn.Linear | nn.Embedding]] = [(model, "embedding", model.embedding)]
    for path, module in model.named_modules():
        found += [
            (module, name, child)
            for name, child in module.named_children()
            if isinstance(child, nn.Linear) and not (path == "" and name in _AS_MATRIX)
        ]
    return found


def _rounded(layer: nn.Linear | nn.Embedding, kind: str, group: int) -> nn.Module:
    if isinstance(layer, nn.Embedding):
        return Int8Embedding.of(layer)
    if kind == "int4" and Int4Linear.fits(layer, group):
        return Int4Linear.of(layer, group)
    return Int8Linear.of(layer)


def _empty(layer: nn.Linear | nn.Embedding, kind: str, group: int) -> nn.Module:
    if isinstance(layer, nn.Embedding):
        return Int8Embedding(layer.num_embeddings, layer.embedding_dim)
    bias = layer.bias is not None
    if kind == "int4" and Int4Linear.fits(layer, group):
        return Int4Linear(layer.in_features, layer.out_features, bias=bias, group=group)
    return Int8Linear(layer.in_features, layer.out_features, bias=bias)


def save_quantized(model: Transformer, folder: Path, kind: Bits, *, group: int = 32) -> None:
    """Write a quantised model into an existing folder: config.json, which says how, and model.safetensors."""
    write_json(folder / CONFIG, {**model.config.to_dict(), KEY: {"kind": kind, "group": group}})
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with explained(folder / WEIGHTS):
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load_quantized(folder: Path) -> Transformer:
    """The model that `save_quantized` wrote. Raises BundleError with everything that does not fit."""
    values = read_json(folder / CONFIG)
    how: Any = values.pop(KEY, None)
    kind, group = (how.get("kind"), how.get("group")) if isinstance(how, dict) else (None, None)
    if kind not in KINDS or group not in GROUPS:
        raise BundleError(
            f"{folder / CONFIG}: {KEY}={how!r} is not a kind ({', '.join(KINDS)}) with a group ({GROUPS})."
        )
    with torch.device("meta"):
        model = Transformer(ModelConfig.from_dict({k: v for k, v in values.items() if k != "model_type"}))
        for place, name, layer in list(_layers(model)):
            setattr(place, name, _empty(layer, kind, group))
    try:
        stored = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    expected = {name: (tuple(t.shape), t.dtype) for name, t in model.state_dict().items()}
    problems = [f"{name} is missing" for name in expected if name not in stored]
    problems += [f"{name} is not known" for name in stored if name not in expected]
    problems += [
        f"{name} is {tuple(stored[name].shape)} {stored[name].dtype}, not {shape} {dtype}"
        for name, (shape, dtype) in expected.items()
        if name in stored and (tuple(stored[name].shape), stored[name].dtype) != (shape, dtype)
    ]
    raise_all(BundleError, f"{folder / WEIGHTS} does not fit its {CONFIG}", problems)
    model.load_state_dict(stored, assign=True)
    for side in (model.encoder, model.decoder):
        if side is not None:
            side.remake_tables()
    return model.eval()
