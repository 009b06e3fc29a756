"""Small texts of four kinds, made from patterns, for tests that train."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

EN = {
    "weather": ["will it {} in {} tomorrow", "is there {} over {} today", "how much {} does {} get"],
    "music": ["play some {} from {}", "put on a {} song by {}", "turn up the {} tune of {}"],
}
EN_WORDS = {
    "weather": (["rain", "snow", "hail", "fog"], ["paris", "london", "oslo", "rome", "cairo"]),
    "music": (["jazz", "rock", "folk", "soul"], ["mozart", "queen", "adele", "bach", "abba"]),
}
ZH = {"好": "这家{}的{}很好吃，服务也热情", "差": "这家{}的{}太难吃了，送得又慢"}
ZH_WORDS = (["店", "餐厅", "饭馆", "外卖", "小吃店"], ["面条", "米饭", "饺子", "烤鸭", "包子", "火锅"])


def english() -> tuple[list[str], list[str]]:
    """120 requests, of two kinds."""
    rows = [
        (pattern.format(*words), label)
        for label, patterns in EN.items()
        for pattern in patterns
        for words in itertools.product(*EN_WORDS[label])
    ]
    return [text for text, _ in rows], [label for _, label in rows]


def chinese() -> tuple[list[str], list[str]]:
    """60 reviews, good and bad."""
    rows = [(ZH[label].format(*words), label) for label in ZH for words in itertools.product(*ZH_WORDS)]
    return [text for text, _ in rows], [label for _, label in rows]


def write_jsonl(file: Path, texts: list[str], labels: list[str]) -> Path:
    """The texts as a file."""
    lines = [
        json.dumps({"text": t, "label": y}, ensure_ascii=False) for t, y in zip(texts, labels, strict=True)
    ]
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return file
