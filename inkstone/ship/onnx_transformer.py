"""The one Transformer as ONNX graphs, for each shape, of `onnx_layers`; `ship.onnx` says what they take and give."""

from __future__ import annotations

from inkstone.model.transformer import Transformer
from inkstone.ship.onnx_graph import EXACT, INTEGER, NUMBER, TRUTH, Graph
from inkstone.ship.onnx_layers import Drawing, Seen

Kept = list[tuple[str, str]]  # keys and values of each layer


def encoded(drawing: Drawing, ids: str) -> tuple[str, str]:
    """The states of an encoder, as `pooled` reads them, for ids (B, S), and which are no padding (B, 1, 1, S)."""
    graph, config = drawing.graph, drawing.config
    real = graph.node("Not", graph.node("Equal", ids, graph.constant(config.pad_id)))
    mask = graph.node("Unsqueeze", real, graph.constant([1, 2]))
    places = drawing.span(graph.constant(0), drawing.size(ids, 1))
    hidden = drawing.hidden(mask)
    if config.positions == "relative":
        hidden = drawing.both(hidden, drawing.bias(places, places, "encoder"))
    seen = Seen(hidden, drawing.angles(places))
    x, closed = drawing.embed(ids, places, "encoder"), []
    for number in range(config.num_encoder_layers):
        x, _ = drawing.block(x, f"encoder.layers.{number}", seen)
        closed += [drawing.close(x, "encoder")] if config.pooling == "layers" else []
    return (graph.node("Concat", *closed, axis=-1) if closed else drawing.close(x, "encoder")), mask


def pooled(drawing: Drawing, states: str, mask: str) -> str:
    """As `Transformer.pool`, of states (B, S, any size)."""
    graph, node = drawing.graph, drawing.graph.node
    if drawing.config.pooling == "first":
        found = node("Gather", states, graph.constant(0), axis=1, name=f"{EXACT}first")
    else:
        weights = node("Cast", drawing.shaped(mask, 0, -1, 1), to=NUMBER)
        places = graph.constant([1])
        total = node("ReduceSum", node("Mul", states, weights), places, keepdims=0)
        count = node("ReduceSum", weights, places, keepdims=0)
        found = node("Div", total, node("Max", count, drawing.number(1)))
    return node("Tanh", drawing.linear(found, "pooler")) if drawing.config.pooler else found


def classifier_graph(model: Transformer) -> Graph:
    """ids (B, S) -> logits (B, C)."""
    drawing = Drawing(model, Graph("classifier"))
    ids = drawing.graph.input("ids", INTEGER, "batch", "length")
    logits = drawing.linear(pooled(drawing, *encoded(drawing, ids)), "classifier")
    drawing.graph.output(logits, "logits", NUMBER, "batch", model.config.num_labels)
    return drawing.graph


def encoder_graph(model: Transformer) -> Graph:
    """ids (B, S) -> states (B, S, D); pooled (B, D) with a pooler, logits (B, S, V) with a head that predicts tokens."""
    config, drawing = model.config, Drawing(model, Graph("encoder"))
    ids = drawing.graph.input("ids", INTEGER, "batch", "length")
    states, mask = encoded(drawing, ids)
    drawing.graph.output(states, "states", NUMBER, "batch", "length", config.hidden_size)
    if config.pooler:
        drawing.graph.output(pooled(drawing, states, mask), "pooled", NUMBER, "batch", config.hidden_size)
    if config.prediction_head:
        drawing.graph.output(drawing.logits(states), "logits", NUMBER, "batch", "length", config.vocab_size)
    return drawing.graph


def _kept(drawing: Drawing, kind: str, length: str) -> Kept:
    """Keys and values of each layer of the decoder as inputs of the graph: (N, G, length, K) each."""
    config = drawing.config
    names = [f"{kind}_{number}" for number in range(2 * config.num_decoder_layers)]
    for name in names:
        drawing.graph.input(name, NUMBER, "batch", config.num_kv_heads, length, config.head_size)
    return list(zip(names[::2], names[1::2], strict=True))


def _hand_out(drawing: Drawing, kind: str, length: str, kept: Kept) -> None:
    config = drawing.config
    for number, value in enumerate(one for pair in kept for one in pair):
        sizes = ("batch", config.num_kv_heads, length, config.head_size)
        drawing.graph.output(value, f"{kind}_{number}", NUMBER, *sizes)


def memory_graph(model: Transformer) -> Graph:
    """ids (B, S) -> mask (B, 1, 1, S), state_... (B, G, 0, K), memory_... (B, G, S, K): each layer's keys and values."""
    config, drawing = model.config, Drawing(model, Graph("encoder"))
    graph = drawing.graph
    ids = graph.input("ids", INTEGER, "batch", "length")
    x, mask = encoded(drawing, ids)
    graph.output(mask, "mask", TRUTH, "batch", 1, 1, "length")
    rest = graph.constant([config.num_kv_heads, 0, config.head_size])
    empty = graph.node(
        "ConstantOfShape", graph.node("Concat", graph.node("Shape", ids, start=0, end=1), rest, axis=0)
    )
    layers = range(config.num_decoder_layers)
    _hand_out(drawing, "state", "past", [(empty, empty) for _ in layers])
    memory = [drawing.memory(x, f"decoder.layers.{number}.memory_attention") for number in layers]
    _hand_out(drawing, "memory", "length", memory)
    return graph


def step_graph(model: Transformer) -> Graph:
    """One token of an encoder-decoder: token (N), mask, state_..., memory_..., count -> see `ship.onnx`."""
    drawing = Drawing(model, Graph("decoder"))
    graph = drawing.graph
    token = graph.input("token", INTEGER, "batch")
    mask = graph.input("mask", TRUTH, "batch", 1, 1, "length")
    states, memory = _kept(drawing, "state", "past"), _kept(drawing, "memory", "length")
    ids = graph.node("Unsqueeze", token, graph.constant([1]))
    x, states = _decoded(drawing, ids, states, memory=memory, memory_hidden=drawing.hidden(mask))
    logits = graph.node("Squeeze", drawing.logits(x), graph.constant([1]))
    _told(drawing, logits, ("batch",), states)
    return graph


def decoder_graph(model: Transformer) -> Graph:
    """Tokens behind others: ids (N, T), padding (N), wanted (P), state_..., count -> see `ship.onnx`."""
    drawing = Drawing(model, Graph("decoder"))
    graph = drawing.graph
    ids = graph.input("ids", INTEGER, "batch", "tokens")
    padding = graph.input("padding", INTEGER, "batch")
    wanted = graph.input("wanted", INTEGER, "places")
    x, states = _decoded(drawing, ids, _kept(drawing, "state", "past"), padding=padding, wanted=wanted)
    _told(drawing, drawing.logits(x), ("batch", "places"), states)
    return graph


def _decoded(
    drawing: Drawing,
    ids: str,
    states: Kept,
    *,
    padding: str = "",
    wanted: str = "",
    memory: Kept | None = None,
    memory_hidden: str = "",
) -> tuple[str, Kept]:
    """As `Transformer.decode`. padding: tokens at the left of each row; none anywhere where it is not there, and then one
    token is read at once. wanted: the places whose states are to be given; all where it is not there."""
    graph, node, config = drawing.graph, drawing.graph.node, drawing.config
    start = drawing.size(states[0][0], 2)
    end = node("Add", start, drawing.size(ids, 1))
    queries, keys = drawing.span(start, end), drawing.span(graph.constant(0), end)
    places = turned = queries
    if padding:
        own = node("Sub", queries, node("Unsqueeze", padding, graph.constant([1])))
        places = node("Max", own, graph.constant(0))
        turned = node("Unsqueeze", places, graph.constant([1]))
    hidden = _causal(drawing, queries, keys, padding)
    if config.positions == "relative":
        hidden = drawing.both(hidden, drawing.bias(queries, keys, "decoder"))
    seen = Seen(hidden, drawing.angles(turned))
    x = drawing.embed(ids, places, "decoder")
    after = []
    for number, past in enumerate(states):
        own_memory = memory[number] if memory else None
        x, kept = drawing.block(x, f"decoder.layers.{number}", seen, past, own_memory, memory_hidden)
        after.append(kept)
    if wanted:
        x = node("Gather", x, wanted, axis=1, name=f"{EXACT}wanted")
    return drawing.close(x, "decoder"), after


def _causal(drawing: Drawing, queries: str, keys: str, padding: str) -> str:
    """As `Side.causal_mask`, to be added to scores: (N, 1, T, L), (T, L), or nothing where everything is seen."""
    graph, node, window = drawing.graph, drawing.graph.node, drawing.config.window
    rows = node("Unsqueeze", queries, graph.constant([1]))
    masks = []
    if padding:
        masks.append(node("LessOrEqual", keys, rows))
        first = node("Unsqueeze", padding, graph.constant([1, 2, 3]))
        masks.append(node("GreaterOrEqual", keys, first))
    if window:
        masks.append(node("Greater", keys, node("Sub", rows, graph.constant(window))))
    if not masks:
        return ""
    mask = masks[0]
    for other in masks[1:]:
        mask = node("And", mask, other)
    return drawing.hidden(mask)


def _told(drawing: Drawing, logits: str, sizes: tuple[str, ...], states: Kept) -> None:
    """What a step of a decoder hands out."""
    graph, vocab_size = drawing.graph, drawing.config.vocab_size
    graph.output(logits, "logits", NUMBER, *sizes, vocab_size)
    logs = graph.node("LogSoftmax", logits, axis=-1)
    graph.output(logs, "log_probabilities", NUMBER, *sizes, vocab_size)
    scores, tokens = graph.nodes("TopK", 2, logs, graph.input("count", INTEGER, 1), axis=-1)
    graph.output(scores, "top_scores", NUMBER, *sizes, "count")
    graph.output(tokens, "top_tokens", INTEGER, *sizes, "count")
    _hand_out(drawing, "next_state", "present", states)
