"""Everything that instruction tuning is made of, as one record; the run itself is `recipes.chat`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from inkstone.ground.configuration import overlay
from inkstone.learn.loop import TrainingOptions
from inkstone.model.lora import LoraConfig

ADAPTER = "adapter"  # its name, and the folder of a bundle that holds it
# Laid under a recipe: weights that know something already are led gently, an adapter less so.
WHOLE = {"training": {"learning_rate": 2e-4}}
ADAPTED = {"training": {"learning_rate": 1e-3}}


def laid_under(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's values over what suits all weights, or an adapter."""
    return overlay(WHOLE if values.get("lora") is None else ADAPTED, values)


def _training() -> TrainingOptions:
    """What suits a model that can go on with texts already."""
    return TrainingOptions(
        epochs=3.0,
        tokens_per_batch=4096,
        learning_rate=2e-4,
        warmup_steps=30,
        smoothing=0.0,
        metric="loss",
        patience=2,
    )


@dataclass(frozen=True, slots=True)
class ChatRecipe:
    """Everything a run is made of. `data`, `valid` and `test` take what `corpus.conversations` reads."""

    name: str
    data: tuple[str, ...]
    base: str  # a causal model of `inkstone pretrain`, or a decoder that `inkstone pull` brought
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    fields: dict[str, str] | None = None
    languages: tuple[str, ...] = ()  # empty: the base's, or told by what is said
    lora: LoraConfig | None = None  # an adapter beside the base's weights learns, and nothing else
    dropout: float | None = None  # None: as the base has it
    block: int = 512  # tokens of a row, at most as many as the base reads at once
    training: TrainingOptions = field(default_factory=_training)
    weights: Literal["float32", "float16"] = "float32"
    int8_limit: float = 0.02  # nats a token that the int8 engine may lose
    licence: str = ""
    quotable: bool = False  # whether the card may show what is said in the data
    good_at: str = ""
    bad_at: str = ""

    def plain_base(self) -> dict[str, Any]:
        """What the manifest says of the base, besides its hash."""
        return {"name": self.base.rstrip("/").rpartition("/")[2]}
