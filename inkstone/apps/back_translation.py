"""Texts in other words: translated into another language and back.

    the food here is good ─ en-zh ─> 这里的饭菜很好吃 ─ zh-en ─> the food here is very tasty

What comes back says roughly the same, as far as the translator is to be trusted: on texts unlike those it was trained on
it says something else. A text in a language that the translator does not know stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from inkstone.apps.translate import Translator
from inkstone.corpus.augment import AugmentOptions, Rewrite
from inkstone.ground.errors import ConfigError
from inkstone.text.language import detect


def back_translation(options: AugmentOptions, *, threads: int = 0) -> Rewrite | None:
    """What rewrites texts as these options ask; None where they do not.

    Raises BundleError for what is no translator, ConfigError for one that knows no way back.
    """
    if options.back_translate is None:
        return None
    translator = Translator(options.back_translate, threads=threads)
    ways = {
        source: target
        for source, target in translator.directions
        if (target, source) in translator.directions
    }
    if not ways:
        listed = ", ".join("-".join(direction) for direction in translator.directions)
        raise ConfigError(
            f"back_translate={options.back_translate} translates {listed}, and not back. Give a translator of both ways: "
            "inkstone train translate --both-directions."
        )
    known: dict[
        str, str
    ] = {}  # the texts that are learnt from are asked for once more where a model is refitted

    def rewrite(texts: Sequence[str]) -> list[str]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, new, strict=True))
        for source, target in ways.items():
            some = [text for text in new if detect(text).language == source]
            there = [found.translation for found in translator.translate(some, to=target, source=source)]
            back = translator.translate(there, to=source, source=target)
            known.update(zip(some, (found.translation for found in back), strict=True))
        return [known[text] for text in texts]

    return rewrite
