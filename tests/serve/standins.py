"""Small real applications behind the protocols that the server uses: a word dictionary and a keyword counter.

They let the server's own work - routes, limits, queue, page - be tested in milliseconds, apart from the models.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import ClassVar

from inkstone.generate.engine import GenerationOptions
from inkstone.ground.files import write_json, write_text
from inkstone.model.bundle import Task, new_bundle
from inkstone.serve.models import Loader, Models

WORDS = {
    "你好": "hello",
    "世界": "world",
    "猫": "cat",
    "今天天气很好，我们去公园散步吧。": "The weather is fine today.",
}
BACK = {english: chinese for chinese, english in WORDS.items()}
KEY = "correct-horse-battery-staple"
CANARY = "canary-7f3a"  # a text that must appear in no log, metric or error
HOSTILE_CARD = """---
license: apache-2.0
---
# zh-en

Translates *short* sentences. **Not** for contracts; see [the paper](https://example.org/paper).
<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> [click](javascript:window.hacked=1)

| set | BLEU |
|---|---:|
| tatoeba | 31.2 |

- good at: everyday sentences
- bad at: names, numbers

```
inkstone translate "你好"
```
"""


@dataclass(frozen=True, slots=True)
class Translation:
    source: str
    translation: str
    score: float
    source_language: str
    target_language: str
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Classification:
    text: str
    labels: tuple[str, ...]
    scores: Mapping[str, float]


class DictionaryTranslator:
    """Replaces the words it knows. `gate` holds every call until it is set; `calls` remembers the portions."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.calls: list[tuple[str, ...]] = []
        self.threads: set[str] = set()

    def translate(
        self, texts: Sequence[str], *, to: str | None, source: str | None, options: GenerationOptions
    ) -> list[Translation]:
        self.calls.append(tuple(texts))
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(10)
        if any(text == f"break {CANARY}" for text in texts):
            raise RuntimeError(f"cannot digest {texts}")
        return [self._one(text, to, source, options) for text in texts]

    def _one(self, text: str, to: str | None, source: str | None, options: GenerationOptions) -> Translation:
        source = source or ("zh" if any("\u4e00" <= letter <= "\u9fff" for letter in text) else "en")
        to = to or {"zh": "en", "en": "zh"}[source]
        translation = text
        for word, meaning in (WORDS if to == "en" else BACK).items():
            translation = translation.replace(word, meaning)
        others = tuple(f"{translation} ({n})" for n in range(2, options.alternatives + 1))
        return Translation(text, translation, log(0.8), source, to, others)


class KeywordClassifier:
    """Knows three intents by a word each; the label `oos` stands for none of them."""

    KEYWORDS: ClassVar = {"balance": "balance", "rain": "weather", "alarm": "alarm"}

    def predict(self, texts: Sequence[str]) -> list[Classification]:
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Classification:
        label = next((label for word, label in self.KEYWORDS.items() if word in text), "oos")
        names = [*self.KEYWORDS.values(), "oos"]
        return Classification(text, (label,), {name: 0.91 if name == label else 0.03 for name in names})


def _measure(value: float, width: float) -> dict[str, float]:
    return {"value": value, "low": value - width, "high": value + width}


def _translation_result(test_set: str, direction: str, bleu: float) -> dict[str, object]:
    return {
        "test_set": test_set,
        "n": 1014,
        "metrics": {"bleu": _measure(bleu, 1.4), "chrf": _measure(bleu + 20, 1.1)},
        "baselines": {"word dictionary": {"bleu": _measure(3.1, 0.3), "chrf": _measure(17.9, 0.5)}},
        "direction": direction,
    }


def write_bundles(folder: Path) -> Path:
    """A translation and a classification bundle, as the server opens them: described, measured, sealed."""
    directions = [["zh", "en"], ["en", "zh"]]
    description = {"task": "translate", "name": "zh-en", "languages": ["zh", "en"], "directions": directions}
    results = [_translation_result("tatoeba", "zh-en", 31.2), _translation_result("tatoeba", "en-zh", 27.5)]
    _write(folder / "zh-en", description, results, HOSTILE_CARD)
    labels = ["balance", "weather", "alarm", "oos"]
    description = {"task": "classify", "name": "intents-en", "languages": ["en"], "labels": labels}
    result = {
        "test_set": "clinc150",
        "n": 5500,
        "metrics": {"accuracy": _measure(0.884, 0.008), "in_scope_accuracy": _measure(0.921, 0.007)},
        "baselines": {"TF-IDF + linear": {"accuracy": _measure(0.861, 0.009)}},
    }
    _write(
        folder / "intents-en",
        {**description, "out_of_scope": "oos", "multi_label": False},
        [result],
        "# intents-en",
    )
    return folder


def _write(
    path: Path, description: Mapping[str, object], results: list[dict[str, object]], card: str
) -> None:
    with new_bundle(path, description, made={"by": "a test"}) as folder:
        write_json(folder / "report.json", {"format": 1, "results": results})
        write_text(folder / "README.md", card)


def stand_in_loaders(translator: DictionaryTranslator | None = None) -> dict[Task, Loader]:
    """Loaders that ignore the bundle's weights (it has none)."""
    return {
        "translate": lambda path, threads: translator or DictionaryTranslator(),
        "classify": lambda path, threads: KeywordClassifier(),
    }


def stand_in_models(
    folder: Path,
    translator: DictionaryTranslator | None = None,
    *,
    queue: int = 32,
    deadline_s: float = 120.0,
) -> Models:
    """The two stand-ins, loaded the way the server loads models."""
    loaders = stand_in_loaders(translator)
    return Models.load(write_bundles(folder), loaders=loaders, queue=queue, deadline_s=deadline_s)
