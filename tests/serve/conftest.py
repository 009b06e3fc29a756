"""A client of the server over the stand-in models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from standins import KEY, DictionaryTranslator, stand_in_models
from starlette.testclient import TestClient

from inkstone.serve.application import Settings, create_app
from inkstone.serve.auth import Keys

HERE = "http://127.0.0.1:8000"


@pytest.fixture
def translator() -> DictionaryTranslator:
    return DictionaryTranslator()


@pytest.fixture
def client(tmp_path: Path, translator: DictionaryTranslator) -> Iterator[TestClient]:
    models = stand_in_models(tmp_path, translator)
    with closing(models), TestClient(create_app(Settings(), models), base_url=HERE) as client:
        yield client


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[TestClient]:
    """A client of a server that asks for KEY."""
    models = stand_in_models(tmp_path)
    app = create_app(Settings(keys=Keys.of([KEY]), hosts=None), models)
    with closing(models), TestClient(app, base_url="http://models.example.org") as client:
        yield client
