"""The parity certificate of a decoder: the exported engine is compared with the trained model, or it is not shipped.

  float32   the export must find each token of real held-out text as likely as the trained model does, and go on with
            prompts in the same words, greedily. This proves the export; the file is thrown away.
  int8      the served engine must not need more nats a token for the same text than the limit allows. Where it does,
            float32 is shipped instead, and the certificate says so.

The certificate keeps what the served engine wrote after a few prompts, so that `inkstone verify` can find out years
later, without torch, whether the engine still does what it did.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inkstone.generate.batching import within_budget
from inkstone.generate.ctranslate2_decoder import CTranslate2Decoder
from inkstone.generate.torch_engine import TorchDecoder
from inkstone.ground.errors import TrainingError
from inkstone.ground.files import write_json
from inkstone.ground.progress import say
from inkstone.model.padding import pad
from inkstone.model.transformer import Transformer
from inkstone.ship.ctranslate2 import export_ctranslate2
from inkstone.ship.greedy import written

CERTIFICATE = "parity.json"
LIMIT = 0.01  # nats, of any one token in float32
TIE = 0.05  # nats, between two texts that both engines find equally likely
PROBES = 6  # prompts kept in the certificate
TOKENS_AT_ONCE = 2048

Ids = Sequence[int]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DecoderCertificate:
    """What was compared, with what outcome. Losses are nats a token of the same held-out text."""

    engine: str
    tokens: int
    largest_difference: float  # of a token's log-probability, float32 export against the trained model
    prompts: int
    float32_identical: int  # prompts that both go on with in the same words
    loss_trained: float
    loss_served: float
    limit: float  # nats a token that the served engine may lose
    note: str = ""
    probes: list[dict[str, Any]] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """For the report card."""
        return {
            "engine": self.engine,
            "float32 export, largest difference of a token": f"{self.largest_difference:.2g} nats",
            "float32 export, greedy text identical": f"{self.float32_identical} of {self.prompts} prompts",
            "nats per token of the trained model": round(self.loss_trained, 4),
            f"nats per token of {self.engine}": round(self.loss_served, 4),
            "nats per token it may lose": self.limit,
            **({"note": self.note} if self.note else {}),
        }


@torch.inference_mode()
def log_probabilities(model: Transformer, rows: Sequence[Ids]) -> list[Floats]:
    """Of each token of each row but the first, given those before it, in nats: what the engine's method gives."""
    found: list[Floats] = [np.zeros(0)] * len(rows)
    for numbers in within_budget([len(row) for row in rows], TOKENS_AT_ONCE):
        ids_BT = pad([rows[n] for n in numbers], model.config.pad_id).to(model.output_weight.device)
        logs_BTV = model(ids_BT[:, :-1]).float().log_softmax(-1)
        chosen_BT = logs_BTV.gather(2, ids_BT[:, 1:, None])[:, :, 0].double().cpu().numpy()
        for number, row in zip(numbers, chosen_BT, strict=True):
            found[number] = row[: len(rows[number]) - 1]
    return found


def ship_language_model(
    folder: Path, model: Transformer, rows: Sequence[Ids], prompts: Sequence[Ids], *, limit: float = 0.02
) -> DecoderCertificate:
    """Put the served engine into a bundle in the making, proved against the trained model, and write the certificate.

    rows: held-out text as ids. prompts: beginnings. limit: nats a token above which int8 is refused.
    Raises TrainingError when the float32 export does not agree: that is no model to ship.
    """
    model.eval()
    expected = log_probabilities(model, rows)
    scratch = Path(tempfile.mkdtemp(prefix="inkstone-parity-"))
    try:
        export_ctranslate2(folder, scratch / "float32", quantization="float32")
        exact = CTranslate2Decoder(scratch / "float32")
        difference = largest_difference(expected, exact.log_probabilities(rows))
        if not difference <= LIMIT:
            raise TrainingError(
                f"the float32 export differs from the trained model by up to {difference:.3g} nats a token, more than "
                f"{LIMIT}. The export is wrong; nothing was shipped."
            )
        identical = _identical(TorchDecoder(model), exact, prompts)
        engine = export_ctranslate2(folder, folder / "ctranslate2-int8", quantization="int8")
        served = CTranslate2Decoder(engine)
        trained_loss, loss, note = _loss(expected), _loss(served.log_probabilities(rows)), ""
        if loss - trained_loss > limit:
            note = f"int8 lost {loss - trained_loss:.3f} nats a token, more than {limit}: float32 is shipped instead"
            say(note)
            shutil.rmtree(engine)
            engine = folder / "ctranslate2-float32"
            shutil.copytree(scratch / "float32", engine)
            served = CTranslate2Decoder(engine)
            loss = _loss(served.log_probabilities(rows))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    kept = [
        {"probe": f"prompt {number}", "source": list(prompt), "output": written(served, prompt)}
        for number, prompt in enumerate(prompts[:PROBES], 1)
    ]
    certificate = DecoderCertificate(
        engine.name,
        sum(map(len, expected)),
        difference,
        len(prompts),
        identical,
        trained_loss,
        loss,
        limit,
        note,
        kept,
    )
    write_json(folder / CERTIFICATE, asdict(certificate))
    return certificate


def _loss(found: Sequence[Floats]) -> float:
    return -float(np.concatenate(found).mean())


def largest_difference(one: Sequence[Floats], other: Sequence[Floats]) -> float:
    """Between the numbers of the same tokens."""
    return max(float(np.abs(mine - theirs).max()) for mine, theirs in zip(one, other, strict=True))


def _identical(trained: TorchDecoder, exact: CTranslate2Decoder, prompts: Sequence[Ids]) -> int:
    """For how many prompts both write the same. Raises TrainingError where they differ by more than a tie."""
    same = 0
    for number, prompt in enumerate(prompts):
        mine, other = written(trained, prompt), written(exact, prompt)
        same += mine == other
        if mine != other:
            place = next(
                (n for n, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b),
                min(len(mine), len(other)),
            )
            eos = trained.model.config.eos_id
            texts = [[*prompt, *ids[:place], *(ids[place : place + 1] or [eos])] for ids in (mine, other)]
            one, another = (found[-1] for found in log_probabilities(trained.model, texts))
            if abs(one - another) > TIE:
                raise TrainingError(
                    f"the float32 export goes on otherwise than the trained model after prompt {number}, at token "
                    f"{place}. The export is wrong; nothing was shipped."
                )
    return same
