"""Fixtures of the models' tests."""

import pytest
from helpers.flex import on_cpu

from keel.models.flex import KINDS, VARIABLE


@pytest.fixture(params=KINDS)
def attention(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A test that asks for this runs once with each way of computing the attention of a packed row."""
    monkeypatch.setenv(VARIABLE, request.param)
    on_cpu(monkeypatch)
    return request.param
