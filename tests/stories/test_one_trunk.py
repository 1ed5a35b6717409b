"""Policy, reference, reward model and critic on one set of weights: the same run, from less."""

import json
from typing import Any

import pytest
from helpers.recipes import Workplace

from keel.core.artifacts import load_artifact
from keel.core.errors import ArtifactError, ConfigError
from keel.core.events import read_events
from keel.stages.roles import read_role

LORA = {"rank": 2}
UPPER = {"rank": 2, "last_layers": 1}
FIGURES = ("score_mean", "reward_mean", "kl_nats_per_sequence", "loss", "value_loss", "grad_norm", "entropy_nats")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("one_trunk"))


def changes(layout: str, lora: dict[str, Any], **more: Any) -> dict[str, Any]:
    ppo = {"layout": layout, "lora": lora, "optim": {"learning_rate": 1e-3}, "keep": "last", **more}
    if layout == "separate":
        ppo["ppo"] = {**ppo.get("ppo", {}), "critic": "trunk"}
    return {"reward": {"lora": lora, "optim": {"learning_rate": 1e-2}}, "ppo": ppo, "evaluate": None}


def steps(ran) -> list[dict[str, Any]]:
    events = read_events(ran.directory / "events.jsonl")
    last = max(i for i, event in enumerate(events) if event["event"] == "stage_started" and event["stage"] == "ppo")
    return [event for event in events[last:] if event["event"] == "step" and event["stage"] == "ppo"]


@pytest.mark.parametrize("lora", [LORA, UPPER], ids=["all layers", "last layer"])
@pytest.mark.parametrize("algorithm", ["ppo", "rloo"])
def test_the_layout_changes_memory_and_speed_and_no_figure(place, lora, algorithm):
    apart = steps(place.run(**changes("separate", lora, algorithm=algorithm)))
    shared = steps(place.run(**changes("one_trunk", lora, algorithm=algorithm)))
    assert len(apart) == len(shared) > 1
    for one, other in zip(apart, shared, strict=True):
        for name in FIGURES:
            if name in one:
                assert other[name] == pytest.approx(one[name], abs=2e-4, rel=2e-3), (one["step"], name)


def test_the_policy_can_be_gone_on_with(place):
    ran = place.run(**changes("one_trunk", UPPER))
    policy = ran.artifact("ppo")
    sft = ran.artifact("sft").id
    saved = read_role(policy, sft)
    assert saved.lora.last_layers == 1
    assert len(saved.tensors) == 14
    with pytest.raises(ArtifactError, match=r"other weights.*layout to separate"):
        read_role(policy, "another")
    record = policy.path / "role.json"
    whole = record.read_text()
    for text in ("{", "[]", "{}", json.dumps({"base": sft, "lora": {"rank": 0}})):
        record.write_text(text)
        with pytest.raises(ArtifactError, match=r"(?s)role\.json is damaged.*run the same command"):
            read_role(policy, sft)
    record.write_text(whole)
    with pytest.raises(ArtifactError, match="holds no adapter to go on with"):
        read_role(load_artifact(ran.artifact("sft").path), sft)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ppo": {"layout": "one_trunk"}}, "one_trunk keeps the weights as they are.*Set lora"),
        (
            {"ppo": {"layout": "one_trunk", "lora": LORA, "ppo": {"critic": "separate"}}},
            "critic: separate and layout: one_trunk contradict",
        ),
        ({"ppo": {"layout": "one_trunk", "lora": LORA}}, "Set reward.lora, reward.form: head"),
        (
            {"ppo": {"layout": "one_trunk", "lora": LORA}, "reward": {"lora": LORA, "form": "hybrid"}},
            "Set reward.lora, reward.form: head",
        ),
        ({"ppo": {"lora": {**LORA, "dropout": 0.1}}}, r"ppo\.lora\.dropout is 0\.1.*Leave it out"),
    ],
    ids=["full", "own critic", "full reward model", "hybrid", "dropout"],
)
def test_what_cannot_share_a_trunk_is_refused_before_anything_runs(place, settings, message):
    with pytest.raises(ConfigError, match=message):
        place.run(**settings)


RATERS = """
from keel.data.records import Comparison

def judge(pairs):
    return [Comparison(pair.prompt, pair.a, pair.b, float("thank" in pair.a)) for pair in pairs]
"""


def test_a_further_round_goes_on_with_both_adapters_on_the_same_weights(tmp_path):
    place = Workplace(tmp_path)
    place.write("raters.py", RATERS)
    rounds = {"count": 2, "comparisons": 8, "labeller": "raters.py:judge"}
    ran = place.run(rounds=rounds, **changes("one_trunk", UPPER, updates=2))
    measured = [e for e in ran.events("evaluated") if e["stage"].startswith("ppo")]
    ended = [e for e in measured if e["round"] == 0][-1]
    begun = next(e for e in measured if e["round"] == 1)
    assert begun["kl_nats_per_sequence"] == ended["kl_nats_per_sequence"] != 0  # to the last bit: nothing was merged
    folders = (ran.directory / "artifacts").iterdir()
    policies = [load_artifact(path) for path in folders if path.name.startswith("ppo-")]
    assert {read_role(policy, ran.artifact("sft").id).lora.last_layers for policy in policies} == {1}
