"""A checkpoint as ONNX graphs, which onnxruntime runs without torch: for recurrent and convolutional models.

    classifier    classifier.onnx   ids (B, S) -> logits (B, C)
    translator    encoder.onnx      ids (B, S) -> mask, state_0, state_1 ..., memory_0 ...
                  decoder.onnx      token (N), mask, state_..., memory_..., count
                                    -> log_probabilities (N, V), next_state_..., top_scores and top_tokens (N, count)

The decoder makes one step, and picks out the likeliest tokens itself: a search needs a handful of the thousands of
log-probabilities of each row. What it remembers is handed in and out openly: a search reorders the rows of the states
and repeats those of the memory, and needs to know nothing else about the architecture. Every tensor has the batch
first. The marks it needs stand in the graph's metadata.

int8 is onnxruntime's dynamic quantisation: matrices, recurrences and embeddings are kept in eight bits, activations
become so at each product. Convolutions stay as they are; their integer kernels are slower. Weights are unsigned:
products of signed ones overflow silently on processors without the newer integer instructions, and a certificate
should hold there.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inkstone.ground.errors import ConfigError, require
from inkstone.ground.files import explained

if TYPE_CHECKING:
    from torch import Tensor, nn

Quantization = Literal["float32", "int8"]
ENCODER, DECODER, CLASSIFIER = "encoder.onnx", "decoder.onnx", "classifier.onnx"
QUANTISED = ("MatMul", "Gemm", "LSTM", "Gather")


def export_onnx(folder: Path, out: Path, *, quantization: Quantization) -> Path:
    """Write the checkpoint in `folder` (config.json, model.safetensors) as ONNX graphs into `out`.

    Raises ConfigError for an architecture that has no such export.
    """
    for package in ("torch", "onnx", "onnxscript"):
        require(package, "exporting to ONNX", "train")
    from inkstone.model.checkpoint import load_model
    from inkstone.model.convolutional import Convolutional
    from inkstone.model.recurrent import Recurrent
    from inkstone.model.textcnn import TextCNN

    model = load_model(folder)
    if isinstance(model, Recurrent):
        model.encoder = drawn_recurrences(model)
    out.mkdir(parents=True, exist_ok=True)
    if isinstance(model, TextCNN) or (isinstance(model, Recurrent) and model.classifier is not None):
        _write_classifier(model, out)
    elif isinstance(model, Convolutional) or (isinstance(model, Recurrent) and model.decoder is not None):
        _write_translator(model, out)
    else:
        raise ConfigError(f"{folder}: a model of kind {type(model).__name__} is not exported to ONNX.")
    if quantization == "int8":
        quantise_onnx(out, out)
    return out


def quantise_onnx(exact: Path, out: Path) -> Path:
    """Write the float32 graphs of a folder into another (or in their own place) with their weights in eight bits."""
    require("onnxruntime", "quantising ONNX graphs", "serve")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(exact.glob("*.onnx")):
        with tempfile.TemporaryDirectory(prefix="inkstone-onnx-") as scratch, _quiet():
            small = Path(scratch) / file.name
            quantize_dynamic(file, small, weight_type=QuantType.QUInt8, op_types_to_quantize=list(QUANTISED))
            with explained(out / file.name):
                shutil.copyfile(small, out / file.name)
    return out


def _write_classifier(model: nn.Module, out: Path) -> None:
    import torch

    ids_BS = torch.ones(3, 5, dtype=torch.long)
    _write(
        model, (ids_BS,), ({0: "batch", 1: "length"},), ["ids"], ["logits"], out / CLASSIFIER, _marks(model)
    )


def _write_translator(model: Any, out: Path) -> None:
    import torch

    ids_BS = torch.full((3, 5), 4, dtype=torch.long)
    encoder, decoder = _graphs(model)
    with torch.no_grad():
        mask_BS, state, memory = encoder(ids_BS)
    states = [f"state_{number}" for number in range(len(state))]
    memories = [f"memory_{number}" for number in range(len(memory))]
    shape = {0: "batch", 1: "length"}
    _write(encoder, (ids_BS,), (shape,), ["ids"], ["mask", *states, *memories], out / ENCODER, _marks(model))
    shapes = ({0: "batch"}, shape, [{0: "batch"}] * len(state), [shape] * len(memory))
    # Tensors of their own: the graph of slices is one for their strides, and the same tensor twice is one input.
    state, memory = ([one.contiguous().clone() for one in some] for some in (state, memory))
    arguments = (ids_BS[:, 0].contiguous(), mask_BS, state, memory)
    inputs, outputs = (
        ["token", "mask", *states, *memories],
        ["log_probabilities", *(f"next_{s}" for s in states)],
    )
    _write(decoder, arguments, shapes, inputs, outputs, out / DECODER, _marks(model))
    _pick_likeliest(out / DECODER)


def _pick_likeliest(file: Path) -> None:
    """Add to a decoder's graph what picks the `count` likeliest tokens of each row, best first."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(file)
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info("count", TensorProto.INT64, [1]))
    outputs = ["top_scores", "top_tokens"]
    graph.node.append(helper.make_node("TopK", ["log_probabilities", "count"], outputs, axis=-1))
    for name, kind in zip(outputs, (TensorProto.FLOAT, TensorProto.INT64), strict=True):
        graph.output.append(helper.make_tensor_value_info(name, kind, ["batch", "count"]))
    onnx.checker.check_model(model)
    with explained(file):
        file.write_bytes(model.SerializeToString())


def _graphs(model: Any) -> tuple[nn.Module, nn.Module]:
    """What is to be drawn of a model: its encoder with what decoding begins with, and one step of its decoder."""
    from torch import nn

    from inkstone.model.interface import StepCache

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids_BS: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
            mask_BS = model.visible(ids_BS)
            begun = model.begin(model.encode(ids_BS), mask_BS)
            return mask_BS, begun.states, begun.memory

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self, token_N: Tensor, mask_NS: Tensor, state: list[Tensor], memory: list[Tensor]
        ) -> tuple[Tensor, list[Tensor]]:
            cache = StepCache(0, state, memory)
            states_N1E = model.decode(token_N[:, None], None, mask_NS, cache)
            return model.logits(states_N1E[:, 0]).log_softmax(-1), cache.states

    return Encoder().eval(), Step().eval()


def drawn_recurrences(model: Any) -> Any:
    """The encoder's layers as ONNX's own recurrent operators, both directions in one, with the rows' lengths.

    Torch's exporter can only unroll a recurrence, to the length of its example. An operator's gates stand in another
    order: input, output, forget, cell for LSTM where torch has input, forget, cell, output; update, reset, new for GRU
    where torch has reset, update, new. Both count the hidden bias before the reset gate.
    """
    import torch
    from torch import nn

    lstm = model.config.cell == "lstm"
    order = (0, 3, 1, 2) if lstm else (1, 0, 2)

    def ordered(weight: Tensor) -> Tensor:
        parts = weight.detach().chunk(len(order))
        return torch.cat([parts[place] for place in order])

    class Drawn(nn.Module):
        weights: Tensor
        recurrent: Tensor
        biases: Tensor

        def __init__(self, layer: Any) -> None:
            super().__init__()
            sides = [layer.ahead] if layer.back is None else [layer.ahead, layer.back]
            self.size, self.sides = layer.ahead.hidden_size, len(sides)
            weights = {"weights": "weight_ih_l0", "recurrent": "weight_hh_l0"}
            for name, theirs in weights.items():
                self.register_buffer(name, torch.stack([ordered(getattr(side, theirs)) for side in sides]))
            biases = [[ordered(side.bias_ih_l0), ordered(side.bias_hh_l0)] for side in sides]
            self.register_buffer("biases", torch.stack([torch.cat(pair) for pair in biases]))

        def forward(self, x_BSE: Tensor, lengths_B: Tensor) -> Tensor:
            rows, length = x_BSE.shape[:2]
            last = (self.sides, rows, self.size)
            attributes: dict[str, Any] = {
                "hidden_size": self.size,
                "direction": "bidirectional" if self.sides == 2 else "forward",
            }
            outputs = torch.onnx.ops.symbolic_multi_out(
                "LSTM" if lstm else "GRU",
                (
                    x_BSE.transpose(0, 1), self.weights, self.recurrent, self.biases,
                    lengths_B.clamp(min=1).to(torch.int32),
                ),
                attrs=attributes if lstm else {**attributes, "linear_before_reset": 1},
                dtypes=[torch.float32] * (3 if lstm else 2),
                shapes=[(length, self.sides, rows, self.size), *[last] * (2 if lstm else 1)],
            )  # fmt: skip
            return outputs[0].permute(2, 0, 1, 3).flatten(2)

    return nn.ModuleList(Drawn(layer) for layer in model.encoder)


def _marks(model: Any) -> dict[str, str]:
    config = model.config
    values = {name: getattr(config, name) for name in ("pad_id", "bos_id", "eos_id", "vocab_size")}
    return {
        "inkstone": config.to_dict()["model_type"],
        **{name: str(value) for name, value in values.items()},
    }


def _write(
    module: nn.Module,
    arguments: tuple[Any, ...],
    shapes: tuple[Any, ...],
    inputs: list[str],
    outputs: list[str],
    file: Path,
    metadata: dict[str, str],
) -> None:
    """Draw the graph of a module. Names such as "batch" stand for sizes that may be anything."""
    import onnx
    import torch

    sizes: dict[str, Any] = {"batch": torch.export.Dim.DYNAMIC, "length": torch.export.Dim.DYNAMIC}

    def dynamic(value: Any) -> Any:
        if isinstance(value, dict):
            return {place: sizes[name] for place, name in value.items()}
        return type(value)(dynamic(one) for one in value)

    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            arguments,
            dynamo=True,
            dynamic_shapes=dynamic(shapes),
            input_names=inputs,
            output_names=outputs,
            verbose=False,
        )
    assert program is not None, "the dynamo exporter returns a program"
    graph = program.model_proto
    # The exporter notes sizes of intermediate results as they were with the example's; the runtime finds its own.
    del graph.graph.value_info[:]
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph)
    with explained(file):
        file.write_bytes(graph.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter and the quantiser say to their developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
