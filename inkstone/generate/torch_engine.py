"""The torch engines: the trained model itself. The reference for every other engine, and what runs on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import nn

from inkstone.generate.beam import beam_continue, beam_search, limits_of
from inkstone.generate.continuation import Continuation
from inkstone.generate.engine import (
    GenerationOptions,
    Hypothesis,
    Step,
    Watch,
    check_prompts,
    check_watch,
    in_batches,
    room_after,
)
from inkstone.generate.output import Output, begin, collected, detailed
from inkstone.ground.errors import ConfigError
from inkstone.model.checkpoint import load_model
from inkstone.model.interface import SequenceModel
from inkstone.model.padding import pad
from inkstone.model.transformer import Transformer

Ids = Sequence[int]


class TorchEngine:
    """Runs a model with an encoder and a decoder, whatever its architecture, in the precision of its weights."""

    name = "torch"

    def __init__(self, model: nn.Module) -> None:
        self.model = cast(SequenceModel, model.eval())

    @classmethod
    def load(cls, folder: Path) -> TorchEngine:
        """The engine of a bundle's checkpoint."""
        return cls(load_model(folder))

    def generate(
        self, sources: Sequence[Ids], options: GenerationOptions, watch: Watch | None = None
    ) -> list[list[Hypothesis]]:
        """See `StreamingEngine.generate`."""
        check_watch(watch, options)
        numbered = list(enumerate(sources))
        run = self._drawn if options.beam_size == 1 else self._searched
        return in_batches(numbered, [len(s) for s in sources], lambda rows: run(rows, options, watch))

    def score(self, sources: Sequence[Ids], targets: Sequence[Ids]) -> list[float]:
        """See `Engine.score`."""
        pairs = list(zip(sources, targets, strict=True))
        return in_batches(pairs, [len(s) + len(t) for s, t in pairs], self._score)

    @torch.inference_mode()
    def _drawn(
        self, rows: Sequence[tuple[int, Ids]], options: GenerationOptions, watch: Watch | None
    ) -> list[list[Hypothesis]]:
        sources = [source for _, source in rows]
        begun = Continuation.of_sources(self.model, sources, options.prefix, options.alternatives)
        limits = limits_of(self.model, sources, options)
        ends = frozenset(options.end_ids or (self.model.config.eos_id,))
        outputs = begin([()] * len(rows), limits, options, ends, _of_all(rows, watch))
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
    """Continues prompts with a decoder, in the precision of its weights."""

    name = "torch"

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, Transformer) or model.config.shape != "decoder":
            raise ConfigError(
                "prompts are continued by a Transformer of shape=decoder; this model is another."
            )
        self.model = model.eval()
        limited = model.config.positions != "relative"
        self.max_positions = model.config.max_positions if limited else 0

    @classmethod
    def load(cls, folder: Path) -> TorchDecoder:
        """The engine of a checkpoint, ours or of a family known here."""
        return cls(load_model(folder))

    def generate(
        self, sources: Sequence[Ids], options: GenerationOptions, watch: Watch | None = None
    ) -> list[list[Hypothesis]]:
        """See `StreamingEngine.generate`. Raises ConfigError for prompts that are empty or fill all positions."""
        check_watch(watch, options)
        options.refuse(("prefix",), "a decoder, whose prompt is its prefix,")
        check_prompts(sources, self.max_positions)
        numbered = list(enumerate(sources))
        run = self._drawn if options.beam_size == 1 else self._searched
        return in_batches(numbered, [len(s) for s in sources], lambda rows: run(rows, options, watch))

    def score(self, sources: Sequence[Ids], targets: Sequence[Ids]) -> list[float]:
        """See `Engine.score`; sources are prompts."""
        pairs = list(zip(sources, targets, strict=True))
        return in_batches(pairs, [len(s) + len(t) for s, t in pairs], self._score)

    def _limits(self, rows: Sequence[tuple[int, Ids]], options: GenerationOptions) -> list[int]:
        return [room_after(len(prompt), options, self.max_positions) for _, prompt in rows]

    @torch.inference_mode()
    def _drawn(
        self, rows: Sequence[tuple[int, Ids]], options: GenerationOptions, watch: Watch | None
    ) -> list[list[Hypothesis]]:
        prompts = [prompt for _, prompt in rows]
        ends = frozenset(options.end_ids or (self.model.config.eos_id,))
        outputs = begin(prompts, self._limits(rows, options), options, ends, _of_all(rows, watch))
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


def run(begun: Continuation, outputs: Sequence[Output]) -> None:
    """Go on with all outputs, a row each, until each is done."""
    device = begun.scores_NV.device
    live = list(outputs)
    while True:
        tokens = [
            0 if output.done else output.take(scores_V)
            for output, scores_V in zip(live, begun.scores_NV.cpu().numpy(), strict=True)
        ]
        rows = [row for row, output in enumerate(live) if not output.done]
        if not rows:
            return
        if len(rows) < len(live):
            live = [live[row] for row in rows]
            begun.keep(torch.tensor(rows, device=device))
        begun.push(torch.tensor([tokens[row] for row in rows], device=device))


def _of_all(rows: Sequence[tuple[int, Ids]], watch: Watch | None) -> Watch | None:
    """A watch over a batch as one over all inputs: with their numbers there."""
    if watch is None:
        return None
    return lambda step: watch(Step(rows[step.row][0], step.alternative, step.id, step.log_probability))
