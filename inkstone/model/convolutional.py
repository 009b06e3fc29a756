"""A convolutional encoder-decoder (Gehring et al., 2017), built from the axes of `ConvolutionalConfig`.

    encoder   ids_BS ─ embed + positions = e ─ E to D ─ [gated convolution + itself] x N ─ D to E = z ─ memory (z, z + e)
    decoder   ids_BT ─ embed + positions = g ─ E to D ─ [causal gated convolution, attention, + itself] x N ─ D to E

Every layer of the decoder attends by itself: its state and g make a query, the encoder's outputs z are the keys, and z
plus the embeddings e the values. Sums of two things are scaled by sqrt(1/2), and a context by the square root of how
many tokens it is a mean over, so that variances stay what they were. A convolution of width k sees the k - 1 inputs
before a token, and that is all that decoding has to remember: the cache does not grow.

What differs from the paper: no weight normalisation (AdamW does without), no scaling of the encoder's gradients, and the
paper's dropout is the house's (`model.dropout`). The convolution is k shifted copies through one linear layer, which for
sentences on a CPU is as fast as the kernel, and quantises like any linear layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkstone.ground.errors import ConfigError
from inkstone.model.convolutional_config import ConvolutionalConfig
from inkstone.model.dropout import Dropout
from inkstone.model.interface import StepCache

HALF = 0.5**0.5  # a sum of two independent values of variance 1, times this, has variance 1


class GatedConvolution(nn.Module):
    """A convolution of width k to twice the size, one half the gate of the other (Dauphin et al., 2017)."""

    def __init__(self, config: ConvolutionalConfig) -> None:
        super().__init__()
        self.width = config.width
        self.linear = nn.Linear(config.width * config.hidden_size, 2 * config.hidden_size)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T + k - 1, D) -> (B, T, D): each output sees k neighbouring inputs."""
        x_BTD = self.dropout(x_BTD)
        count = x_BTD.shape[1] - self.width + 1
        seen_BTX = torch.cat([x_BTD[:, place : place + count] for place in range(self.width)], dim=-1)
        return F.glu(self.linear(seen_BTX), dim=-1)


class Attention(nn.Module):
    """Dot-product attention of one decoder layer to the memory, with a step out of D into E and back."""

    def __init__(self, config: ConvolutionalConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.hidden_size, config.embedding_size)
        self.output = nn.Linear(config.embedding_size, config.hidden_size)

    def forward(
        self, h_BTD: Tensor, g_BTE: Tensor, memory_BSX: Tensor, mask_BS: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The states with their contexts (B, T, D), and the weights (B, T, S), summing to 1 over what is visible."""
        keys_BSE, values_BSE = memory_BSX.chunk(2, dim=-1)
        scores_BTS = (self.query(h_BTD) + g_BTE) * HALF @ keys_BSE.transpose(1, 2)
        scores_BTS = scores_BTS.masked_fill(~mask_BS[:, None], torch.finfo(scores_BTS.dtype).min)
        weights_BTS = scores_BTS.float().softmax(-1).to(values_BSE.dtype)
        count_B11 = mask_BS.sum(1).clamp(min=1)[:, None, None].to(values_BSE.dtype)
        context_BTE = weights_BTS @ values_BSE * count_B11.sqrt()
        return (self.output(context_BTE) + h_BTD) * HALF, weights_BTS


class Convolutional(nn.Module):
    """The model of a `ConvolutionalConfig`. Weights are drawn from the generator handed in (or torch's global one)."""

    def __init__(self, config: ConvolutionalConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        width, size = config.embedding_size, config.hidden_size
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.source_positions = nn.Embedding(config.max_positions, width)
        self.target_positions = nn.Embedding(config.max_positions, width)
        self.encoder_in, self.encoder_out = nn.Linear(width, size), nn.Linear(size, width)
        self.encoder = nn.ModuleList(GatedConvolution(config) for _ in range(config.num_encoder_layers))
        self.decoder_in, self.decoder_out = nn.Linear(width, size), nn.Linear(size, width)
        self.decoder = nn.ModuleList(GatedConvolution(config) for _ in range(config.num_decoder_layers))
        self.attention = nn.ModuleList(Attention(config) for _ in range(config.num_decoder_layers))
        self.output = None if config.tie_embeddings else nn.Linear(width, config.vocab_size, bias=False)
        self.dropout = Dropout(config.dropout)
        self._initialise(generator)

    def _initialise(self, generator: torch.Generator | None) -> None:
        """As in the paper: variances kept through gates and dropout; embeddings for a tied output."""
        keep = 1 - self.config.dropout
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                nn.init.zeros_(parameter)
            elif "embedding" in name or "positions" in name:
                nn.init.normal_(parameter, std=self.config.embedding_size**-0.5, generator=generator)
            else:
                inputs = parameter.shape[1]
                gated = ".linear." in name  # what goes through a gate is halved
                nn.init.normal_(
                    parameter, std=((4 if gated else 1) * keep / inputs) ** 0.5, generator=generator
                )
        with torch.no_grad():
            self.embedding.weight[self.config.pad_id].zero_()

    def _embed(self, ids_BT: Tensor, places: Tensor, positions: nn.Embedding) -> Tensor:
        x_BTE = self.embedding(ids_BT) + positions(places)
        if torch.is_autocast_enabled(x_BTE.device.type):
            x_BTE = x_BTE.to(torch.get_autocast_dtype(x_BTE.device.type))
        return self.dropout(x_BTE)  # type: ignore[no-any-return]

    def _fits(self, length: int) -> None:
        if length > self.config.max_positions:
            raise ConfigError(
                f"{length} tokens are more than the model's max_positions={self.config.max_positions}."
            )

    def encode(self, ids_BS: Tensor) -> Tensor:
        """Keys and values of the sources (padded with pad_id on the right), side by side: (B, S, 2E)."""
        self._fits(ids_BS.shape[1])
        seen_BS1 = self.visible(ids_BS)[:, :, None]
        e_BSE = self._embed(
            ids_BS, torch.arange(ids_BS.shape[1], device=ids_BS.device), self.source_positions
        )
        x_BSD, around = self.encoder_in(e_BSE), self.config.width // 2
        for layer in self.encoder:  # padding is nothing, wherever a convolution meets it
            x_BSD = x_BSD * seen_BS1
            x_BSD = (layer(F.pad(x_BSD, (0, 0, around, around))) + x_BSD) * HALF
        z_BSE = self.encoder_out(x_BSD)
        return torch.cat([z_BSE, (z_BSE + e_BSE) * HALF], dim=-1) * seen_BS1

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

        memory_BSD, memory_mask: from `encode` and `visible`. cache: what each layer saw of the tokens before these ones;
        it is extended in place, and the memory is then only needed at the first call, its mask always.
        """
        assert memory_mask is not None, "decoding needs a source"
        so_far = cache
        if so_far is None or not so_far.memory:
            assert memory_BSD is not None, "the first call needs a memory"
            so_far = self.begin(memory_BSD, memory_mask)
        self._fits(so_far.length + ids_BT.shape[1])
        memory_BSX, start_B = so_far.memory[0], so_far.states[0]
        places_BT = start_B[:, None] + torch.arange(ids_BT.shape[1], device=ids_BT.device)
        g_BTE = self._embed(ids_BT, places_BT, self.target_positions)
        x_BTD, after = self.decoder_in(g_BTE), []
        layers = zip(self.decoder, self.attention, so_far.states[1:], strict=True)
        for layer, attention, earlier_BXD in layers:
            longer_BXD = torch.cat([earlier_BXD.to(x_BTD.dtype), x_BTD], dim=1)
            after.append(longer_BXD[:, ids_BT.shape[1] :])
            h_BTD, _ = attention(layer(longer_BXD), g_BTE, memory_BSX, memory_mask)
            x_BTD = (h_BTD + x_BTD) * HALF
        if cache is not None:
            cache.states, cache.memory = [start_B + ids_BT.shape[1], *after], so_far.memory
            cache.length += ids_BT.shape[1]
        return self.dropout(self.decoder_out(x_BTD))  # type: ignore[no-any-return]

    def begin(self, memory_BSD: Tensor, memory_mask: Tensor) -> StepCache:
        """What decoding remembers before the first token: its place, 0, of each layer no inputs yet, and the memory."""
        rows, size = len(memory_BSD), self.config.hidden_size
        place_B = memory_mask.new_zeros(rows, dtype=torch.long)
        blank_BXD = memory_BSD.new_zeros(rows, self.config.width - 1, size)
        return StepCache(0, [place_B, *(blank_BXD for _ in self.decoder)], [memory_BSD])

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Scores over the vocabulary for states of the decoder: (..., V)."""
        return F.linear(x_BTD, self.output_weight)

    @property
    def output_weight(self) -> Tensor:
        """The matrix that turns states into scores: (V, E), the embedding itself when tied."""
        return self.embedding.weight if self.output is None else self.output.weight

    def forward(self, source_BS: Tensor, target_BT: Tensor) -> Tensor:
        """The logits of the target given the source: (B, T, V)."""
        return self.logits(self.decode(target_BT, self.encode(source_BS), self.visible(source_BS)))
