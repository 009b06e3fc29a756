"""The proof of an export: the exported model, run by another program or read back, against the one it came from.

Compared are numbers (logits; states of an encoder without a head; log-probabilities where a program gives nothing else)
on random inputs of several lengths, and greedy text where there is a decoder. In float32 they must agree to within
rounding; in int8 the largest difference is stated. The inputs are the same for ever, so a proof can be made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from inkstone.generate.ctranslate2_decoder import CTranslate2Decoder
from inkstone.generate.ctranslate2_model import opened
from inkstone.generate.engine import GenerationOptions
from inkstone.generate.onnx_decoder import OnnxDecoder
from inkstone.generate.onnx_engine import OnnxEngine
from inkstone.generate.onnx_session import CLASSIFIER, DECODER, ENCODER, open_session, padded
from inkstone.generate.torch_engine import TorchDecoder, TorchEngine
from inkstone.ground.errors import BundleError, raise_all
from inkstone.model.transformer import Transformer

LENGTHS = (1, 3, 7, 12, 20, 20)  # tokens of the inputs
STEPS = 20  # greedy tokens
LIMIT = 1e-3  # of a number, in float32

T = TypeVar("T")
Ids = Sequence[int]
Numbers = Callable[[Ids], NDArray[Any]]
Text = Callable[[Ids], list[int]]


@dataclass(frozen=True, slots=True)
class Proof:
    """What was compared, with what outcome."""

    target: str
    quantization: str
    compared: str  # kind of numbers
    inputs: int
    largest_difference: float
    greedy_identical: str = "no decoder"
    tokenizer: str = ""
    task_metric: dict[str, Any] | str = "not measured: no --data was given"  # see `recipes.task_metric`


def prove(
    target: str,
    quantization: str,
    compared: str,
    inputs: Sequence[Ids],
    numbers: tuple[Numbers, Numbers],
    text: tuple[Text, Text] | None = None,
) -> Proof:
    """Compare the model (first of each pair) with its export. Raises BundleError where float32 does not agree."""
    problems, largest, same = [], 0.0, 0
    for ids in inputs:
        mine, other = (np.asarray(say(ids), dtype=np.float32) for say in numbers)
        if mine.shape != other.shape:
            problems.append(f"an input of {len(ids)} tokens gives {other.shape}, not {mine.shape}")
            continue
        largest = max(largest, float(np.abs(mine - other).max()))
        same += text is not None and text[0](ids) == text[1](ids)
    if quantization == "float32" and not largest <= LIMIT:
        problems.append(f"{compared} differ by up to {largest:.3g}, more than {LIMIT}")
    if quantization == "float32" and text is not None and same < len(inputs):
        problems.append(f"greedy text is the same for only {same} of {len(inputs)} inputs")
    raise_all(BundleError, "the export does not agree with the model; nothing was written", problems)
    greedy = "no decoder" if text is None else f"{same} of {len(inputs)}"
    return Proof(target, quantization, compared, len(inputs), largest, greedy)


def inputs_for(config: Any) -> list[list[int]]:
    """Random token ids without the marks, the same for ever."""
    generator = torch.Generator().manual_seed(1)
    avoid = {config.pad_id, config.bos_id, config.eos_id}
    allowed = torch.tensor([number for number in range(config.vocab_size) if number not in avoid])
    lengths = [min(length, config.max_positions - 1) for length in LENGTHS]
    return [allowed[torch.randint(len(allowed), (n,), generator=generator)].tolist() for n in lengths]


@torch.inference_mode()
def numbers_of(model: Transformer, ids: Ids) -> NDArray[Any]:
    """What a model says of one input: logits, or states; an encoder-decoder reads the input as its target too."""
    row = torch.tensor([list(ids)])
    if model.config.shape == "encoder-decoder":
        found = model(row, torch.tensor([[model.config.bos_id, *ids]]))
    else:
        found = model(row) if model.config.has_decoder else model.encode(row)
    said: NDArray[Any] = found[0].numpy()
    return said


@torch.inference_mode()
def heads_of(model: Transformer, ids: Ids) -> dict[str, NDArray[Any]]:
    """All that an encoder says of one input, by name: states; pooled; logits of its labels or of masked tokens."""
    row, config = torch.tensor([list(ids)]), model.config
    found = {"states": model.encode(row)}
    if config.pooler:
        found["pooled"] = model.pool(found["states"], row)
    if config.num_labels or config.prediction_head:
        found["logits"] = model(row) if config.num_labels else model.logits(found["states"])
    return {name: tensor[0].numpy() for name, tensor in found.items()}


@torch.inference_mode()
def greedy_of(model: Transformer, ids: Ids) -> list[int]:
    """The likeliest tokens after a prompt, or of a source; end marks do not end it."""
    config, found, cache = model.config, [], model.new_cache()
    row = torch.tensor([list(ids)])
    memory = model.encode(row) if config.has_encoder else None
    new = torch.tensor([[config.bos_id]]) if config.has_encoder else row
    for _ in range(max(1, min(STEPS, config.max_positions - len(ids)))):
        new = model.logits(model.decode(new, memory, None, cache)[:, -1:]).argmax(-1)
        found.append(int(new))
    return found


def prove_read_back(model: Transformer, again: Transformer) -> Proof:
    """A folder for other programs, read back here."""
    inputs = inputs_for(model.config)
    if model.config.has_decoder:
        numbers: tuple[Numbers, Numbers] = (
            lambda ids: numbers_of(model, ids),
            lambda ids: numbers_of(again, ids),
        )
        texts: tuple[Text, Text] = (lambda ids: greedy_of(model, ids), lambda ids: greedy_of(again, ids))
        return prove("hf", "float32", "logits", inputs, numbers, texts)
    kinds = " and ".join(heads_of(model, inputs[0]))
    both: tuple[Numbers, Numbers] = (
        lambda ids: _flat(heads_of(model, ids).values()),
        lambda ids: _flat(heads_of(again, ids).values()),
    )
    return prove("hf", "float32", kinds, inputs, both)


def prove_ctranslate2(model: Transformer, folder: Path, quantization: str) -> Proof:
    """A CTranslate2 model, run by CTranslate2. Raises BundleError where it does not agree."""
    inputs = inputs_for(model.config)
    if model.config.shape == "encoder-decoder":
        return _prove_translator(model, folder, quantization, opened("Translator", folder, 1))
    if model.config.shape == "decoder":
        return _prove_decoder(model, folder, quantization, opened("Generator", folder, 1))
    encoder = opened("Encoder", folder, 1)

    def run(ids: Ids) -> NDArray[Any]:
        found: NDArray[Any] = np.array(encoder.forward_batch([list(ids)]).last_hidden_state)[0]
        return found

    return prove("ct2", quantization, "states", inputs, (lambda ids: numbers_of(model, ids), run))


def _prove_decoder(model: Transformer, folder: Path, quantization: str, generator: Any) -> Proof:
    """The logits of a decoder in CTranslate2, and what it writes after each input: all of them in one call."""
    inputs, greedy = inputs_for(model.config), GenerationOptions(beam_size=1, max_length=STEPS)
    alone = TorchDecoder(model)
    written = by_input(inputs, CTranslate2Decoder(folder, threads=1).generate(inputs, greedy))
    texts: tuple[Text, Text] = (
        lambda ids: list(alone.generate([ids], greedy)[0][0].ids),
        lambda ids: list(written[tuple(ids)][0].ids),
    )

    def run(ids: Ids) -> NDArray[Any]:
        found: NDArray[Any] = np.array(generator.forward_batch([list(ids)]))[0]
        return found

    numbers: tuple[Numbers, Numbers] = (lambda ids: numbers_of(model, ids), run)
    return prove("ct2", quantization, "logits", inputs, numbers, texts)


def _prove_translator(model: Transformer, folder: Path, quantization: str, translator: Any) -> Proof:
    """CTranslate2 tells no logits of a translator: the log-probability of each token of the input as its own target."""
    names: list[str] = json.loads((folder / "shared_vocabulary.json").read_text("utf-8"))
    places = {name: number for number, name in enumerate(names)}
    engine, greedy = TorchEngine(model), GenerationOptions(beam_size=1, max_length=STEPS)

    def mine(ids: Ids) -> NDArray[Any]:
        rows = torch.from_numpy(numbers_of(model, ids)).log_softmax(-1)
        found: NDArray[Any] = rows.gather(1, torch.tensor([*ids, model.config.eos_id])[:, None])[:, 0].numpy()
        return found

    def theirs(ids: Ids) -> NDArray[Any]:
        tokens = [names[number] for number in ids]
        return np.array(translator.score_batch([tokens], [tokens])[0].log_probs)

    def written(ids: Ids) -> list[int]:
        tokens = [[names[number] for number in ids]]
        limit = greedy.limit(len(ids))
        found = translator.translate_batch(
            tokens, beam_size=1, max_decoding_length=limit, min_decoding_length=0
        )
        return [places[token] for token in found[0].hypotheses[0]]

    texts: tuple[Text, Text] = (lambda ids: list(engine.generate([ids], greedy)[0][0].ids), written)
    return prove("ct2", quantization, "log-probabilities", inputs_for(model.config), (mine, theirs), texts)


def prove_onnx(model: Any, folder: Path, quantization: str) -> Proof:
    """ONNX graphs, run by onnxruntime: all inputs in one batch, the model one at a time.

    Raises BundleError where they do not agree.
    """
    inputs = inputs_for(model.config)
    if (folder / CLASSIFIER).exists():
        return _prove_graph(model, folder / CLASSIFIER, quantization, inputs)
    if not (folder / DECODER).exists():
        return _prove_graph(model, folder / ENCODER, quantization, inputs)
    greedy = GenerationOptions(beam_size=1, max_length=STEPS)
    alone: Any
    together: Any
    if (folder / ENCODER).exists():
        alone, together, kind = TorchEngine(model), OnnxEngine(folder, threads=1), "log-probabilities"
        scores = by_input(inputs, together.score(inputs, inputs))
        numbers = (
            lambda ids: np.array(alone.score([ids], [ids])),
            lambda ids: np.array([scores[tuple(ids)]]),
        )
    else:
        alone, together, kind = TorchDecoder(model), OnnxDecoder(folder, threads=1), "logits"
        numbers = (lambda ids: numbers_of(model, ids), together.logits)
    written = by_input(inputs, together.generate(inputs, greedy))
    texts: tuple[Text, Text] = (
        lambda ids: list(alone.generate([ids], greedy)[0][0].ids),
        lambda ids: list(written[tuple(ids)][0].ids),
    )
    return prove("onnx", quantization, kind, inputs, numbers, texts)


def by_input(inputs: Sequence[Ids], found: Sequence[T]) -> dict[tuple[int, ...], T]:
    """What was found for all inputs together, to be looked up by each."""
    return {tuple(ids): one for ids, one in zip(inputs, found, strict=True)}


def _prove_graph(model: Any, file: Path, quantization: str, inputs: Sequence[Ids]) -> Proof:
    """A graph that gives what it has to say at once: a classifier, or an encoder with whatever is on it."""
    session = open_session(file, 1)
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {"ids": padded(inputs, model.config.pad_id)})
    rows = by_input(inputs, list(zip(*found, strict=True)))

    @torch.inference_mode()
    def mine(ids: Ids) -> NDArray[Any]:
        row = torch.tensor([list(ids)])
        if file.name == CLASSIFIER:
            return _flat([model(row)])
        states = model.encode(row)
        of = {
            "states": lambda: states,
            "pooled": lambda: model.pool(states, row),
            "logits": lambda: model.logits(states),
        }
        return _flat([of[name]() for name in names])

    def run(ids: Ids) -> NDArray[Any]:
        return _flat([one if one.ndim == 1 else one[: len(ids)] for one in rows[tuple(ids)]])

    return prove("onnx", quantization, " and ".join(names), inputs, (mine, run))


def _flat(arrays: Iterable[Any]) -> NDArray[Any]:
    return np.concatenate([np.asarray(one).ravel() for one in arrays])
