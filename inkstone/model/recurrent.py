"""Recurrent models: LSTM or GRU encoders and decoders with attention, built from the axes of `RecurrentConfig`.

    encoder   ids_BS ─ embed ─ [recurrence, both directions] x N ─ memory_BSD ─ (pool, classify)
    decoder   luong, none:  ids_BT ─ embed ─ [recurrence] x N ─ h ─ attend with h ─ tanh(W [context; h]) ─ states_BTE
              bahdanau:     for each token: attend with the last h ─ [recurrence over token and context] x N
                            ─ tanh(W [context; h; token]) ─ states_BTE

Luong et al. (2015) attend after the recurrence, so that while training a target runs through it in one call and all its
tokens attend at once. Bahdanau et al. (2015) attend before it: each step needs the context of the one before, and
training goes token by token, about thrice as slow. Their maxout is a tanh here, and Luong's input feeding, which would
bring that loop back, is left out.

Padding is never read. It stands on the right, so that a recurrence meets it after the text; for the backward direction
each row is turned round within its own length first. This keeps torch's dense kernels, which on a CPU are two to three
times as fast as those for packed sequences, and gives the same numbers (tests/model/test_recurrent.py). Memory is zero
where there is padding.

The decoder begins from the encoder's last states, forward and backward ones, through one linear layer and tanh. So the
memory alone says everything about a source; with `attention="none"` that is the model of Sutskever et al. (2014).
The states that are scored are E wide, so that the output matrix may be the embedding itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkstone.model.dropout import Dropout
from inkstone.model.interface import StepCache
from inkstone.model.recurrent_config import RecurrentConfig

CELLS: dict[str, type[nn.LSTM | nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}
States = list[Tensor]  # (B, D) each: of every layer the output, and of an LSTM the memory cell after it


def turned(x_BSE: Tensor, lengths_B: Tensor) -> Tensor:
    """Each row turned round within its length; what comes after stays where it is."""
    place_S = torch.arange(x_BSE.shape[1], device=x_BSE.device)
    place_BS = lengths_B[:, None] - 1 - place_S
    place_BS = torch.where(place_BS >= 0, place_BS, place_S)
    return x_BSE.gather(1, place_BS[:, :, None].expand_as(x_BSE))


class Recurrence(nn.Module):
    """One layer of an encoder, in one direction or both: (B, S, input size) -> (B, S, D)."""

    def __init__(self, config: RecurrentConfig, input_size: int) -> None:
        super().__init__()
        cell, size = CELLS[config.cell], config.hidden_size // (2 if config.bidirectional else 1)
        self.ahead = cell(input_size, size, batch_first=True)
        self.back = cell(input_size, size, batch_first=True) if config.bidirectional else None

    def forward(self, x_BSE: Tensor, lengths_B: Tensor) -> Tensor:
        """The states at each token, of both directions side by side. After a row's length they mean nothing."""
        ahead_BSD: Tensor = self.ahead(x_BSE)[0]
        if self.back is None:
            return ahead_BSD
        back_BSD = turned(self.back(turned(x_BSE, lengths_B))[0], lengths_B)
        return torch.cat([ahead_BSD, back_BSD], dim=-1)


class Attention(nn.Module):
    """Weights over the memory by how well each of its states goes with a query, and their weighted mean.

    luong-dot       score(q, m) = q · m
    luong-general   score(q, m) = q · W m
    bahdanau        score(q, m) = v · tanh(W q + U m)
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.kind, size = config.attention, config.hidden_size
        self.key = None if self.kind == "luong-dot" else nn.Linear(size, size, bias=False)
        additive = self.kind == "bahdanau"
        self.query = nn.Linear(size, size) if additive else None
        self.score = nn.Linear(size, 1, bias=False) if additive else None

    def keys(self, memory_BSD: Tensor) -> Tensor:
        """What queries are compared with. It stays the same while decoding."""
        return memory_BSD if self.key is None else self.key(memory_BSD)

    def forward(
        self, query_BTD: Tensor, keys_BSD: Tensor, memory_BSD: Tensor, mask_BS: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The contexts (B, T, D), and the weights they are means by: (B, T, S), summing to 1 over what is visible."""
        if self.query is not None and self.score is not None:
            energy_BTSD = torch.tanh(self.query(query_BTD)[:, :, None] + keys_BSD[:, None])
            scores_BTS = self.score(energy_BTSD)[..., 0]
        else:
            scores_BTS = query_BTD @ keys_BSD.transpose(1, 2)
        scores_BTS = scores_BTS.masked_fill(~mask_BS[:, None], torch.finfo(scores_BTS.dtype).min)
        weights_BTS = scores_BTS.float().softmax(-1).to(memory_BSD.dtype)
        return weights_BTS @ memory_BSD, weights_BTS


class Decoder(nn.Module):
    """The recurrences of a decoder, with attention to the memory: (B, T, E) embedded tokens -> (B, T, E)."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        size, width = config.hidden_size, config.embedding_size
        attends, early = config.attention != "none", config.attention == "bahdanau"
        cell, first = CELLS[config.cell], width + (size if early else 0)
        self.layers = nn.ModuleList(
            cell(first if number == 0 else size, size, batch_first=True)
            for number in range(config.num_decoder_layers)
        )
        self.attention = Attention(config) if attends else None
        self.parts = 2 if config.cell == "lstm" else 1
        self.bridge = nn.Linear(size, config.num_decoder_layers * self.parts * size)
        self.readout = nn.Linear(size + (size if attends else 0) + (width if early else 0), width)
        self.dropout = Dropout(config.dropout)

    def start(self, memory_BSD: Tensor, mask_BS: Tensor) -> States:
        """The states before the first token, from the encoder's last ones."""
        last_B = mask_BS.sum(1).clamp(min=1) - 1
        last_BD = memory_BSD.gather(1, last_B[:, None, None].expand(-1, 1, memory_BSD.shape[2]))[:, 0]
        if self.config.bidirectional:  # the backward direction ends at the first token
            half = memory_BSD.shape[2] // 2
            last_BD = torch.cat([last_BD[:, :half], memory_BSD[:, 0, half:]], dim=-1)
        return list(torch.tanh(self.bridge(last_BD)).chunk(len(self.layers) * self.parts, dim=-1))

    def forward(
        self, x_BTE: Tensor, states: States, keys_BSD: Tensor, memory_BSD: Tensor, mask_BS: Tensor
    ) -> tuple[Tensor, States]:
        """What is to be scored, and the states after the last token."""
        if self.config.attention == "bahdanau":
            return self._step_by_step(x_BTE, states, keys_BSD, memory_BSD, mask_BS)
        h_BTD, after = self._recur(x_BTE, states)
        parts = [h_BTD]
        if self.attention is not None:
            context_BTD, _ = self.attention(h_BTD, keys_BSD, memory_BSD, mask_BS)
            parts = [context_BTD, h_BTD]
        return torch.tanh(self.readout(torch.cat(parts, dim=-1))), after

    def _step_by_step(
        self, x_BTE: Tensor, states: States, keys_BSD: Tensor, memory_BSD: Tensor, mask_BS: Tensor
    ) -> tuple[Tensor, States]:
        assert self.attention is not None, "a decoder with bahdanau attention has it"
        outputs, contexts = [], []
        for x_B1E in torch.split(x_BTE, 1, dim=1):
            context_B1D, _ = self.attention(states[-self.parts][:, None], keys_BSD, memory_BSD, mask_BS)
            h_B1D, states = self._recur(torch.cat([x_B1E, context_B1D], dim=-1), states)
            outputs.append(h_B1D)
            contexts.append(context_B1D)
        parts = [torch.cat(contexts, dim=1), torch.cat(outputs, dim=1), x_BTE]
        return torch.tanh(self.readout(torch.cat(parts, dim=-1))), states

    def _recur(self, x_BTE: Tensor, states: States) -> tuple[Tensor, States]:
        """Through all layers; states: before the first token, and then after the last."""
        after: States = []
        for number, layer in enumerate(self.layers):
            x_BTE = self.dropout(x_BTE) if number else x_BTE
            before = [one_BD[None].contiguous() for one_BD in states[number * self.parts :][: self.parts]]
            x_BTE, last = layer(x_BTE, tuple(before) if self.parts == 2 else before[0])
            after += [one_1BD[0] for one_1BD in (last if self.parts == 2 else [last])]
        return self.dropout(x_BTE), after


class Recurrent(nn.Module):
    """The model of a `RecurrentConfig`. Weights are drawn from the generator handed in (or torch's global one)."""

    def __init__(self, config: RecurrentConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        size, width = config.hidden_size, config.embedding_size
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.encoder = nn.ModuleList(
            Recurrence(config, width if number == 0 else size) for number in range(config.num_encoder_layers)
        )
        self.decoder = Decoder(config) if config.has_decoder else None
        untied = config.has_decoder and not config.tie_embeddings
        self.output = nn.Linear(width, config.vocab_size, bias=False) if untied else None
        self.classifier = nn.Linear(size, config.num_labels) if config.num_labels else None
        pools = config.num_labels and config.pooling == "attention"
        self.pool_key = nn.Linear(size, size) if pools else None
        self.pool_score = nn.Linear(size, 1, bias=False) if pools else None
        self.dropout = Dropout(config.dropout)
        self._initialise(generator)

    def _initialise(self, generator: torch.Generator | None) -> None:
        """Xavier, orthogonal from state to state, and LSTMs that remember at first (Jozefowicz et al., 2015)."""
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                nn.init.zeros_(parameter)
                if "bias_ih" in name and self.config.cell == "lstm":  # gates: input, forget, cell, output
                    quarter = len(parameter) // 4
                    nn.init.ones_(parameter.data[quarter : 2 * quarter])
            elif "embedding" in name:
                nn.init.normal_(parameter, std=self.config.embedding_size**-0.5, generator=generator)
            elif "weight_hh" in name:
                for gate in parameter.data.chunk(4 if self.config.cell == "lstm" else 3):
                    nn.init.orthogonal_(gate, generator=generator)
            else:
                nn.init.xavier_uniform_(parameter, generator=generator)
        with torch.no_grad():
            self.embedding.weight[self.config.pad_id].zero_()

    def _embed(self, ids_BT: Tensor) -> Tensor:
        x_BTE = self.embedding(ids_BT)
        if torch.is_autocast_enabled(x_BTE.device.type):
            x_BTE = x_BTE.to(torch.get_autocast_dtype(x_BTE.device.type))
        return self.dropout(x_BTE)  # type: ignore[no-any-return]

    def encode(self, ids_BS: Tensor) -> Tensor:
        """The memory of a batch of sources (padded with pad_id on the right): (B, S, D), zero where there is padding."""
        mask_BS = self.visible(ids_BS)
        lengths_B, x_BSE = mask_BS.sum(1), self._embed(ids_BS)
        for layer in self.encoder:
            x_BSE = self.dropout(layer(x_BSE, lengths_B))
        memory_BSD: Tensor = x_BSE * mask_BS[:, :, None]
        return memory_BSD

    def visible(self, ids_BS: Tensor) -> Tensor:
        """True where a source token is not padding: (B, S)."""
        return ids_BS != self.config.pad_id

    def new_cache(self) -> StepCache:
        """An empty cache for `decode`."""
        return StepCache()

    def decode(
        self,
        ids_BT: Tensor,
        memory_BSD: Tensor | None = None,
        memory_mask: Tensor | None = None,
        cache: StepCache | None = None,
    ) -> Tensor:
        """The states of the target tokens, ready to be scored: (B, T, E).

        memory_BSD, memory_mask: from `encode` and `visible`. cache: the states after the tokens before these ones; it is
        extended in place, and the memory is then only needed at the first call, its mask always.
        """
        assert self.decoder is not None and memory_mask is not None, "decoding needs a decoder and a source"
        so_far = cache
        if so_far is None or not so_far.memory:
            assert memory_BSD is not None, "the first call needs a memory"
            so_far = self.begin(memory_BSD, memory_mask)
        keys_BSD, memory_BSD = so_far.memory
        states_BTE: Tensor
        states_BTE, last = self.decoder(self._embed(ids_BT), so_far.states, keys_BSD, memory_BSD, memory_mask)
        if cache is not None:
            cache.states, cache.memory = last, so_far.memory
            cache.length += ids_BT.shape[1]
        return states_BTE

    def begin(self, memory_BSD: Tensor, memory_mask: Tensor) -> StepCache:
        """What decoding remembers before the first token: the states to begin from, the memory and its keys."""
        decoder = self.decoder
        assert decoder is not None, "decoding needs a decoder"
        keys_BSD = memory_BSD if decoder.attention is None else decoder.attention.keys(memory_BSD)
        return StepCache(0, decoder.start(memory_BSD, memory_mask), [keys_BSD, memory_BSD])

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Scores over the vocabulary for states of the decoder: (..., V)."""
        return F.linear(x_BTD, self.output_weight)

    @property
    def output_weight(self) -> Tensor:
        """The matrix that turns states into scores: (V, E), the embedding itself when tied."""
        return self.embedding.weight if self.output is None else self.output.weight

    def forward(self, source_BS: Tensor, target_BT: Tensor | None = None) -> Tensor:
        """The whole model at once.

        encoder: class scores (B, C) when it has labels, else states (B, S, D). encoder-decoder: logits (B, T, V) of the
        target given the source.
        """
        memory_BSD = self.encode(source_BS)
        if self.config.has_decoder:
            assert target_BT is not None, "an encoder-decoder needs a target"
            return self.logits(self.decode(target_BT, memory_BSD, self.visible(source_BS)))
        if self.classifier is None:
            return memory_BSD
        scores_BC: Tensor = self.classifier(self.pool(memory_BSD, source_BS))
        return scores_BC

    def pool(self, memory_BSD: Tensor, ids_BS: Tensor) -> Tensor:
        """One state per text, over all tokens that are not padding: (B, D). Of a text without any it is finite."""
        mask_BS = self.visible(ids_BS)
        lowest = torch.finfo(memory_BSD.dtype).min
        if self.config.pooling == "max":
            pooled_BD = memory_BSD.masked_fill(~mask_BS[:, :, None], lowest).amax(1)
            return torch.where(mask_BS.any(1, keepdim=True), pooled_BD, 0.0)
        if self.pool_key is None or self.pool_score is None:
            return memory_BSD.sum(1) / mask_BS.sum(1, keepdim=True).clamp(min=1)
        scores_BS = self.pool_score(torch.tanh(self.pool_key(memory_BSD)))[..., 0]
        weights_BS = scores_BS.masked_fill(~mask_BS, lowest).float().softmax(-1).to(memory_BSD.dtype)
        return (weights_BS[:, None] @ memory_BSD)[:, 0]  # type: ignore[no-any-return]
