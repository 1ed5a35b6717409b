"""Answers are drawn once, kept with where they come from, and an endpoint in trouble costs nothing already there."""

import json
from pathlib import Path

import pytest
from helpers.recipes import PROMPTS, Workplace, model_folder, write_lines
from helpers.served import raw, says, serving, status

from keel.core.config import load_config
from keel.core.errors import ArtifactError, ConfigError, EndpointError
from keel.core.files import tree_sha256
from keel.core.progress import Silent
from keel.data.records import prompt_key
from keel.data.split import is_held_out
from keel.stages.sample import PAIRS, RESPONSES, sample
from keel.stages.sampling import SampleConfig


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    write_lines(folder / "prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS[:12]])
    model_folder(folder / "one")
    model_folder(folder / "two", seed=1)
    return folder


def config(place: Path, *models: dict, **settings) -> SampleConfig:
    base = {
        "prompts": {"path": str(place / "prompts.jsonl"), "holdout": 0.25},
        "models": list(models),
        "max_new_tokens": 6,
        **settings,
    }
    return load_config(SampleConfig, None, base=base)


def local(place: Path, name: str) -> dict:
    return {"name": name, "checkpoint": {"path": str(place / name)}}


def served(url: str, **settings) -> dict:
    endpoint = {"url": url, "model": "big", "retries": 0, "timeout_seconds": 5, **settings}
    return {"name": "big", "endpoint": endpoint}


def words(body: dict) -> str:
    return f"word{body['seed']} and {body['messages'][0]['content']}"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_answer_says_where_it_comes_from(place, tmp_path):
    with serving(says(words, system_fingerprint="fp-1")) as server:
        drawn = sample(config(place, local(place, "one"), served(server.url)), tmp_path, Silent())
    assert drawn.responses == drawn.fresh == 12 * 2 * 2
    rows = lines(tmp_path / RESPONSES)
    mine = [row["provenance"] for row in rows if row["provenance"]["model"] == "one"]
    theirs = [row["provenance"] for row in rows if row["provenance"]["model"] == "big"]
    assert {p["content"] for p in mine} == {tree_sha256(place / "one")}
    assert all(p["settings"]["max_new_tokens"] == 6 and p["at"].endswith("Z") for p in mine + theirs)
    assert {(p["endpoint"], p["served_model"], p["fingerprint"]) for p in theirs} == {(server.url, "served-1", "fp-1")}
    assert len({p["response_seed"] for p in theirs}) == 24
    for pair in lines(tmp_path / PAIRS):
        for letter in "ab":
            origin = pair["provenance"][letter]
            assert any(r["response"] == pair[f"response_{letter}"] and r["provenance"] == origin for r in rows)
        assert pair["provenance"]["side"] == ("held_out" if is_held_out(prompt_key(pair["prompt"]), 0.25) else "train")


def test_what_was_drawn_is_not_drawn_again_and_more_may_be_asked_for(place, tmp_path):
    with serving(says(words)) as server:
        first = sample(config(place, served(server.url)), tmp_path, Silent())
        again = sample(config(place, served(server.url)), tmp_path, Silent())
        assert (first.fresh, again.fresh) == (24, 0)
        assert [p.key for p in first.pairs] == [p.key for p in again.pairs]
        more = sample(config(place, served(server.url), samples=3), tmp_path, Silent())
        assert more.fresh == 12
        assert len(server.requests) == 36


def test_a_checkpoint_answers_the_same_whatever_was_there_before(place, tmp_path):
    whole = sample(config(place, local(place, "one"), local(place, "two")), tmp_path / "whole", Silent())
    sample(config(place, local(place, "one")), tmp_path / "parts", Silent())
    kept = (tmp_path / "parts" / RESPONSES).read_bytes().splitlines(keepends=True)
    (tmp_path / "parts" / RESPONSES).write_bytes(b"".join(kept[:5]) + kept[5][:40])  # killed in the middle of a line
    parts = sample(config(place, local(place, "one"), local(place, "two")), tmp_path / "parts", Silent())
    assert [p.key for p in whole.pairs] == [p.key for p in parts.pairs]
    assert parts.fresh == 2 * 24 - 5


def test_an_endpoint_that_goes_down_halfway_loses_nothing(place, tmp_path):
    with serving(*[says(words)] * 10, then=status(400, "no more")) as server:
        trouble = config(place, served(server.url, concurrency=1), local(place, "one"))
        with pytest.raises(EndpointError) as refusal:
            sample(trouble, tmp_path, Silent())
        said = str(refusal.value)
        assert "big:" in said
        assert "no more" in said
        assert f"{10 + 24} answers are kept" in said, "and the other model finished"
        assert not (tmp_path / PAIRS).exists()
        assert len(server.requests) == 11, "after a refusal nothing more is asked"
        server.plan = lambda number: says(words)
        drawn = sample(trouble, tmp_path, Silent())
    assert drawn.fresh == 14


def test_two_endpoints_in_trouble_are_both_named(place, tmp_path):
    with serving(raw(b"<html>")) as one, serving(status(401, "who are you")) as other:
        both = [served(one.url), {**served(other.url), "name": "other"}]
        with pytest.raises(EndpointError) as refusal:
            sample(config(place, *both), tmp_path, Silent())
    assert "big:" in str(refusal.value)
    assert "other:" in str(refusal.value)


def test_the_budget_holds_over_all_runs_into_a_folder(place, tmp_path):
    prices = {"usd_per_million_input_tokens": 1000, "usd_per_million_output_tokens": 2000, "concurrency": 1}
    # an answer costs 10 * 0.001 + 5 * 0.002 = $0.02; the next may cost 6 * 0.002 and a token a character
    with serving(says(words)) as server:
        for budget, asked in ((0.2, 6), (0.4, 16)):
            with pytest.raises(EndpointError, match="budget"):
                sample(config(place, served(server.url, **prices), budget_usd=budget), tmp_path, Silent())
            spent = sum(row["provenance"]["usd"] for row in lines(tmp_path / RESPONSES))
            assert spent <= budget
            assert abs(len(server.requests) - asked) <= 2


def test_a_server_that_counts_no_tokens_is_charged_by_length(place, tmp_path):
    prices = {"usd_per_million_input_tokens": 0, "usd_per_million_output_tokens": 1e6}
    with serving(says("x" * 30, usage=None)) as server:
        drawn = sample(config(place, served(server.url, **prices), samples=2), tmp_path, Silent())
    assert drawn.usd == 24 * 11
    assert drawn.pairs == []
    assert drawn.dropped == {"answers too similar": 12}


def test_only_prompts_of_the_wanted_side_are_answered(place, tmp_path):
    with serving(says(words)) as server:
        held = sample(config(place, served(server.url), side="held_out"), tmp_path, Silent())
        train = sample(config(place, served(server.url), side="train"), tmp_path, Silent())
    assert held.fresh + train.fresh == 24
    assert {pair.side for pair in held.pairs} == {"held_out"}


def test_a_run_folder_means_its_last_policy(tmp_path):
    work = Workplace(tmp_path)
    ran = work.run(only="sft")
    drawn = sample(
        config(tmp_path, {"name": "sft", "checkpoint": {"path": str(ran.directory)}}), tmp_path / "s", Silent()
    )
    assert {p.a.provenance["artifact"] for p in drawn.pairs} == {ran.artifact("sft").id}


def test_a_damaged_line_is_named(place, tmp_path):
    (tmp_path / RESPONSES).write_text('{"key": "x"}\n')
    with pytest.raises(ArtifactError, match="line 1"):
        sample(config(place, local(place, "one")), tmp_path, Silent())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"models": [{"name": "x"}]}, "exactly one"),
        ({"samples": 1}, "make no pair"),
        ({"budget_usd": 1.0, "models": [served("http://localhost:1/v1")]}, "usd_per_million"),
        ({"models": [{"name": "x", "checkpoint": {"path": "p"}}] * 2}, "share a name"),
    ],
    ids=["nowhere", "no pairs", "no price", "names"],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    base = {"prompts": {"path": "x"}, "models": [{"name": "x", "checkpoint": {"path": "p"}}], **settings}
    with pytest.raises(ConfigError, match=said):
        load_config(SampleConfig, None, base=base)
