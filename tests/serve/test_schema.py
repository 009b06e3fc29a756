"""The OpenAPI document is kept: schemathesis makes good and bad requests from it and checks the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from standins import stand_in_models

from inkstone.serve.application import Settings, create_app

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


OPERATIONS = {
    ("POST", "/v1/translate"),
    ("POST", "/v1/classify"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model_id}"),
    ("GET", "/health"),
    ("GET", "/metrics"),
}


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Any]]:
    models = stand_in_models(tmp_path_factory.mktemp("models"))
    api = schemathesis.openapi.from_asgi("/openapi.json", create_app(Settings(hosts=None), models))
    found = [result.ok() for result in api.get_all_operations()]
    yield {(operation.method.upper(), operation.path): operation for operation in found}
    models.close()


def test_all_operations_are_tried_below(operations: dict[tuple[str, str], Any]) -> None:
    assert set(operations) == OPERATIONS


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
@pytest.mark.parametrize("name", sorted(OPERATIONS), ids="-".join)
def test_answers_are_as_declared(
    operations: dict[tuple[str, str], Any], name: tuple[str, str], mode: GenerationMode
) -> None:
    operation = operations[name]
    takes_input = "{" in name[1] or name[0] == "POST"
    if mode is GenerationMode.NEGATIVE and not takes_input:
        return  # nothing that could be wrong
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=80 if takes_input else 2,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def try_it(case: Any) -> None:
        answer = case.call()
        statuses[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    try_it()
    if name[0] == "POST":
        assert statuses[200 if mode is GenerationMode.POSITIVE else 400] > 10, statuses


def test_the_document_declares_errors_and_limits(tmp_path: Path) -> None:
    models = stand_in_models(tmp_path)
    document = create_app(Settings(), models).openapi()
    models.close()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path in ("/v1/translate", "/v1/classify"):
        responses = document["paths"][path]["post"]["responses"]
        assert "422" not in responses
        assert {"200", "400", "401", "403", "404", "413", "415", "429", "500", "503"} <= set(responses)
    asked = document["components"]["schemas"]["TranslateRequest"]
    assert asked["additionalProperties"] is False
    assert asked["examples"]
    assert asked["properties"]["beam_size"]["maximum"] == 8
