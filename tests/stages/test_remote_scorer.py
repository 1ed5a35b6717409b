"""Scores from an address: four dialects, and whatever can go wrong there."""

import json

import pytest
from helpers.served import hangs_up, raw, serving, status
from pydantic import ValidationError

from keel.core.errors import ConfigError, EndpointError
from keel.stages.remote import RemoteScorer
from keel.stages.sections.rewards import RemoteConfig


def scorer(url: str, waits: list[float] | None = None, **settings) -> RemoteScorer:
    settings = {"retries": 2, "timeout_seconds": 0.5, "concurrency": 1, **settings}
    return RemoteScorer(RemoteConfig(url=url, **settings), sleep=(waits if waits is not None else []).append)


def says(value) -> object:
    return raw(json.dumps(value).encode())


ASKED = (["q", "r"], ["one", "two"], [{"answer": "1"}, {}])


@pytest.mark.parametrize(
    ("protocol", "body", "answer"),
    [
        (
            "keel",
            {"prompts": ["q", "r"], "responses": ["one", "two"], "records": [{"answer": "1"}, {}]},
            {"scores": [0.5, 2]},
        ),
        (
            "openrlhf",
            {"query": ["qone", "rtwo"], "prompts": ["q", "r"], "labels": ["1", None]},
            {"rewards": [0.5, 2], "extra_logs": {}},
        ),
        (
            "vllm_score",
            {"model": "m", "text_1": ["q", "r"], "text_2": ["one", "two"]},
            {"data": [{"index": 1, "score": 2}, {"index": 0, "score": 0.5}]},
        ),
        (
            "vllm_pooling",
            {"model": "m", "input": ["qone", "rtwo"]},
            {"data": [{"index": 0, "data": [0.5]}, {"index": 1, "data": [[1.0], [2.0]]}]},
        ),
    ],
)
def test_each_protocol_sends_and_reads_its_own_form(protocol, body, answer):
    with serving(says(answer)) as server:
        model = "m" if protocol.startswith("vllm") else None
        assert scorer(server.url, protocol=protocol, model=model).ask(*ASKED) == [0.5, 2.0]
    assert server.requests[0]["body"] == body


def test_many_responses_go_in_several_requests_and_come_back_in_order():
    def answer(request, body):
        request.reply(200, json.dumps({"scores": [float(text) for text in body["responses"]]}).encode())

    texts = [str(number) for number in range(10)]
    with serving(answer) as server:
        found = scorer(server.url, batch=3, concurrency=4).ask(["p"] * 10, texts, [{}] * 10)
    assert found == [float(number) for number in range(10)]
    assert sorted(len(request["body"]["prompts"]) for request in server.requests) == [1, 3, 3, 3]


@pytest.mark.parametrize(
    "trouble",
    [
        status(429, Retry_After="7"),
        status(503),
        hangs_up,
        raw(b"<html>"),
        says({"rewards": [1, 2]}),
        says({"scores": [1]}),
        says({"scores": [1, "2"]}),
        says({"scores": [1, True]}),
        says([1, 2]),
        raw(b'{"scores": [1, NaN]}'),
        raw(b'{"scores": [1, 1e999]}'),
    ],
    ids=["rate", "503", "hang-up", "page", "protocol", "short", "text", "truth", "list", "nan", "infinite"],
)
def test_what_may_pass_is_tried_again(trouble):
    waits: list[float] = []
    with serving(trouble, says({"scores": [1, 2]})) as server:
        assert scorer(server.url, waits).ask(*ASKED) == [1.0, 2.0]
    assert len(waits) == 1


def test_a_score_that_is_there_twice_is_not_taken_for_two():
    twice = says({"data": [{"index": 0, "score": 1}, {"index": 0, "score": 2}]})
    sound = says({"data": [{"index": 0, "score": 1}, {"index": 1, "score": 3}]})
    with serving(twice, sound) as server:
        assert scorer(server.url, protocol="vllm_score", model="m").ask(*ASKED) == [1.0, 3.0]


def test_what_does_not_pass_stops_with_the_address_and_what_it_said():
    with serving(raw(b"<html>busy</html>")) as server, pytest.raises(EndpointError) as stop:
        scorer(server.url).ask(*ASKED)
    assert server.url in str(stop.value)
    assert "2 finite scores in the form of protocol keel: '<html>busy</html>' (3 tries)" in str(stop.value)
    with serving(status(401, "no")) as server, pytest.raises(EndpointError, match="Check the API key"):
        scorer(server.url).ask(*ASKED)
    assert len(server.requests) == 1
    with pytest.raises(EndpointError, match="cannot be reached"):
        scorer("http://127.0.0.1:9/score").ask(*ASKED)


def test_a_key_that_is_not_set_is_told_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(ConfigError, match="NO_KEY is not set"):
        scorer("http://127.0.0.1:9/score", key_env="NO_KEY").ask(*ASKED)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "http://localhost:score/"}, "Port could not be cast to integer"),
        ({"url": "http://localhost:99999/"}, "Port out of range"),
        ({"url": "localhost:5000"}, "is no web address"),
        ({"url": "http://me:pw@host/score"}, "holds a user name or password"),
        ({"url": "http://host/score", "protocol": "vllm_score"}, "needs model"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        RemoteConfig(**settings)
