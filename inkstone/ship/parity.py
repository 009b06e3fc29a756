"""The parity certificate: the exported engine is compared with the trained model, or it is not shipped.

Two comparisons on real sources:
  float32   the export in float32 must give, greedily, the same token ids for every sentence, and find the trained
            model's output as likely as the model does (a model whose scores are all doubled has the same greedy
            output). This proves the export; the file is thrown away.
  int8      the served engine must not lose more of the metric (chrF against the references, greedy) than the limit.
            Where it does, float32 is shipped instead, and the certificate says so.

Besides, the certificate keeps the served engine's translations of a few sentences written for the purpose (`PROBES`),
so that `inkstone verify` can find out years later, without torch, whether the engine still does what it did.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from inkstone.generate.ctranslate2_engine import CTranslate2Engine
from inkstone.generate.engine import Engine, GenerationOptions
from inkstone.generate.onnx_engine import OnnxEngine
from inkstone.ground.errors import TrainingError
from inkstone.ground.files import write_json
from inkstone.ground.manifest import read_json
from inkstone.ground.progress import say
from inkstone.ship.ctranslate2 import export_ctranslate2
from inkstone.ship.onnx import export_onnx, quantise_onnx
from inkstone.ship.target import Target
from inkstone.text.tokenizer import Tokenizer

SENTENCES = 200
SCORE_LIMIT = 0.01  # nats a token; exports that are right were 0.00001 apart at most (tests/generate)
CERTIFICATE = "parity.json"
PROBES = {
    "en": (
        "The door is open.",
        "How many books did you buy yesterday?",
        "Two dogs are running in the snow .",
    ),
    "zh": ("门是开着的。", "你昨天买了几本书？", "两只狗在雪地里奔跑。"),
    "de": (
        "Die Tür ist offen .",
        "Wie viele Bücher hast du gestern gekauft ?",
        "zwei hunde laufen im schnee .",
    ),
    "fr": (
        "La porte est ouverte .",
        "Combien de livres as-tu achetés hier ?",
        "deux chiens courent dans la neige .",
    ),
}


def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder / "tokenizer.json")


CTRANSLATE2: Target[Engine] = Target(
    "ctranslate2",
    export_ctranslate2,
    lambda folder, _, out: export_ctranslate2(folder, out, quantization="int8"),
    lambda folder, export: CTranslate2Engine(export, _tokenizer(folder)),
)
ONNX: Target[Engine] = Target(
    "onnx",
    export_onnx,
    lambda _, exact, out: quantise_onnx(exact, out),
    lambda folder, export: OnnxEngine(export, _tokenizer(folder)),
)


def target_of(folder: Path) -> Target[Engine]:
    """What serves the checkpoint in a folder: CTranslate2 its Transformers, onnxruntime everything else."""
    model_type = read_json(folder / "config.json").get("model_type")
    return CTRANSLATE2 if model_type in ("inkstone-transformer", None) else ONNX


def greedy(folder: Path) -> GenerationOptions:
    """How a checkpoint answers for its certificate; of the model's positions one is left for the end mark."""
    options = GenerationOptions(beam_size=1)
    positions = int(read_json(folder / "config.json").get("max_positions") or 0)
    return replace(options, max_length=min(options.max_length, positions - 1)) if positions > 1 else options


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was compared, with what outcome."""

    engine: str
    sentences: int
    float32_identical: int  # sentences whose greedy token ids are the trained model's
    chrf_trained: float
    chrf_served: float
    limit: float  # of chrF that the served engine may lose
    note: str = ""
    probes: list[dict[str, Any]] = field(default_factory=list)
    score_difference: float = (
        0.0  # nats a token, the largest between the trained model and its float32 export
    )

    def facts(self) -> dict[str, Any]:
        """For the report card."""
        return {
            "engine": self.engine,
            "float32 export, greedy output identical": f"{self.float32_identical} of {self.sentences} sentences",
            "chrF of the trained model": round(self.chrf_trained, 2),
            f"chrF of {self.engine}": round(self.chrf_served, 2),
            "chrF it may lose": self.limit,
            **({"note": self.note} if self.note else {}),
        }


def ship_translator(
    folder: Path,
    trained: Engine,
    sources: Sequence[Sequence[int]],
    references: Sequence[str],
    probes: Sequence[tuple[str, list[int]]],
    *,
    limit: float = 1.0,
) -> Certificate:
    """Put the served engine into a bundle in the making, proved against the trained one, and write the certificate.

    sources, references: real sentences (ids with their marks, texts). probes: (description, source ids). limit: the loss
    of chrF above which int8 is refused.
    Raises TrainingError when the float32 export does not agree: that is no model to ship.
    """
    from inkstone.metrics.text import chrf

    tokenizer, target, options = _tokenizer(folder), target_of(folder), greedy(folder)
    expected = [found[0].ids for found in trained.generate(sources, options)]
    chrf_trained = chrf(tokenizer.decode_batch(expected), references).value
    scratch = Path(tempfile.mkdtemp(prefix="inkstone-parity-"))
    try:
        exact = target.open(folder, target.export(folder, scratch / "float32", quantization="float32"))
        got = [found[0].ids for found in exact.generate(sources, options)]
        identical = sum(a == b for a, b in zip(expected, got, strict=True))
        if identical != len(sources):
            # A near tie may fall either way between two correct implementations: score both to tell.
            differing = [n for n, (a, b) in enumerate(zip(expected, got, strict=True)) if a != b]
            _refuse_unless_ties(trained, sources, expected, got, differing)
        difference = _score_difference(trained, exact, sources, expected)
        engine = target.shrink(folder, scratch / "float32", folder / f"{target.name}-int8")
        served = target.open(folder, engine)
        chrf_served = _chrf_of(served, tokenizer, sources, references, options)
        note = ""
        if chrf_trained - chrf_served > limit:
            note = f"int8 lost {chrf_trained - chrf_served:.2f} chrF, more than {limit}: float32 is shipped instead"
            say(note)
            shutil.rmtree(engine)
            engine = folder / f"{target.name}-float32"
            shutil.copytree(scratch / "float32", engine)
            served = target.open(folder, engine)
            chrf_served = _chrf_of(served, tokenizer, sources, references, options)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    answers = served.generate([ids for _, ids in probes], options)
    kept = [
        {"probe": name, "source": list(ids), "output": list(found[0].ids)}
        for (name, ids), found in zip(probes, answers, strict=True)
    ]
    certificate = Certificate(
        engine.name, len(sources), identical, chrf_trained, chrf_served, limit, note, kept, difference
    )
    write_json(folder / CERTIFICATE, asdict(certificate))
    return certificate


def _chrf_of(
    engine: Engine,
    tokenizer: Tokenizer,
    sources: Sequence[Sequence[int]],
    references: Sequence[str],
    options: GenerationOptions,
) -> float:
    from inkstone.metrics.text import chrf

    outputs = tokenizer.decode_batch([found[0].ids for found in engine.generate(sources, options)])
    return chrf(outputs, references).value


def _score_difference(
    trained: Engine, exported: Engine, sources: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]
) -> float:
    """The largest difference between how likely both find an output, per token. Raises TrainingError above the limit."""
    scores = zip(trained.score(sources, outputs), exported.score(sources, outputs), outputs, strict=True)
    largest = max((abs(one - other) / (len(ids) + 1) for one, other, ids in scores), default=0.0)
    if not largest <= SCORE_LIMIT:
        raise TrainingError(
            f"the float32 export differs from the trained model by {largest:.3g} nats a token, more than {SCORE_LIMIT}. "
            "The export is wrong; nothing was shipped."
        )
    return largest


def _refuse_unless_ties(
    trained: Engine,
    sources: Sequence[Sequence[int]],
    expected: Sequence[Sequence[int]],
    got: Sequence[Sequence[int]],
    differing: Sequence[int],
) -> None:
    """Raise TrainingError unless, at the first difference, both tokens were as likely to within float32 rounding."""
    for number in differing:
        a, b = expected[number], got[number]
        place = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        prefixes = [list(ids[: place + 1]) for ids in (a, b)]
        one, other = trained.score([sources[number]] * 2, prefixes)
        # Both share the prefix; `score` adds the end mark, so ties are judged on whole scores loosely.
        if abs(one - other) > 0.05:
            raise TrainingError(
                f"the float32 export differs from the trained model in {len(differing)} of {len(sources)} sentences "
                f"(first: sentence {number}, token {place}). The export is wrong; nothing was shipped."
            )
