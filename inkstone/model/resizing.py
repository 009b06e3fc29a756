"""A model with more tokens than it was made for: rows are added to its embedding and to what scores the vocabulary.

A new row is the mean of those that are there (Hewitt, 2021): the new token is then neither likelier nor less likely than
a token is on average, where a drawn row might outshine all that the model has learnt.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from inkstone.model.transformer import Transformer

ROWS = ("embedding.weight", "output.weight", "output_bias")  # one row, or number, for each token


@torch.no_grad()
def with_tokens(model: Transformer, vocab_size: int) -> Transformer:
    """The model with rows for `vocab_size` tokens, in evaluation mode; itself where it has as many."""
    known = model.config.vocab_size
    if known >= vocab_size:
        return model
    weights = {
        name: _grown(tensor, vocab_size) if name in ROWS else tensor
        for name, tensor in model.state_dict().items()
    }
    return Transformer.of_weights(replace(model.config, vocab_size=vocab_size), weights)


def _grown(rows: Tensor, size: int) -> Tensor:
    new = rows.mean(0, keepdim=True).expand(size - len(rows), *rows.shape[1:])
    return torch.cat([rows, new])
