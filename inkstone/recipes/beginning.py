"""What the training of a translator, a summariser or a language model begins with.

    nothing given    a new model of the recipe's architecture and size
    vectors          the same, its embedding begun with word vectors
    base             the weights and the tokenizer of one, all of which learn on (fine-tuning)
    base and lora    an adapter beside these weights learns, and nothing else; the bundle gets weights with it merged in,
                     and the adapter itself in `adapter/`, in PEFT's format, for an engine that switches adapters

A base decides everything that its weights depend on: architecture, sizes, tokenizer, script, the directions it knows.
Foreign checkpoints (Marian, BART, T5) are no base: their tokenizers are not ours, and know no tags of languages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from inkstone.ground.configuration import overlay
from inkstone.ground.errors import ConfigError, raise_all
from inkstone.ground.files import sha256
from inkstone.ground.progress import say
from inkstone.learn.first_embeddings import FirstEmbeddings
from inkstone.model.bundle import Bundle, open_bundle
from inkstone.model.checkpoint import build_model, load_model, read_config
from inkstone.model.families.folder import is_foreign
from inkstone.model.lora import Adapters, LoraConfig
from inkstone.model.lora_files import family_of, name_base, save_adapter
from inkstone.model.presets import translator_config
from inkstone.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from inkstone.recipes.sequence_recipe import SequenceRecipe

R = TypeVar("R", bound=Any)
ADAPTER = "adapter"  # its name, and the folder of a bundle that holds it
DECIDED = ("architecture", "family", "size", "tokenizer", "vocab_size")  # by the base
DROPOUTS = ("dropout",)  # what may be laid over its configuration
# Laid under a recipe with a base: weights that know something already are led gently.
FINE_TUNING = {"training": {"epochs": 5, "learning_rate": 5e-4, "warmup_steps": 50}}
FINE_TUNING_LORA = {"training": {"epochs": 5, "learning_rate": 2e-3, "warmup_steps": 50}}


def laid_under(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's values over what suits a model that learns on, where it begins with one."""
    if not values.get("base"):
        return dict(values)
    return overlay(FINE_TUNING if values.get("lora") is None else FINE_TUNING_LORA, values)


def opened_base(recipe: SequenceRecipe) -> Bundle | None:
    """The model that the recipe begins with, if any.

    Raises BundleError for what is none, ConfigError for options that go against what it decides.
    """
    problems = []
    if recipe.base is None:
        if recipe.lora is not None:
            problems.append("lora is an adapter beside weights that are there: give --base MODEL too")
        raise_all(ConfigError, "recipe", problems)
        return None
    if is_foreign(Path(recipe.base)):
        raise ConfigError(
            f"base={recipe.base} is a checkpoint of another program, whose tokenizer is not ours. "
            f"Give a model that `inkstone train {recipe.task}` made, or the name of a bundled one."
        )
    bundle = open_bundle(recipe.base, task=recipe.task)
    problems = decided(recipe, DECIDED, bundle.description.get("script"))
    if recipe.vectors is not None:
        problems.append("vectors begin a new embedding, and the base has its own: leave --vectors out")
    raise_all(ConfigError, f"begun with {bundle.name}", problems)
    return bundle


def decided(recipe: Any, names: Sequence[str], script: str | None) -> list[str]:
    """What of a recipe goes against its base, which decides these entries, the configuration and the script."""
    defaults = {one.name: one.default for one in fields(recipe)}
    given = [f"{name}={getattr(recipe, name)}" for name in names if getattr(recipe, name) != defaults[name]]
    given += [f"model.{name}={value}" for name, value in recipe.model.items() if name not in DROPOUTS]
    problems = []
    if given:
        problems.append(f"{', '.join(given)}: the base decides that. Leave it out, or train without --base")
    if recipe.script not in (None, script):
        problems.append(f"script={recipe.script}: the base was made with script={script}. Leave it out")
    return problems


def configuration(recipe: SequenceRecipe, base: Bundle | None, vocab_size: int) -> Any:
    """The configuration of the model that will learn."""
    if base is None:
        return translator_config(recipe.architecture, recipe.size, vocab_size, recipe.model, recipe.family)
    return replace(read_config(base.path), **recipe.model)


def settled(recipe: R, base: Bundle | None) -> R:
    """The recipe with what the base decides about the reading of texts."""
    return recipe if base is None else replace(recipe, script=base.description.get("script"))


def refuse_directions(base: Bundle, directions: Sequence[tuple[str, str]]) -> None:
    """Raise ConfigError for directions that the base has not learnt: its tokenizer has no tag for them."""
    known = [tuple(one) for one in base.description.get("directions", [])]
    known += [] if known else [(code, code) for code in base.languages]
    new = ["-".join(one) for one in directions if one not in known]
    if new:
        listed = ", ".join("-".join(one) for one in known)
        raise ConfigError(
            f"begun with {base.name}, which was trained for {listed}; the data asks for {', '.join(new)}. "
            "Say the languages, give other data, or train without --base."
        )


class Base(Protocol):
    """A model that another one begins with: a bundle, or an encoder of any kind."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path: ...


@dataclass(slots=True)
class Beginning:
    """The model that learns, where it comes from, and a hash of what it was before (empty for drawn weights)."""

    model: Any
    base: Base | None = None
    adapters: Adapters | None = None
    digest: str = ""

    @property
    def name(self) -> str:
        """That of the base; empty for drawn weights."""
        return "" if self.base is None else self.base.name

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Everything inside goes through the adapter, where there is one."""
        if self.adapters is None:
            yield
            return
        with self.adapters.use(ADAPTER):
            yield

    def learnt(self) -> Any:
        """The model after the training, plain: with the adapter merged into it."""
        return self.model if self.adapters is None else self.adapters.merged(ADAPTER)

    def learns(self) -> int:
        """How many parameters learn."""
        return sum(one.numel() for one in self.model.parameters() if one.requires_grad)

    def write(self, folder: Path) -> None:
        """Put what stands beside the weights into a bundle in the making."""
        if self.adapters is not None and self.base is not None:
            (folder / ADAPTER).mkdir()
            family = family_of(self.base.path)
            save_adapter(self.adapters, ADAPTER, folder / ADAPTER, family=family, base=self.base.name)
            name_base(folder / ADAPTER, self.base.name, self.base.path)

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        if self.base is None:
            return {}
        return {"base": {"name": self.base.name, "sha256": sha256(self.base.path / "model.safetensors")}}


def begin(recipe: SequenceRecipe, base: Bundle | None, tokenizer: Tokenizer) -> Beginning:
    """The model as it is before the first step; drawn numbers come from the recipe's seed."""
    config = configuration(recipe, base, tokenizer.vocab_size)
    beginning = begun(config, base, recipe.lora, recipe.training.seed)
    if base is None and recipe.vectors is not None:
        first = FirstEmbeddings.read(str(recipe.vectors))
        first.put(beginning.model, tokenizer)
        beginning.digest = first.digest
    return beginning


def begun(config: Any, base: Bundle | None, lora: LoraConfig | None, seed: int) -> Beginning:
    """A model of this configuration: drawn, or the base's weights, with an adapter beside them where one is to learn."""
    generator = torch.Generator().manual_seed(seed)
    model: Any = build_model(config, generator)
    if base is None:
        return Beginning(model)
    model.load_state_dict(load_model(base.path).state_dict())
    return begun_with(model, base, lora, generator)


def begun_with(model: Any, base: Base, lora: LoraConfig | None, generator: torch.Generator) -> Beginning:
    """A model that has the weights of its base, and an adapter beside them where one is to learn."""
    beginning = Beginning(model, base, digest=repr((sha256(base.path / "model.safetensors"), lora)))
    if lora is not None:
        beginning.adapters = Adapters(model)
        beginning.adapters.add(ADAPTER, lora, generator)
        beginning.adapters.learn(ADAPTER)
    total = sum(parameter.numel() for parameter in model.parameters())
    say(f"begun with {base.name}: {beginning.learns():,} of {total:,} parameters learn")
    return beginning
