"""The torch engines: the trained model itself. The reference for every other engine, and what runs on a GPU.

They are also the ones that can switch adapters (LoRA, `model.lora`): `options.adapter` names the one that a call goes
through. Calls in other threads and tasks go through theirs at the same time, over the same base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import nn

from inkstone.generate.batching import in_batches
from inkstone.generate.beam import beam_continue, beam_search, limits_of
from inkstone.generate.continuation import Continuation
from inkstone.generate.engine import (
    GenerationOptions,
    Hypothesis,
    Watch,
    check_prompts,
    check_watch,
    room_after,
)
from inkstone.generate.output import begin, collected, detailed, run, told_of_all
from inkstone.ground.errors import ConfigError, not_known
from inkstone.model.checkpoint import load_model
from inkstone.model.interface import SequenceModel
from inkstone.model.lora import Adapters
from inkstone.model.lora_files import open_adapters
from inkstone.model.padding import pad
from inkstone.model.transformer import Transformer

Ids = Sequence[int]
Folders = Mapping[str, str | Path]  # of adapters in PEFT's format, by name


class TorchEngine:
    """Runs a model with an encoder and a decoder, whatever its architecture, in the precision of its weights.

    adapters: those on this model, which calls may name.
    """

    name = "torch"

    def __init__(self, model: nn.Module, adapters: Adapters | None = None) -> None:
        self.model = cast(SequenceModel, model.eval())
        self.adapters = adapters

    @classmethod
    def load(cls, folder: Path, adapters: Folders | None = None) -> TorchEngine:
        """The engine of a bundle's checkpoint, with the adapters of these folders. Raises BundleError."""
        return cls(*_loaded(folder, adapters))

    def generate(
        self, sources: Sequence[Ids], options: GenerationOptions, watch: Watch | None = None
    ) -> list[list[Hypothesis]]:
        """See `StreamingEngine.generate`."""
        check_watch(watch, options)
        numbered = list(enumerate(sources))
        run = self._drawn if options.beam_size == 1 else self._searched
        with _through(self.adapters, options.adapter):
            return in_batches(numbered, [len(s) for s in sources], lambda rows: run(rows, options, watch))

    def score(
        self, sources: Sequence[Ids], targets: Sequence[Ids], *, adapter: str | None = None
    ) -> list[float]:
        """See `Engine.score`; adapter: as in the options."""
        pairs = list(zip(sources, targets, strict=True))
        with _through(self.adapters, adapter):
            return in_batches(pairs, [len(s) + len(t) for s, t in pairs], self._score)

    @torch.inference_mode()
    def _drawn(
        self, rows: Sequence[tuple[int, Ids]], options: GenerationOptions, watch: Watch | None
    ) -> list[list[Hypothesis]]:
        sources = [source for _, source in rows]
        begun = Continuation.of_sources(self.model, sources, options.prefix, options.alternatives)
        limits = limits_of(self.model, sources, options)
        ends = frozenset(options.end_ids or (self.model.config.eos_id,))
        outputs = begin([()] * len(rows), limits, options, ends, told_of_all(rows, watch))
        for output, scores_PV in zip(outputs, begun.forced_NPV.cpu().numpy(), strict=True):
            for token, scores_V in zip(options.prefix, scores_PV, strict=True):
                output.force(token, scores_V)
        run(begun, outputs)
        return collected(outputs, len(rows), options)

    def _searched(
        self, rows: Sequence[tuple[int, Ids]], options: GenerationOptions, watch: Watch | None
    ) -> list[list[Hypothesis]]:
        sources = [source for _, source in rows]
        found = beam_search(self.model, sources, options)
        if options.top_tokens is None:
            return found
        return [
            [self._detailed(source, one, options) for one in each]
            for source, each in zip(sources, found, strict=True)
        ]

    @torch.inference_mode()
    def _detailed(self, source: Ids, one: Hypothesis, options: GenerationOptions) -> Hypothesis:
        config, device = self.model.config, self.model.output_weight.device
        begun = torch.tensor([[config.bos_id, *one.ids]], device=device)
        logits_TV = self.model(torch.tensor([list(source)], device=device), begun)[0]
        return detailed(one, logits_TV.float().cpu().numpy(), options)

    @torch.inference_mode()
    def _score(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
        config = self.model.config
        device = self.model.output_weight.device
        source_BS = pad([source for source, _ in pairs], config.pad_id).to(device)
        target_BT = pad([[config.bos_id, *target] for _, target in pairs], config.pad_id).to(device)
        wanted_BT = pad([[*target, config.eos_id] for _, target in pairs], config.pad_id).to(device)
        log_probabilities = self.model(source_BS, target_BT).float().log_softmax(-1)
        scores_BT = log_probabilities.gather(2, wanted_BT[:, :, None])[:, :, 0]
        return [float(row[: len(t) + 1].sum()) for row, (_, t) in zip(scores_BT, pairs, strict=True)]


class TorchDecoder:
    """Continues prompts with a decoder, in the precision of its weights. adapters: as in `TorchEngine`."""

    name = "torch"

    def __init__(self, model: nn.Module, adapters: Adapters | None = None) -> None:
        if not isinstance(model, Transformer) or model.config.shape != "decoder":
            raise ConfigError(
                "prompts are continued by a Transformer of shape=decoder; this model is another."
            )
        self.model, self.adapters = model.eval(), adapters
        self.max_positions = model.config.position_limit

    @classmethod
    def load(cls, folder: Path, adapters: Folders | None = None) -> TorchDecoder:
        """The engine of a checkpoint, ours or of a family known here, with the adapters of these folders."""
        return cls(*_loaded(folder, adapters))

    def generate(
        self, sources: Sequence[Ids], options: GenerationOptions, watch: Watch | None = None
    ) -> list[list[Hypothesis]]:
        """See `StreamingEngine.generate`. Raises ConfigError for prompts that are empty or fill all positions."""
        check_watch(watch, options)
        options.refuse(("prefix",), "a decoder, whose prompt is its prefix,")
        check_prompts(sources, self.max_positions)
        numbered = list(enumerate(sources))
        run = self._drawn if options.beam_size == 1 else self._searched
        with _through(self.adapters, options.adapter):
            return in_batches(numbered, [len(s) for s in sources], lambda rows: run(rows, options, watch))

    def score(
        self, sources: Sequence[Ids], targets: Sequence[Ids], *, adapter: str | None = None
    ) -> list[float]:
        """See `Engine.score`; sources are prompts. adapter: as in the options."""
        pairs = list(zip(sources, targets, strict=True))
        with _through(self.adapters, adapter):
            return in_batches(pairs, [len(s) + len(t) for s, t in pairs], self._score)

    def _limits(self, rows: Sequence[tuple[int, Ids]], options: GenerationOptions) -> list[int]:
        return [room_after(len(prompt), options, self.max_positions) for _, prompt in rows]

    @torch.inference_mode()
    def _drawn(
        self, rows: Sequence[tuple[int, Ids]], options: GenerationOptions, watch: Watch | None
    ) -> list[list[Hypothesis]]:
        prompts = [prompt for _, prompt in rows]
        ends = frozenset(options.end_ids or (self.model.config.eos_id,))
        outputs = begin(prompts, self._limits(rows, options), options, ends, told_of_all(rows, watch))
        run(Continuation.of_prompts(self.model, prompts, options.alternatives), outputs)
        return collected(outputs, len(rows), options)

    def _searched(
        self, rows: Sequence[tuple[int, Ids]], options: GenerationOptions, watch: Watch | None
    ) -> list[list[Hypothesis]]:
        prompts = [prompt for _, prompt in rows]
        found = beam_continue(self.model, prompts, self._limits(rows, options), options)
        if options.top_tokens is None:
            return found
        return [
            [self._detailed(prompt, one, options) for one in each]
            for prompt, each in zip(prompts, found, strict=True)
        ]

    @torch.inference_mode()
    def _detailed(self, prompt: Ids, one: Hypothesis, options: GenerationOptions) -> Hypothesis:
        device = self.model.output_weight.device
        logits_TV = self.model(torch.tensor([[*prompt, *one.ids]], device=device))[0, len(prompt) - 1 :]
        return detailed(one, logits_TV.float().cpu().numpy(), options)

    @torch.inference_mode()
    def _score(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
        config, device = self.model.config, self.model.output_weight.device
        ids_BT = pad([[*prompt, *target] for prompt, target in pairs], config.pad_id).to(device)
        wanted_BT = pad([[*prompt[1:], *target, config.eos_id] for prompt, target in pairs], config.pad_id)
        logs_BTV = self.model(ids_BT).float().log_softmax(-1)
        scores_BT = logs_BTV.gather(2, wanted_BT.to(device)[:, :, None])[:, :, 0]
        return [
            float(row[len(p) - 1 : len(p) + len(t)].sum())
            for row, (p, t) in zip(scores_BT, pairs, strict=True)
        ]


def _loaded(folder: Path, adapters: Folders | None) -> tuple[nn.Module, Adapters | None]:
    model = load_model(folder)
    return model, open_adapters(model, folder, adapters) if adapters else None


@contextmanager
def _through(adapters: Adapters | None, name: str | None) -> Iterator[None]:
    """Go through an adapter while the block runs. Raises ConfigError listing the known when there is none of the name."""
    known = adapters.configs if adapters is not None else {}
    if name is not None and name not in known:
        said = (
            not_known("adapter", name, known) if known else f'adapter="{name}": there are none on this model.'
        )
        raise ConfigError(said)
    if adapters is None:
        yield
        return
    with adapters.use(name):
        yield
