"""A served model is asked with patience, and whatever goes wrong there is one clear message."""

import socket
import time

import pytest
from helpers.served import drips, hangs_up, raw, says, serving, status

from keel.core.config import load_config
from keel.core.errors import ConfigError, EndpointError
from keel.data.records import Message
from keel.stages.endpoint import Endpoint, EndpointConfig, Sampling

SAMPLING = Sampling(max_new_tokens=8, temperature=0.7, seed=2**40 + 3)


def endpoint(url: str, waits: list[float] | None = None, **settings) -> Endpoint:
    settings = {"retries": 2, "timeout_seconds": 0.5, **settings}
    return Endpoint(EndpointConfig(url=url, model="m", **settings), sleep=(waits if waits is not None else []).append)


def test_an_answer_comes_back_with_what_the_server_says_about_itself():
    with serving(says("fine", reason="length", system_fingerprint="fp")) as server:
        reply = endpoint(server.url).ask("how?", SAMPLING)
    assert (reply.text, reply.finished, reply.model, reply.fingerprint) == ("fine", False, "served-1", "fp")
    assert (reply.input_tokens, reply.output_tokens) == (10, 5)
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["body"] == {
        "model": "m",
        "max_tokens": 8,
        "temperature": 0.7,
        "seed": 3,
        "messages": [{"role": "user", "content": "how?"}],
    }
    assert "Authorization" not in request["headers"]


def test_base_models_are_sent_bare_text_and_chats_their_turns():
    with serving(says("fine")) as server:
        endpoint(server.url, api="completions", send_seed=False).ask("how?", SAMPLING)
        endpoint(server.url).ask((Message("system", "be kind"), Message("user", "how?")), SAMPLING)
    assert server.requests[0]["path"] == "/v1/completions"
    assert server.requests[0]["body"]["prompt"] == "how?"
    assert "seed" not in server.requests[0]["body"]
    assert [turn["role"] for turn in server.requests[1]["body"]["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    "trouble",
    [
        status(429, "slow down"),
        status(503),
        raw(b"<html>busy</html>"),
        raw(b'{"choices": []}'),
        raw(b'{"choices": [{"message": {"content": null}}]}'),
        raw(b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}}'),
        raw(b"[" * 100000),
        raw(b"\xff\xfe"),
        hangs_up,
        drips(2.0),
        status(429, Retry_After="nan"),
        status(429, Retry_After="inf"),
    ],
    ids=["rate", "503", "page", "empty", "null", "counts", "deep", "bytes", "hang-up", "drip", "no wait", "ever"],
)
def test_what_passes_by_itself_is_tried_again(trouble):
    waits: list[float] = []
    with serving(trouble, says("fine")) as server:
        assert endpoint(server.url, waits).ask("how?", SAMPLING).text == "fine"
    assert len(server.requests) == 2
    assert len(waits) == 1
    assert 0 <= waits[0] <= 60


def test_the_wait_doubles_or_is_what_the_server_asks_for():
    waits: list[float] = []
    with serving(status(500), status(500), status(429, Retry_After="7"), says("fine")) as server:
        endpoint(server.url, waits, retries=3).ask("how?", SAMPLING)
    assert 0.25 <= waits[0] <= 0.5 <= waits[1] <= 1.0
    assert waits[2] == 7


def test_a_wait_of_an_hour_is_not_waited_for():
    with serving(status(429, Retry_After="3600")) as server, pytest.raises(EndpointError) as refusal:
        endpoint(server.url).ask("how?", SAMPLING)
    assert "3600 s" in str(refusal.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (status(401, "bad key sk-secret"), "API key"),
        (status(404, "no such model"), "no such model"),
        (status(400, "temperature\nmust be\x1b[31m small"), "temperature must be [31m small"),
        (status(302, "", Location="http://elsewhere.example/v1"), "http://elsewhere.example/v1"),
    ],
    ids=["key", "model", "setting", "redirect"],
)
def test_what_does_not_pass_is_told_at_once_and_never_with_the_key(answer, expected, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    with serving(answer) as server, pytest.raises(EndpointError) as refusal:
        endpoint(server.url, key_env="SOME_KEY").ask("how?", SAMPLING)
    assert expected in str(refusal.value)
    assert "sk-secret" not in str(refusal.value)
    assert len(server.requests) == 1
    assert server.requests[0]["headers"]["Authorization"] == "Bearer sk-secret"


def test_an_address_where_nobody_listens_is_named_after_the_last_try():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(EndpointError) as refusal:
            endpoint(url).ask("how?", SAMPLING)
    assert url in str(refusal.value)
    assert "3 tries" in str(refusal.value)


@pytest.mark.parametrize(("code", "said"), [(200, r"within 0\.2 s"), (500, "HTTP 500"), (404, "HTTP 404")])
def test_a_server_that_never_ends_its_answer_costs_no_more_than_the_time_allowed(code, said):
    begun = time.monotonic()
    with serving(drips(5.0, code)) as server, pytest.raises(EndpointError, match=said):
        endpoint(server.url, timeout_seconds=0.2, retries=1).ask("how?", SAMPLING)
    assert time.monotonic() - begun < 2


def test_a_key_that_is_not_set_is_asked_for(monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(ConfigError, match="NO_KEY"):
        endpoint("http://localhost:1/v1", key_env="NO_KEY").ask("how?", SAMPLING)


@pytest.mark.parametrize("url", ["localhost:8000", "file:///etc/passwd", "ftp://x/v1", "http://"])
def test_only_web_addresses_are_endpoints(url):
    with pytest.raises(ConfigError, match="web address"):
        load_config(EndpointConfig, None, [f"url={url}", "model=m"])
    with pytest.raises(ConfigError, match="key_env"):
        load_config(EndpointConfig, None, ["url=http://me:secret@localhost/v1", "model=m"])
