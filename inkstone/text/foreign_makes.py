"""What each kind of foreign tokenizer has around its vocabulary, as one table.

Only tokenizer.json says everything about a tokenizer. The older files (vocab.txt, vocab.json with merges.txt,
SentencePiece) hold the vocabulary alone; which tokens enclose a text and how text is cut before it is looked up is known
by whoever knows the make. `MAKES` is that knowledge, by the names of `tokenizer_class` in tokenizer_config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class Make:
    """What a kind of tokenizer has around its vocabulary where the files do not say.

    names: its special tokens. marks: how texts are enclosed; "ends" is bos and eos as asked for.
    """

    names: Mapping[str, str]
    marks: Literal["bert", "roberta", "eos", "ends"] = "ends"
    adds_bos: bool = False
    layout: Literal["plain", "sentinels", "fairseq"] = "plain"
    cuts: Literal["gpt2", "qwen2"] = "gpt2"


_BERT = Make(
    {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    },
    marks="bert",
)
_FAIRSEQ_NAMES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
_ROBERTA = Make(_FAIRSEQ_NAMES, marks="roberta")
_END = "<|endoftext|>"
MAKES: Mapping[str, Make] = {
    "BertTokenizer": _BERT,
    "DistilBertTokenizer": _BERT,
    "ElectraTokenizer": _BERT,
    "RobertaTokenizer": _ROBERTA,
    "BartTokenizer": _ROBERTA,
    "XLMRobertaTokenizer": replace(_ROBERTA, layout="fairseq"),
    "GPT2Tokenizer": Make({"unk_token": _END, "bos_token": _END, "eos_token": _END}),
    "Qwen2Tokenizer": Make({"unk_token": _END, "eos_token": _END, "pad_token": _END}, cuts="qwen2"),
    "LlamaTokenizer": Make({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}, adds_bos=True),
    "T5Tokenizer": Make(
        {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}, marks="eos", layout="sentinels"
    ),
    "MarianTokenizer": Make({"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}, marks="eos"),
}
MAKE_OF_MODEL = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "roberta": "RobertaTokenizer",
    "bart": "BartTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "gpt2": "GPT2Tokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "llama": "LlamaTokenizer",
    "mistral": "LlamaTokenizer",
    "t5": "T5Tokenizer",
    "mt5": "T5Tokenizer",
    "marian": "MarianTokenizer",
}
