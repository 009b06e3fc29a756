"""The names by which CTranslate2 calls the tokens, read from a model's folder: engines speak in ids, it in names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inkstone.ground.errors import BundleError
from inkstone.ground.manifest import read_json

VOCABULARIES = ("shared_vocabulary.json", "vocabulary.json", "target_vocabulary.json")


@dataclass(frozen=True, slots=True)
class Names:
    """Make one with `of`. max_positions: how many tokens the model can tell apart by place; 0 is no limit."""

    names: tuple[str, ...]
    eos_id: int
    max_positions: int
    ids: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Names:
        """The names in a model's folder. Raises BundleError where there are none."""
        config = read_json(folder / "config.json")
        file = next((folder / name for name in VOCABULARIES if (folder / name).exists()), None)
        if file is None:
            raise BundleError(f"{folder} cannot be opened by CTranslate2: it has no vocabulary.")
        try:
            names = tuple(json.loads(file.read_text(encoding="utf-8")))
            ids = {name: number for number, name in enumerate(names)}
            return cls(names, ids[config.get("eos_token", "</s>")], int(config.get("max_positions", 0)), ids)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{file} is no vocabulary of the model beside it: {error}") from error

    def spell(self, ids: Sequence[int]) -> list[str]:
        """Ids as names."""
        return [self.names[number] for number in ids]

    def number(self, names: Sequence[str]) -> list[int]:
        """Names as ids."""
        return [self.ids[name] for name in names]
