"""Configurations: YAML, environment, --set, and every mistake in them at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as some

from inkstone.ground.configuration import build, from_settings, overlay, plain, read_yaml
from inkstone.ground.errors import ConfigError, raise_all


@dataclass(frozen=True, slots=True)
class Oven:
    heat: int = 180
    mode: Literal["fan", "grill"] = "fan"


@dataclass(frozen=True, slots=True)
class Recipe:
    name: str
    oven: Oven = field(default_factory=Oven)
    spices: tuple[str, ...] = ()
    salt: float = 1.0
    extra: dict[str, int] = field(default_factory=dict)


def test_plain_values_become_the_record_and_plain_again() -> None:
    values = {
        "name": "soup",
        "oven": {"heat": 200, "mode": "grill"},
        "spices": ["cumin"],
        "salt": 2,
        "extra": {"x": 1},
    }
    recipe = build(Recipe, values, "soup.yaml")
    assert recipe == Recipe("soup", Oven(200, "grill"), ("cumin",), 2.0, {"x": 1})
    assert build(Recipe, yaml.safe_load(yaml.safe_dump(plain(recipe))), "again") == recipe


@dataclass(frozen=True, slots=True)
class Cake:
    """A record whose default oven is not an oven's own default."""

    oven: Oven = field(default_factory=lambda: Oven(heat=160, mode="grill"))


def test_a_part_of_a_record_lies_over_the_default_of_its_place() -> None:
    assert build(Cake, {"oven": {"heat": 170}}, "cake.yaml") == Cake(Oven(170, "grill"))
    assert build(Cake, {}, "cake.yaml") == Cake(Oven(160, "grill"))


def test_every_unknown_name_and_wrong_value_is_said_at_once() -> None:
    values = {"nam": "soup", "oven": {"heat": "hot", "mod": "fan", "mode": "steam"}, "salt": []}
    with pytest.raises(ConfigError) as error:
        build(Recipe, values, "soup.yaml")
    for words in (
        "soup.yaml: 6 problems", 'key="nam" is not known', 'Did you mean "name"?', 'Did you mean "oven.mode"?',
        "oven.heat='hot'", "oven.mode='steam'", "salt=[]", "name is missing",
    ):  # fmt: skip
        assert words in str(error.value)


def test_one_problem_is_said_in_one_line() -> None:
    with pytest.raises(ConfigError) as error:
        build(Recipe, {"name": "soup", "salty": 1}, "soup.yaml")
    assert str(error.value).startswith('soup.yaml: configuration key="salty" is not known. Valid: name, oven')
    assert 'Did you mean "salt"?' in str(error.value)
    raise_all(ConfigError, "nothing", [])


def test_settings_are_yaml_values_in_their_places() -> None:
    settings = [
        "oven.heat=200",
        "oven.mode=grill",
        "name=soup",
        "spices=[a, b]",
        "salt=0.5",
        "extra.x=",
        "url=a=b",
    ]
    assert from_settings(settings) == {
        "oven": {"heat": 200, "mode": "grill"}, "name": "soup", "spices": ["a", "b"], "salt": 0.5,
        "extra": {"x": None}, "url": "a=b",
    }  # fmt: skip
    assert from_settings(["a=1", "a=2"]) == {"a": 2}
    assert (
        build(Recipe, {"name": "x", **from_settings(["salt=1e-3"])}, "set").salt == 0.001
    )  # a string in YAML 1.1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["oven.heat"], "has no name or no value"),
        (["=3"], "has no name or no value"),
        (["oven=3", "oven.heat=3"], "which another --set made a value"),
        (["spices=[a"], "not valid YAML"),
        (["spices={a: b: c}"], "not valid YAML"),
    ],
)
def test_a_setting_that_is_none_is_said(settings: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        from_settings(settings)
    assert settings[-1] in str(error.value)


def test_later_layers_win_and_mappings_are_merged() -> None:
    low = {"oven": {"heat": 1, "mode": "fan"}, "spices": ["a"], "name": "x"}
    assert overlay(low, {"oven": {"heat": 2}}, {"spices": []}) == {
        "oven": {"heat": 2, "mode": "fan"}, "spices": [], "name": "x",
    }  # fmt: skip
    assert low["oven"] == {"heat": 1, "mode": "fan"}, "a layer is not changed"


values = some.recursive(
    some.integers() | some.text(max_size=3),
    lambda inner: some.dictionaries(some.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@given(*[some.dictionaries(some.sampled_from("abc"), values, max_size=3) for _ in range(3)])
def test_overlaying_in_two_steps_or_one_is_the_same(one: dict, two: dict, three: dict) -> None:  # type: ignore[type-arg]
    assert overlay(one, two, three) == overlay(overlay(one, two), three)
    assert overlay(one) == one == overlay({}, one) == overlay(one, one)


@dataclass(frozen=True)
class Layered:
    """A record whose default for a mapping inside it is not empty."""

    @dataclass(frozen=True)
    class Inner:
        model: dict[str, float] = field(default_factory=lambda: {"dropout": 0.3})

    inner: Inner = field(default_factory=Inner)


def test_what_was_saved_is_built_as_it_was() -> None:
    """A default that the saved record did without stays away; what people write is laid over it."""
    record = Layered(Layered.Inner({"width": 8.0}))
    assert build(Layered, plain(record), "saved", complete=True) == record
    assert build(Layered, plain(record), "written").inner.model == {"dropout": 0.3, "width": 8.0}


class TestYaml:
    def read(self, tmp_path: Path, text: str | bytes) -> dict[str, object]:
        file = tmp_path / "recipe.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_yaml(file)

    def test_variables_of_the_environment_are_filled_in(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CORPORA", "/data")
        found = self.read(tmp_path, "a: ${CORPORA}/x.tsv\nb: [$CORPORA/y]\nc: {d: 5 $ a piece}\n")
        assert found == {"a": "/data/x.tsv", "b": ["/data/y"], "c": {"d": "5 $ a piece"}}

    def test_a_variable_that_is_not_set_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MISSING_CORPORA", raising=False)
        monkeypatch.setenv("CORPORA", "/data")
        with pytest.raises(ConfigError, match="MISSING_CORPORA, which is not set"):
            self.read(tmp_path, "a: [{b: '${CORPORA}/${MISSING_CORPORA}'}]")

    @pytest.mark.parametrize(
        "text", ["a: [1", "a: b: c", "\t- a", b"a: \xff", "[" * 5000, "!!python/object:os.x {}"]
    )
    def test_what_is_no_yaml_is_named(self, tmp_path: Path, text: str | bytes) -> None:
        with pytest.raises(ConfigError, match=r"recipe\.yaml is not valid YAML"):
            self.read(tmp_path, text)

    @pytest.mark.parametrize(("text", "kind"), [("", "NoneType"), ("- a", "list"), ("3", "int")])
    def test_what_is_no_mapping_is_named(self, tmp_path: Path, text: str, kind: str) -> None:
        with pytest.raises(ConfigError, match=f"holds a {kind}"):
            self.read(tmp_path, text)

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="No such file"):
            read_yaml(tmp_path / "none.yaml")
        with pytest.raises(ConfigError, match="Is a directory"):
            read_yaml(tmp_path)
