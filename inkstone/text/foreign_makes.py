"""What each kind of foreign tokenizer has around its vocabulary, as one table.

Only tokenizer.json says everything about a tokenizer. The older files (vocab.txt, vocab.json with merges.txt,
SentencePiece) hold the vocabulary alone; which tokens enclose a text and how text is cut before it is looked up is known
by whoever knows the make. `MAKES` is that knowledge, by the names of `tokenizer_class` in tokenizer_config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from tokenizers import processors

from inkstone.text.sentencepiece import Piece, SentencePieceModel


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


def marks_template(
    before: list[tuple[str, int]], between: list[tuple[str, int]], after: list[tuple[str, int]], second: int
) -> processors.PostProcessor:
    """Marks as a template of the library; `second` is the type of the second text and of the marks that follow it."""

    def typed(marks: list[tuple[str, int]], kind: int) -> list[str]:
        return [f"{token}:{kind}" for token, _ in marks]

    return processors.TemplateProcessing(
        single=[*typed(before, 0), "$A:0", *typed(after, 0)],
        pair=[*typed(before, 0), "$A:0", *typed(between, 0), f"$B:{second}", *typed(after, second)],
        special_tokens=sorted({*before, *between, *after}),
    )


def with_sentinels(model: SentencePieceModel, count: int) -> SentencePieceModel:
    """T5's <extra_id_99> … <extra_id_0>, behind the pieces of the file, the highest first."""
    extra = [Piece(f"<extra_id_{number}>", 0.0, "control") for number in range(count - 1, -1, -1)]
    there = {piece.text for piece in model.pieces}
    return replace(model, pieces=(*model.pieces, *(piece for piece in extra if piece.text not in there)))


def in_fairseq_order(model: SentencePieceModel) -> SentencePieceModel:
    """The order of XLM-RoBERTa: <s>, <pad>, </s>, <unk>, then the file's pieces from the fourth on, then <mask>."""
    marks = [Piece(name, 0.0, "control") for name in ("<s>", "<pad>", "</s>")]
    unknown = next(piece for piece in model.pieces if piece.kind == "unknown")
    return replace(
        model,
        pieces=(*marks, replace(unknown, text="<unk>"), *model.pieces[3:], Piece("<mask>", 0.0, "control")),
    )
