"""Inkstone turns an organisation's own text into language applications, on its own machine.

The names below are loaded on first use, so that `import inkstone` costs nothing and a served model never
drags in what only training needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inkstone.apps.classify import Classifier
    from inkstone.apps.embed import SentenceEncoder
    from inkstone.apps.summarize import Summarizer
    from inkstone.apps.translate import Translator

__version__ = "0.1.0"
__all__ = ["Classifier", "SentenceEncoder", "Summarizer", "Translator", "__version__"]

_HOMES = {
    "Classifier": "inkstone.apps.classify",
    "SentenceEncoder": "inkstone.apps.embed",
    "Summarizer": "inkstone.apps.summarize",
    "Translator": "inkstone.apps.translate",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'inkstone' has no attribute {name!r}")
