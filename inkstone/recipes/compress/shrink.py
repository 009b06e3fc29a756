"""What makes a Transformer smaller before it is quantised: a student, fewer layers, pruning. Task by task the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inkstone.ground.errors import ConfigError
from inkstone.ground.progress import say
from inkstone.model.bundle import Bundle
from inkstone.recipes.run import run_folder

if TYPE_CHECKING:
    from inkstone.recipes.compress.trial import CompressRecipe


def parameters_of(model: Any) -> int:
    """How many weights a model has."""
    return sum(parameter.numel() for parameter in model.parameters())


def refuse_impossible(model: Any, recipe: CompressRecipe) -> None:
    """Raise ConfigError for a student, layers or pruning that this model cannot have, before anything is measured."""
    from inkstone.ship.prune import drop_layers, prune_structure

    small = student_of(model, recipe) if recipe.distil else model
    if recipe.layers:
        small = drop_layers(small, encoder=recipe.layers[0], decoder=recipe.layers[1])
    if recipe.prune and recipe.prune_what == "structure":
        prune_structure(small, heads=recipe.prune, columns=recipe.prune, score="magnitude")


def student_of(teacher: Any, recipe: CompressRecipe) -> Any:
    """A new model of the asked size with the teacher's words, labels and positions. Raises ConfigError unless smaller."""
    import torch

    from inkstone.model.config import preset
    from inkstone.model.transformer import Transformer

    config = teacher.config
    shared = ("max_positions", "num_labels", "pad_id", "bos_id", "eos_id")
    overlay = {name: getattr(config, name) for name in shared} | dict(recipe.student)
    assert recipe.distil is not None
    chosen = preset(recipe.distil, config.vocab_size, config.shape, overlay)
    student = Transformer(chosen, torch.Generator().manual_seed(recipe.training.seed))
    before, after = parameters_of(teacher), parameters_of(student)
    if after >= before:
        raise ConfigError(
            f"a student of size {recipe.distil} has {after:,} parameters, the model {before:,}: nothing would become "
            "smaller. Choose a smaller size, or say what it should have, as in --set student.hidden_size=96."
        )
    return student


def shrink_structure(
    model: Any, recipe: CompressRecipe, run: Callable[[Any], object]
) -> tuple[Any, list[str]]:
    """A model with fewer layers, heads and columns (or with zeros), and in words what was done.

    run: puts some texts through a model.
    """
    from inkstone.ship.prune import drop_layers, input_norms, prune_structure, prune_weights

    words, before = [], parameters_of(model)
    if recipe.layers:
        model = drop_layers(model, encoder=recipe.layers[0], decoder=recipe.layers[1])
        config = model.config
        words.append(
            f"{config.num_encoder_layers} encoder and {config.num_decoder_layers} decoder layers kept"
        )
    if recipe.prune:
        norms = input_norms(model, run) if recipe.score == "wanda" else None
        if recipe.prune_what == "weights":
            zeros = prune_weights(model, recipe.prune, score=recipe.score, norms=norms)
            words.append(f"{100 * zeros:.0f} % of the weights of linear layers set to zero by {recipe.score}")
        else:
            model = prune_structure(
                model, heads=recipe.prune, columns=recipe.prune, score=recipe.score, norms=norms
            )
            config = model.config
            words.append(
                f"{config.num_heads} heads and {config.feed_forward_size} feed-forward columns kept by {recipe.score}"
            )
    say(f"{before:,} parameters became {parameters_of(model):,}")
    return model, words


def made_smaller(
    model: Any,
    bundle: Bundle,
    recipe: CompressRecipe,
    out: Path,
    run: Callable[[Any], object],
    taught: Callable[[Any, Path], Any],
) -> tuple[Any, list[str]]:
    """The smaller model, and in words what was done.

    run: puts some texts through a model. taught: a student after it has learnt from the model; its state is in a folder.
    """
    steps: list[str] = []
    small = model
    if recipe.distil:
        steps.append(f"a student of size {recipe.distil} taught by {bundle.name}")
        small = taught(student_of(model, recipe), run_folder(out) / "student")
    if recipe.layers or recipe.prune:
        small, words = shrink_structure(small, recipe, run)
        steps += words
        if not (recipe.prune and recipe.prune_what == "weights"):
            small = taught(small, run_folder(out) / "healing")
            steps.append(f"healed for {recipe.training.epochs:g} epochs by distillation from {bundle.name}")
    steps.append(f"weights in {recipe.quantize}")
    return small, steps
