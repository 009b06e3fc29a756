"""An ONNX graph in the making: operators put down one after another, each giving its output a name.

    graph = Graph("encoder")
    ids = graph.input("ids", INTEGER, "batch", "length")
    x = graph.node("Gather", graph.weight("embedding", table_VD), ids)
    graph.output(x, "states", NUMBER, "batch", "length", 16)
    graph.write(file, marks)

Sizes are numbers, or names such as "batch" for those that may be anything. Weights go in once, under their own names;
constants, which are small, by what they hold. A graph that is too large for one file (protocol buffers end at 2 GiB) has
its weights beside it, in `<file>.data`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from inkstone.ground.files import explained

NUMBER, INTEGER, TRUTH = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
OPSET, IR_VERSION = 20, 9  # the first with Gelu; what runtimes since the end of 2023 read
WHOLE_BYTES = 2_000_000_000  # of a graph in one file
EXACT = "exact/"  # begins the names of lookups that are not to be rounded


class Graph:
    """See the module. Every method that adds something gives the name of its output."""

    def __init__(self, name: str) -> None:
        opsets = [helper.make_opsetid("", OPSET)]
        empty = helper.make_graph([], name, [], [])
        self._model = helper.make_model(empty, opset_imports=opsets, producer_name="inkstone")
        self._model.ir_version = IR_VERSION
        self._graph = self._model.graph  # filled where it is: every copy would be of all weights
        self._weights: set[str] = set()
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def input(self, name: str, kind: int, *sizes: str | int) -> str:
        """What is handed in."""
        self._graph.input.append(helper.make_tensor_value_info(name, kind, list(sizes)))
        return name

    def output(self, value: str, name: str, kind: int, *sizes: str | int) -> None:
        """What is handed out: a value under a name of its own."""
        self._graph.node.append(helper.make_node("Identity", [value], [name]))
        self._graph.output.append(helper.make_tensor_value_info(name, kind, list(sizes)))

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """A tensor of the model. The same name twice is the same tensor."""
        if name not in self._weights:
            self._weights.add(name)
            self._graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def constant(self, value: Any, kind: type[np.generic] = np.int64) -> str:
        """A few fixed numbers."""
        array = np.asarray(value, kind)
        known = (array.dtype.str, array.shape, array.tobytes())
        if known not in self._constants:
            self._constants[known] = self.weight(f"constant_{len(self._constants)}", array)
        return self._constants[known]

    def node(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """One operator with one output."""
        (out,) = self.nodes(operator, 1, *inputs, name=name, **attributes)
        return out

    def nodes(
        self, operator: str, outputs: int, *inputs: str, name: str = "", **attributes: Any
    ) -> list[str]:
        """One operator with several outputs."""
        number = len(self._graph.node)
        names = [
            f"{operator}_{number}" if outputs == 1 else f"{operator}_{number}_{n}" for n in range(outputs)
        ]
        self._graph.node.append(
            helper.make_node(operator, list(inputs), names, name=name or names[0], **attributes)
        )
        return names

    def write(self, file: Path, metadata: Mapping[str, str]) -> None:
        """Check the graph and write it."""
        helper.set_model_props(self._model, dict(metadata))
        write_model(self._model, file)


def write_model(model: onnx.ModelProto, file: Path) -> None:
    """Write a graph, its weights in the same file or beside it, and check what was written."""
    size_bytes = sum(len(one.raw_data) for one in model.graph.initializer)
    beside = file.with_name(f"{file.name}.data")
    with explained(file):
        beside.unlink(missing_ok=True)
        if size_bytes > WHOLE_BYTES:
            onnx.save_model(
                model, file, save_as_external_data=True, location=beside.name, size_threshold=1024
            )
        else:
            file.write_bytes(model.SerializeToString())
        onnx.checker.check_model(str(file))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep back what exporters and quantisers say to their developers."""
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
