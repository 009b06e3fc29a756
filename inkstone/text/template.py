"""How a task's input becomes token ids. One renderer below both training and serving, so that they cannot disagree.

A translation source is `<2en> tokens… </s>`: the tag names the language to translate into (Johnson et al., 2017). A
model of a single direction has no tags in its tokenizer, and its sources none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from inkstone.text.tokenizer import Tokenizer


def language_tag(language: str) -> str:
    """The special token that asks for a target language."""
    return f"<2{language}>"


def tags_for(directions: Iterable[tuple[str, str]]) -> list[str]:
    """The tags a tokenizer needs for these directions: one per target language, none for a single direction."""
    directions = list(directions)
    return (
        [] if len(directions) == 1 else [language_tag(code) for code in sorted({to for _, to in directions})]
    )


def translation_sources(tokenizer: Tokenizer, texts: Sequence[str], target_language: str) -> list[list[int]]:
    """The source ids of texts to be translated into a language, complete with their marks."""
    tag = language_tag(target_language)
    start = [tokenizer.id_of(tag)] if tag in tokenizer.specials else []
    return [[*start, *ids, tokenizer.eos_id] for ids in tokenizer.encode_batch(texts)]
