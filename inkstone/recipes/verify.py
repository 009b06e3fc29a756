"""Verify a bundle: every file is the one that was written, and the engine still answers as it was certified to.

hashes -> description -> configuration and tokenizer agree -> probes: the served engine gives the certified output
-> with torch: a float32 export of the checkpoint gives greedily what the checkpoint gives
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from inkstone.ground.errors import BundleError, InkstoneError
from inkstone.ground.manifest import MANIFEST, check, read_json
from inkstone.model.bundle import DESCRIPTION, Bundle, open_bundle


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    passed: bool
    detail: str


def verify(folder: Path) -> Iterator[Check]:
    """Look at everything in turn; what follows from a failed check is not tried."""
    problems = (
        [problem for _, problem in check(folder) if problem]
        if folder.is_dir()
        else [f"{folder} is no folder"]
    )
    files = sum(1 for _ in check(folder)) if not problems else 0
    yield Check("files", not problems, "; ".join(problems) or f"{files} files are as their sha256 says")
    if problems:
        return
    if not (folder / DESCRIPTION).exists():  # no bundle: what `pull` or `export` wrote
        yield from _checkpoint(folder)
        return
    try:
        bundle = open_bundle(folder)
    except InkstoneError as error:
        yield Check("description", False, str(error))
        return
    yield Check("description", True, f"{bundle.name}: {bundle.task}, {', '.join(bundle.languages)}")
    checks: dict[str, Callable[[Bundle], Iterator[Check]]] = {
        "translate": _sequences,
        "summarize": _sequences,
        "classify": _classifier,
        "language-model": _language_model,
        "embed": _encoder,
    }
    try:
        yield from checks[bundle.task](bundle)
    except InkstoneError as error:
        yield Check("engine", False, str(error))


def _checkpoint(folder: Path) -> Iterator[Check]:
    """A checkpoint of others, or a model for other programs: that it is in order, and what was proved of it."""
    made = read_json(folder / MANIFEST).get("made", {})
    known = isinstance(made, dict) and ("pulled" in made or "exported_from" in made)
    if not known:
        yield Check(
            "description",
            False,
            f"{DESCRIPTION} is missing: this is no bundle, and nothing pulled or exported",
        )
        return
    yield Check("description", True, ", ".join(f"{name}: {value}" for name, value in made.items()))
    if ("pulled" in made or made.get("to") == "hf") and find_spec("torch"):
        from inkstone.model.families.folder import look_into

        found = look_into(folder)
        yield Check(
            "checkpoint", not found.problems, "; ".join(found.problems) or f"{found.architecture}, in order"
        )
    if "exported_from" in made:
        proof = read_json(folder / "parity.json")
        said = f"{proof.get('compared')} of {proof.get('inputs')} inputs differed by {proof.get('largest_difference')}"
        yield Check("proof", True, f"{said}, greedy text identical: {proof.get('greedy_identical')}")


def _sequences(bundle: Bundle) -> Iterator[Check]:
    """A translator or a summariser."""
    from inkstone.apps.summarize import Summarizer
    from inkstone.apps.translate import Translator
    from inkstone.ship.parity import CERTIFICATE, greedy

    app = Translator(bundle.path) if bundle.task == "translate" else Summarizer(bundle.path)
    yield Check("engine", True, f"{app.engine.name} opens; vocabulary {app.tokenizer.vocab_size:,}")
    probes = _probes(read_json(bundle.path / CERTIFICATE), app.tokenizer.vocab_size)
    found = app.engine.generate([probe["source"] for probe in probes], greedy(bundle.path))
    changed = [
        str(probe.get("probe"))
        for probe, hypotheses in zip(probes, found, strict=True)
        if list(hypotheses[0].ids) != probe["output"]
    ]
    detail = f"differs on: {', '.join(changed)}" if changed else f"{len(probes)} probes answered as certified"
    yield Check("certified output", not changed, detail)
    if find_spec("torch") and (app.engine.name.startswith("ctranslate2") or find_spec("onnxscript")):
        yield _float32_parity(bundle, [probe["source"] for probe in probes])


def _probes(certificate: dict[str, Any], vocab_size: int) -> list[dict[str, Any]]:
    """The certified inputs and outputs. Raises BundleError when the certificate holds none that can be run."""
    found = certificate.get("probes")
    probes = [probe for probe in found if isinstance(probe, dict)] if isinstance(found, list) else []
    ids = [probe.get(side) for probe in probes for side in ("source", "output")]
    known = range(vocab_size)
    if not ids or not all(isinstance(row, list) and all(number in known for number in row) for row in ids):
        raise BundleError("the parity certificate holds no probes that can be run. Train the model again.")
    return probes


def _float32_parity(bundle: Bundle, sources: list[list[int]]) -> Check:
    from inkstone.generate.torch_engine import TorchEngine
    from inkstone.ship.parity import greedy, target_of

    target, options = target_of(bundle.path), greedy(bundle.path)
    expected = [found[0].ids for found in TorchEngine.load(bundle.path).generate(sources, options)]
    with tempfile.TemporaryDirectory(prefix="inkstone-verify-") as scratch:
        exact = target.export(bundle.path, Path(scratch) / "float32", quantization="float32")
        got = [found[0].ids for found in target.open(bundle.path, exact).generate(sources, options)]
    same = sum(a == b for a, b in zip(expected, got, strict=True))
    return Check(
        "float32 parity", same == len(sources), f"{same} of {len(sources)} probes identical to torch"
    )


def _classifier(bundle: Bundle) -> Iterator[Check]:
    from inkstone.apps.classify import Classifier

    classifier = Classifier(bundle.path)
    found = classifier.predict(["hello", "你好"])
    valid = all(set(one.scores) <= set(bundle.description["labels"]) for one in found)
    yield Check(
        "engine", valid, f"opens and gives probabilities over {len(bundle.description['labels'])} labels"
    )


def _encoder(bundle: Bundle) -> Iterator[Check]:
    from inkstone.apps.embed import SentenceEncoder
    from inkstone.ship.embed import CERTIFICATE, SAME, vector_probes

    encoder = SentenceEncoder(bundle.path)
    yield Check("engine", True, f"{encoder.engine.name} opens; vectors of {encoder.dimensions} numbers")
    texts, wanted_ND = vector_probes(read_json(bundle.path / CERTIFICATE), encoder.dimensions)
    cosines_N = (encoder.engine.encode(texts) * wanted_ND).sum(axis=1)
    least = float(cosines_N.min())
    yield Check("certified output", least >= SAME, f"{len(texts)} probes: cosine {least:.4f} or more")
    if find_spec("torch"):
        yield _float32_vectors(bundle, texts)


def _float32_vectors(bundle: Bundle, texts: list[str]) -> Check:
    """Whether a float32 export gives the vectors that the checkpoint gives."""
    from inkstone.generate.sentence_encoder import onnx_encoder, torch_encoder
    from inkstone.ship.embed import LIMIT, farthest
    from inkstone.ship.onnx import export_onnx

    with tempfile.TemporaryDirectory(prefix="inkstone-verify-") as scratch:
        exact = export_onnx(bundle.path, Path(scratch) / "float32", quantization="float32")
        apart = farthest(
            torch_encoder(bundle.path).encode(texts), onnx_encoder(bundle.path, exact).encode(texts)
        )
    return Check("float32 parity", apart <= LIMIT, f"vectors {apart:.2g} apart at most")


def _language_model(bundle: Bundle) -> Iterator[Check]:
    """One that goes on with texts has an engine and probes; one that fills gaps is its checkpoint and nothing else."""
    if bundle.description["objective"] == "causal":
        yield from _decoder(bundle)
        return
    from inkstone.text.tokenizer import Tokenizer

    config, tokenizer = read_json(bundle.path / "config.json"), Tokenizer.load(bundle.path)
    same = config.get("vocab_size") == tokenizer.vocab_size
    yield Check(
        "tokenizer", same, f"{tokenizer.vocab_size:,} tokens, {config.get('vocab_size')} in the model"
    )
    if find_spec("torch"):
        from inkstone.model.checkpoint import load_model

        count = sum(parameter.numel() for parameter in load_model(bundle.path).parameters())
        yield Check("checkpoint", True, f"opens, {count:,} parameters")


def _decoder(bundle: Bundle) -> Iterator[Check]:
    from inkstone.apps.language_model import LanguageModel
    from inkstone.ship.greedy import written

    model = LanguageModel(bundle.path)
    engine, vocabulary = model.engine, model.tokenizer.vocab_size
    yield Check("engine", True, f"{engine.name} opens; vocabulary {vocabulary:,}")
    probes = _probes(read_json(bundle.path / "parity.json"), vocabulary)
    changed = [
        str(probe.get("probe")) for probe in probes if written(engine, probe["source"]) != probe["output"]
    ]
    detail = f"differs on: {', '.join(changed)}" if changed else f"{len(probes)} probes answered as certified"
    yield Check("certified output", not changed, detail)
    if find_spec("torch"):
        yield _float32_likelihood(bundle, [[*probe["source"], *probe["output"]] for probe in probes])


def _float32_likelihood(bundle: Bundle, texts: list[list[int]]) -> Check:
    """Whether a float32 export finds the certified texts as likely as the checkpoint does."""
    from inkstone.generate.ctranslate2_decoder import CTranslate2Decoder
    from inkstone.model.checkpoint import load_model
    from inkstone.model.transformer import Transformer
    from inkstone.ship.ctranslate2 import export_ctranslate2
    from inkstone.ship.language_model import LIMIT, largest_difference, log_probabilities

    model = load_model(bundle.path)
    assert isinstance(model, Transformer), type(model)
    with tempfile.TemporaryDirectory(prefix="inkstone-verify-") as scratch:
        exact = export_ctranslate2(bundle.path, Path(scratch) / "float32", quantization="float32")
        found = CTranslate2Decoder(exact).log_probabilities(texts)
    difference = largest_difference(log_probabilities(model.eval(), texts), found)
    return Check(
        "float32 parity", difference <= LIMIT, f"log-probabilities {difference:.2g} nats apart at most"
    )
