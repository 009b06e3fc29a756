"""A recipe on a Ray cluster of this machine ends as the same recipe in one process; without Ray, the message says how to
get it.

The cluster takes half a minute to start on a free machine, and minutes on a busy one: one run shows everything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from made_corpus import made_pairs, quick_recipe, write_pairs

pytest.importorskip("torch", reason="training needs torch")

from inkstone.ground.configuration import plain
from inkstone.ground.errors import ConfigError, MissingPackage
from inkstone.learn import cluster
from inkstone.recipes.on_ray import on_ray
from inkstone.recipes.translate import train_translator


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason='needs Ray: pip install "inkstone[cluster]"')
def test_a_translator_from_a_cluster_equals_one_from_here(tmp_path: Path) -> None:
    """Tokenised by Ray Data, trained by two workers. Without dropout, which would fall differently in the last step of
    the epoch: it has one batch, whose rows are divided."""
    import yaml
    from safetensors.torch import load_file

    sizes = {"hidden_size": 64, "num_encoder_layers": 1, "num_decoder_layers": 1, "feed_forward_size": 128}
    recipe = quick_recipe(
        write_pairs(tmp_path / "pairs.tsv", made_pairs()),
        model={**sizes, "dropout": 0.0},
        training={"epochs": 1, "accumulate": 2},
    )
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(plain(recipe), allow_unicode=True))
    command = [sys.executable, "-m", "inkstone", "train", "translate", "--recipe", "recipe.yaml", "--json"]
    done = subprocess.run(
        [*command, "--out", "ray", "--on", "ray"],
        cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["bundle"].endswith("ray")
    train_translator(recipe, tmp_path / "here")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("here", "ray"))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 3e-5


def test_few_items_and_no_cluster_are_worked_on_here() -> None:
    assert cluster.in_blocks(lambda rows: [row + 1 for row in rows], range(5000)) == list(range(1, 5001))


def test_what_is_no_cluster_is_said() -> None:
    with pytest.raises(ConfigError, match=r'--on "rai" is no cluster. Valid: ray .*ray://HOST:PORT'):
        on_ray(train_translator, "rai")
    with pytest.raises(ConfigError, match="--workers 0 must be at least 1"):
        on_ray(train_translator, "ray", 0)


def test_without_ray_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inkstone.ground.errors.find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r'needs ray, which is not installed.*"inkstone\[cluster\]"'):
        on_ray(train_translator, "ray")
