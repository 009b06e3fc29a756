"""Recurrent and convolutional models as ONNX graphs, traced by torch's exporter.

Recurrences become ONNX's own operators: the exporter can only unroll them, to the length of its example.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from inkstone.ground.files import explained
from inkstone.model.interface import StepCache
from inkstone.ship.onnx_graph import quiet


def write_classifier(model: nn.Module, file: Path, marks: Mapping[str, str]) -> None:
    """ids (B, S) -> logits (B, C)."""
    ids_BS = torch.ones(3, 5, dtype=torch.long)
    _write(model, (ids_BS,), ({0: "batch", 1: "length"},), ["ids"], ["logits"], file, marks)


def write_translator(model: Any, first: Path, second: Path, marks: Mapping[str, str]) -> None:
    """The graphs of the encoder and of a step of the decoder, as `ship.onnx` describes them."""
    ids_BS = torch.full((3, 5), 4, dtype=torch.long)
    encoder, decoder = _graphs(model)
    with torch.no_grad():
        mask_BS, state, memory = encoder(ids_BS)
    states = [f"state_{number}" for number in range(len(state))]
    memories = [f"memory_{number}" for number in range(len(memory))]
    shape = {0: "batch", 1: "length"}
    _write(encoder, (ids_BS,), (shape,), ["ids"], ["mask", *states, *memories], first, marks)
    shapes = ({0: "batch"}, shape, [{0: "batch"}] * len(state), [shape] * len(memory))
    # Tensors of their own: the graph of slices is one for their strides, and the same tensor twice is one input.
    state, memory = ([one.contiguous().clone() for one in some] for some in (state, memory))
    arguments = (ids_BS[:, 0].contiguous(), mask_BS, state, memory)
    inputs, outputs = (
        ["token", "mask", *states, *memories],
        ["logits", "log_probabilities", *(f"next_{s}" for s in states)],
    )
    _write(decoder, arguments, shapes, inputs, outputs, second, marks)
    _pick_likeliest(second)


def _pick_likeliest(file: Path) -> None:
    """Add to a decoder's graph what picks the `count` likeliest tokens of each row, best first."""
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
        ) -> tuple[Tensor, Tensor, list[Tensor]]:
            cache = StepCache(0, state, memory)
            states_N1E = model.decode(token_N[:, None], None, mask_NS, cache)
            logits_NV = model.logits(states_N1E[:, 0])
            return logits_NV, logits_NV.log_softmax(-1), cache.states

    return Encoder().eval(), Step().eval()


def drawn_recurrences(model: Any) -> Any:
    """The encoder's layers as ONNX's own recurrent operators, both directions in one, with the rows' lengths.

    Torch's exporter can only unroll a recurrence, to the length of its example. An operator's gates stand in another
    order: input, output, forget, cell for LSTM where torch has input, forget, cell, output; update, reset, new for GRU
    where torch has reset, update, new. Both count the hidden bias before the reset gate.
    """
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


def _write(
    module: nn.Module,
    arguments: tuple[Any, ...],
    shapes: tuple[Any, ...],
    inputs: list[str],
    outputs: list[str],
    file: Path,
    metadata: Mapping[str, str],
) -> None:
    """Draw the graph of a module. Names such as "batch" stand for sizes that may be anything."""
    sizes: dict[str, Any] = {"batch": torch.export.Dim.DYNAMIC, "length": torch.export.Dim.DYNAMIC}

    def dynamic(value: Any) -> Any:
        if isinstance(value, dict):
            return {place: sizes[name] for place, name in value.items()}
        return type(value)(dynamic(one) for one in value)

    with quiet():
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
    helper.set_model_props(graph, dict(metadata))
    onnx.checker.check_model(graph)
    with explained(file):
        file.write_bytes(graph.SerializeToString())
