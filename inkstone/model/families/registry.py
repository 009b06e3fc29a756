"""The families known here, by the model_type of their config.json."""

from __future__ import annotations

from inkstone.model.families.bart import BART, MARIAN
from inkstone.model.families.bert import BERT, ROBERTA
from inkstone.model.families.family import Family
from inkstone.model.families.gpt2 import GPT2
from inkstone.model.families.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from inkstone.model.families.t5 import T5

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (BERT, ROBERTA, GPT2, LLAMA, MISTRAL, QWEN2, QWEN3, T5, BART, MARIAN)
}
