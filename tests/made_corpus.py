"""A small language of our own: Chinese and English sentences of which a model learns something in seconds."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inkstone.recipes.translator_recipe import TranslateRecipe

# Made here, so that a model of seconds can learn something: 8 x 8 x 8 x 2 sentences.
PEOPLE = {
    "I": "我",
    "you": "你",
    "he": "他",
    "she": "她",
    "we": "我们",
    "they": "他们",
    "Tom": "汤姆",
    "Mary": "玛丽",
}
DEEDS = {
    "see": "看见", "like": "喜欢", "buy": "买", "want": "想要",
    "draw": "画", "sell": "卖", "lose": "丢了", "need": "需要",
}  # fmt: skip
THINGS = {
    "the cat": "这只猫", "a dog": "一只狗", "the book": "这本书", "a house": "一座房子",
    "the red car": "这辆红色的车", "some tea": "一些茶", "two apples": "两个苹果", "the old map": "这张旧地图",
}  # fmt: skip


def made_pairs(count: int = 900) -> list[tuple[str, str]]:
    """Chinese and English sentences that mean the same, all different, always the same ones."""
    pairs = [
        (f"{PEOPLE[who]}{not_zh}{DEEDS[does]}{THINGS[what]}。", f"{who} {not_en}{does} {what}.")
        for who, does, what, (not_zh, not_en) in itertools.product(
            PEOPLE, DEEDS, THINGS, [("", ""), ("不", "do not ")]
        )
    ]
    random.Random(1).shuffle(pairs)
    return pairs[:count]


def write_pairs(path: Path, pairs: list[tuple[str, str]]) -> Path:
    """Pairs as TSV with language codes for column names."""
    path.write_text("zh\ten\n" + "".join(f"{zh}\t{en}\n" for zh, en in pairs), "utf-8")
    return path


def quick_recipe(data: Path, **overlay: Any) -> TranslateRecipe:
    """A recipe for a model that trains in seconds; `training` is overlaid field by field."""
    from inkstone.learn.loop import TrainingOptions
    from inkstone.recipes.translator_recipe import TranslateRecipe

    training = {
        "epochs": 6,
        "tokens_per_batch": 1024,
        "learning_rate": 5e-3,
        "warmup_steps": 20,
        "threads": 1,
        "precision": "float32",
        **overlay.pop("training", {}),
    }
    values: dict[str, Any] = {
        "name": "made",
        "data": (str(data),),
        "both_directions": True,
        "vocab_size": 460,
        "size": "tiny",
        "model": {
            "hidden_size": 64,
            "num_encoder_layers": 1,
            "num_decoder_layers": 1,
            "feed_forward_size": 128,
        },
        "max_length": 48,
        "beam_size": 2,
        "quotable": True,
        **overlay,
    }
    return TranslateRecipe(**values, training=TrainingOptions(**training))


def made_labelled() -> list[tuple[str, str]]:
    """Requests for music and questions about the weather, with these two labels."""
    wishes = ("jazz", "a song", "the radio", "some blues", "my list")
    fears = ("rain", "snow", "be hot", "freeze", "be windy")
    return [
        *((f"please play {what} for me", "music") for what in wishes),
        *((f"is it going to {what} today", "weather") for what in fears),
    ]
