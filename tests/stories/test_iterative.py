"""Iterative DPO and its kin: sample, judge, learn, compare, and again; and PPO, then DPO on fresh pairs."""

import pytest
from helpers.fresh_recipes import HYBRID, ITERATIVE, PREFER, ROUNDS, place_of_people

from keel.core.artifacts import load_artifact
from keel.core.errors import ArtifactError, TrainingError
from keel.stages.labels import read_set


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return place_of_people(tmp_path_factory.mktemp("iterative"))


@pytest.fixture(scope="module")
def iterated(place):
    return place.run(page=True, **ITERATIVE)


def artifacts(ran, name):
    return [load_artifact(path) for path in sorted((ran.directory / "artifacts").glob(f"{name}-*"))]


def test_each_round_samples_judges_learns_and_is_compared_with_sft(iterated):
    one = ["reference 1", "prefer 1", "evaluate 1"]
    two = ["labels 1", "reference 2", "prefer 2", "evaluate 2"]
    three = ["labels 2", "reference 3", "prefer 3", "evaluate"]
    assert iterated.trained()[4:] == [*one, *two, *three]
    assert iterated.summary["method"] == "iterative_dpo"
    assert iterated.stages["prefer"]["rounds"] == 3
    found = iterated.stages["evaluate"]
    assert found["true_win_rate_low"] < found["true_win_rate"] < found["true_win_rate_high"]
    assert {"kl_nats_per_sequence", "reward_win_rate"} <= found.keys()
    assert [row["round"] for row in iterated.summary["rounds"]] == [1, 2, 3]
    assert all("true_win_rate" in row for row in iterated.summary["rounds"][:2])
    assert "on_policy_accuracy_before" not in iterated.summary["rounds"][0], "nobody had judged the policy yet"
    assert "iterative_dpo" in (iterated.directory / "recipe.yaml").read_text()


def test_a_round_goes_on_from_the_policy_of_the_one_before(iterated):
    policies = {policy.id: policy for policy in artifacts(iterated, "prefer")}
    last = iterated.artifact("prefer")
    starts = [policies[parent] for parent in last.parents if parent in policies]
    assert len(starts) == 1
    fresh = {fresh.id: fresh for fresh in artifacts(iterated, "labels")}
    assert len([parent for parent in last.parents if parent in fresh]) == 2, "its own pairs, and those replayed"
    assert [f.config["policy"] for f in fresh.values() if f.config["round"] == 2] == [starts[0].id]


def test_the_rewards_say_how_likely_each_response_is_the_better(iterated):
    for record in [record for fresh in artifacts(iterated, "labels") for record in read_set(fresh)]:
        lead = sum(
            r.split().count("thank") * sign + 0.01 * len(r) * sign for r, sign in ((record.a, 1), (record.b, -1))
        )
        assert (record.preference > 0.5) == (lead > 0) or abs(lead) < 1e-6
        assert 0 < record.preference < 1


def test_they_may_say_only_which(place):
    ran = place.run(["rounds.verdicts=choice", "rounds.count=2"], to="choice", **ITERATIVE)
    (fresh,) = artifacts(ran, "labels")
    assert {record.preference for record in read_set(fresh)} <= {0.0, 0.5, 1.0}


def test_the_reference_is_sft_or_the_round_before(place, iterated):
    later = place.run(["rounds.reference=previous", "rounds.count=2"], to="previous", **ITERATIVE)
    (sft,) = artifacts(later, "sft")
    said = [artifact.config["policy"] for artifact in artifacts(later, "reference")]
    assert len(set(said)) == 2
    assert sft.id in said
    assert {artifact.config["policy"] for artifact in artifacts(iterated, "reference")} == {sft.id}
    assert later.stages["prefer"]["accuracy_before"] == 0.5, "nothing separates a policy from itself"


def test_replay_mixes_earlier_pairs_in(place, iterated):
    alone = place.run(["rounds.replay=0", "rounds.count=2"], to="alone", **ITERATIVE)
    counts = [policy.metrics["training_pairs"] for policy in artifacts(iterated, "prefer")]
    assert alone.stages["prefer"]["training_pairs"] < min(counts)


@pytest.mark.parametrize("algorithm", ["orpo", "kto"])
def test_every_way_to_learn_from_pairs_learns_in_rounds(place, algorithm):
    prefer = {**PREFER, "algorithm": algorithm}
    ran = place.run(["rounds.count=2"], to=algorithm, **{**ITERATIVE, "prefer": prefer})
    assert ran.stages["prefer"]["algorithm"] == algorithm
    assert ran.stages["prefer"]["rounds"] == 2


def test_people_judge_where_a_labeller_is_named(place):
    rounds = {"count": 2, "comparisons": 20, "judge": "labeller", "labeller": "people.py:judge"}
    ran = place.run(to="people", **{**ITERATIVE, "rounds": rounds, "evaluate": None})
    assert {r.preference for r in read_set(artifacts(ran, "labels")[0])} == {0.9, 0.2}


def test_without_comparisons_the_first_round_is_fresh_too(place):
    data = {"comparisons": None}
    ran = place.run(
        ["rounds.count=2"], to="fresh", **{**ITERATIVE, "prefer": {**PREFER, "pairs": "fresh"}, "data": data}
    )
    assert [stage for stage in ran.trained() if stage.startswith(("labels", "prefer"))] == [
        "labels 0", "prefer 1", "labels 1", "prefer 2",
    ]  # fmt: skip


def test_after_ppo_prefer_learns_from_fresh_pairs_of_what_ppo_made(place):
    ran = place.run(to="hybrid", **HYBRID)
    assert ran.trained()[-5:] == ["ppo 1", "labels 1", "reference", "prefer", "evaluate"]
    (ppo,) = artifacts(ran, "ppo")
    assert ppo.id in ran.artifact("prefer").parents
    assert artifacts(ran, "labels")[0].config["policy"] == ppo.id
    assert ran.artifact("prefer").id in ran.artifact("evaluate").parents
    assert ran.summary["method"] == "hybrid"
    assert list(ran.stages) == ["sft", "prefer", "ppo", "evaluate"]


def test_rewards_that_tell_nothing_apart_stop_the_run(place):
    same = [{"name": "same", "python": "people.py:same"}]
    with pytest.raises(TrainingError, match=r"both responses of each of .* the same score.*Look at rounds.rewards"):
        place.run(to="same", **{**ITERATIVE, "rounds": {**ROUNDS, "rewards": same}, "evaluate": None})


def test_pairs_that_leave_nothing_to_measure_with_say_so(place):
    with pytest.raises(TrainingError, match=r"judged pairs .* are left to train on .*Raise rounds.comparisons"):
        place.run(["rounds.comparisons=2"], to="few", **{**ITERATIVE, "evaluate": None})


def test_a_run_takes_over_what_another_has_finished(place, iterated):
    before = iterated.artifact("sft")
    other = place.run(["method=dpo"], to="other", reuse=[iterated.directory], **{**ITERATIVE, "evaluate": None})
    assert other.trained() == [], "its only round is the first of the other run"
    assert other.artifact("sft").id == before.id
    changed = place.run(
        ["method=dpo", "prefer.dpo.beta=0.3"],
        to="changed",
        reuse=[iterated.directory],
        **{**ITERATIVE, "evaluate": None},
    )
    assert changed.trained() == ["prefer"]


def test_only_a_run_folder_can_be_taken_over_from(place):
    with pytest.raises(ArtifactError, match="is not a run folder: it has no artifacts"):
        place.run(to="nothing", reuse=[place.folder], **ITERATIVE)


def test_one_folder_may_hold_several_methods(place, iterated):
    count = len(iterated.trained())
    again = place.run(["method=ipo"], **{**ITERATIVE, "evaluate": None})
    assert again.trained()[count:] == ["reference", "prefer"] or again.trained()[count:] == ["prefer"]
