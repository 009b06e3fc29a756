"""TextCNN (Kim, 2014): filters over a few neighbouring words each, and of every filter the strongest answer in a text.

    ids_BS ─ embed ─ filters of width 3, 4, 5 ─ maximum over the text ─ dropout ─ linear ─ logits_BC

Filters may reach over either end of a text ("wide" convolution; Kalchbrenner et al., 2014), as in Kim's own program, so
that a text shorter than a filter has answers too. Answers in which a filter sees nothing but padding do not count, so
that how far a batch is padded changes nothing; in Kim's program every text was padded to the longest of the data. His
bound on the norm of the last layer's rows is left to weight decay.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inkstone.model.convolutional_config import TextCNNConfig
from inkstone.model.dropout import Dropout

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


class TextCNN(nn.Module):
    """The model of a `TextCNNConfig`. Weights are drawn from the generator handed in (or torch's global one)."""

    def __init__(self, config: TextCNNConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        self.filters = nn.ModuleList(
            nn.Conv1d(config.embedding_size, config.num_channels, width, padding=width - 1)
            for width in config.filter_widths
        )
        self.classifier = nn.Linear(config.num_channels * len(self.filters), config.num_labels)
        self.dropout = Dropout(config.dropout)
        self.embedding_dropout = Dropout(config.embedding_dropout)
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                nn.init.zeros_(parameter)
            elif "embedding" in name:
                nn.init.uniform_(parameter, -0.25, 0.25, generator=generator)  # as Kim for unknown words
            else:
                nn.init.xavier_uniform_(parameter, generator=generator)

    def forward(self, ids_BS: Tensor) -> Tensor:
        """Class scores of texts padded with pad_id on the right: (B, C)."""
        mask_BS = ids_BS != self.config.pad_id
        x_BSE = self.embedding_dropout(self.embedding(ids_BS)) * mask_BS[:, :, None]
        if torch.is_autocast_enabled(x_BSE.device.type):
            x_BSE = x_BSE.to(torch.get_autocast_dtype(x_BSE.device.type))
        lengths_B1 = mask_BS.sum(1, keepdim=True)
        strongest = [self._strongest(one, x_BSE.transpose(1, 2), lengths_B1) for one in self.filters]
        scores_BC: Tensor = self.classifier(self.dropout(torch.cat(strongest, dim=-1)))
        return scores_BC

    def _strongest(self, filters: nn.Module, x_BES: Tensor, lengths_B1: Tensor) -> Tensor:
        """Of each filter the largest answer among those that see a word; 0 for a text without any: (B, channels)."""
        answers_BCS = ACTIVATIONS[self.config.activation](filters(x_BES))
        places_S = torch.arange(answers_BCS.shape[2], device=x_BES.device)
        beyond_S = answers_BCS.shape[2] - x_BES.shape[2]  # width - 1: how far a filter reaches over the end
        seen_BS = (places_S < lengths_B1 + beyond_S) & (lengths_B1 > 0)
        lowest = torch.finfo(answers_BCS.dtype).min
        largest_BC = answers_BCS.masked_fill(~seen_BS[:, None], lowest).amax(2)
        return torch.where(lengths_B1 > 0, largest_BC, 0.0)
