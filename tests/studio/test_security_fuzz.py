"""Thousands of odd requests made from the OpenAPI description: none brings the server to a fault of its own."""

import contextlib
import os

import pytest
import schemathesis
from helpers.studio import Studio, pairs
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

EXAMPLES = int(os.environ.get("KEEL_FUZZ_EXAMPLES", "3"))
"""Requests that fit and requests that do not, of each for each endpoint."""
HARMFUL = ("/api/v1/logout", "/api/v1/users/{id}", "/api/v1/users/{id}/erase", "/api/v1/me/password")
"""Left out: they would end the test's own session or account."""


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    studio = Studio(tmp_path_factory.mktemp("fuzz") / "studio.sqlite")
    studio.add_items(pairs(20))
    return studio


@pytest.fixture(scope="module")
def schema(studio):
    return schemathesis.openapi.from_asgi("/api/openapi.json", studio.app)


def operations(schema):
    return [found.ok() for found in schema.get_all_operations() if found.ok().path not in HARMFUL]


def test_no_request_that_the_description_allows_or_nearly_allows_ends_in_a_5xx(studio, schema):
    studio.person("lead").ask("POST", "/projects/p/members", {"name": "admin", "role": "lead"})  # may call everything
    bearer = {"authorization": f"Bearer {studio.tokens['admin']}"}
    faults, sent = [], []
    for operation in operations(schema):

        @settings(
            max_examples=EXAMPLES,
            database=None,
            derandomize=True,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def one(case):
            if "p" in case.path_parameters:
                case.path_parameters["p"] = "p"
            reply = case.call(headers=bearer)
            sent.append(reply.status_code)
            if reply.status_code >= 500:
                faults.append(f"{case.method} {case.formatted_path} {case.body!r}: {reply.status_code} {reply.text}")

        on_examples(operation, one)
    assert faults == []
    assert len(sent) > 3 * EXAMPLES * 10


def on_examples(operation, test):
    """Run the test on examples that fit the description of the operation, and on some that do not."""
    given(operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE))(test)()
    with contextlib.suppress(Unsatisfiable):  # an endpoint without anything to get wrong
        given(operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))(test)()
