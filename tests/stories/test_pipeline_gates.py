"""What raters' labels decide before RL starts: golden sets, votes, agreement, and gates that refuse a reward model.

All share one run folder, so that a variant trains only what it changes.
"""

import pytest
import torch
from helpers.recipes import PROMPTS, Workplace, answers

from keel.algorithms import reward as reward_algorithm
from keel.annotate.consensus import resolve
from keel.core.artifacts import load_artifact
from keel.core.errors import ConfigError, GateError
from keel.data.formats import DataConfig, read_comparisons
from keel.data.split import split
from keel.functional.preference_losses import bradley_terry
from keel.models.reward import RewardModel

LABELLER = """
from keel.data.records import Comparison

def contrary(pairs):
    return [Comparison(pair.prompt, pair.a, pair.b, 0.0) for pair in pairs]
"""
NO_EVALUATION = {"evaluate": None}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("gates"))
    place.write("raters.py", LABELLER)
    return place


def voted(number: int, votes: dict[str, str]) -> dict:
    better, worse = answers(number)
    a, b = (better, worse) if number % 2 else (worse, better)
    swap = {"better": "a" if number % 2 else "b", "worse": "b" if number % 2 else "a", "tie": "tie"}
    cast = [{"rater": rater, "choice": swap[vote]} for rater, vote in votes.items()]
    return {"prompt": PROMPTS[number], "response_a": a, "response_b": b, "votes": cast}


def judged(number: int) -> dict:
    """A comparison as a senior would judge it."""
    better, worse = answers(number)
    return {"prompt": PROMPTS[number], "chosen": better, "rejected": worse}


def test_a_golden_set_probes_the_reward_model_and_is_never_trained_on(place):
    place.write("golden.jsonl", [judged(number) for number in range(8)])
    plain = place.run(only="reward", to="golden")
    probed = place.run(data={"golden": {"path": "golden.jsonl"}}, only="reward", to="golden")
    reward = probed.stages["reward"]
    assert {"golden_accuracy", "golden_accuracy_low", "golden_accuracy_high"} <= reward.keys()
    assert reward["golden_decided_pairs"] == 8
    assert reward["training_pairs"] == plain.stages["reward"]["training_pairs"]
    assert "golden_accuracy" not in plain.stages["reward"]


def test_another_golden_set_is_measured_anew(place):
    place.write("golden2.jsonl", [judged(number) for number in range(6)])
    first = place.run(data={"golden": {"path": "golden2.jsonl"}}, only="reward", to="golden")
    already = len(first.trained())
    place.write("golden2.jsonl", [judged(number) for number in range(4)])
    second = place.run(data={"golden": {"path": "golden2.jsonl"}}, only="reward", to="golden")
    assert first.stages["reward"]["golden_decided_pairs"] == 6
    assert second.stages["reward"]["golden_decided_pairs"] == 4
    assert second.trained()[already:] == ["data golden", "golden"], "the reward model itself is the same"


@pytest.mark.parametrize("labels", ["share", "majority", "weighted", "dawid_skene"])
def test_preferences_can_be_derived_from_the_votes(place, labels):
    votes = [{"ann": "better", "bob": "better", "cem": "worse" if n % 3 == 0 else "better"} for n in range(40)]
    place.write("votes.jsonl", [voted(number, cast) for number, cast in enumerate(votes)])
    ran = place.run(
        data={"comparisons": {"path": "votes.jsonl"}},
        thresholds={"agreement_block": 0.2},
        reward={"labels": labels},
        only="reward",
        to="votes",
    )
    assert 0.4 < ran.summary["agreement"]["krippendorff_alpha"] < 1
    assert ran.stages["reward"]["accuracy"] > 0.5


def test_soft_labels_train_another_model_than_hard_ones(place):
    test_preferences_can_be_derived_from_the_votes(place, "share")
    ran = place.run(only="sft", to="votes")
    ids = {load_artifact(p).id for p in (ran.directory / "artifacts").glob("reward-*")}
    test_preferences_can_be_derived_from_the_votes(place, "majority")
    assert len({load_artifact(p).id for p in (ran.directory / "artifacts").glob("reward-*")} | ids) > 1


@pytest.fixture
def at_odds(place):
    """Raters who answer at random, each differently."""
    votes = [{"ann": ("better", "worse")[n % 2], "bob": ("better", "worse")[n // 2 % 2]} for n in range(40)]
    place.write("odds.jsonl", [voted(number, cast) for number, cast in enumerate(votes)])
    return {"comparisons": {"path": "odds.jsonl"}}


def test_raters_who_do_not_agree_stop_the_run_before_a_reward_model_is_trained(place, at_odds):
    with pytest.raises(GateError) as refusal:
        place.run(data=at_odds, only="reward", to="odds")
    said = str(refusal.value)
    assert "Krippendorff's alpha" in said
    assert "data.override_agreement" in said
    assert "40 items" in said
    assert "of the disagreement" in said
    assert "odds.jsonl" in said
    ran = place.run(only="sft", to="odds")
    assert "reward" not in ran.trained()


def test_a_team_may_go_on_without_agreement_and_its_reason_is_kept(place, at_odds):
    why = "a pilot <b>, to see the pipeline"
    ran = place.run([f"data.override_agreement={why}"], data=at_odds, only="reward", to="odds", page=True)
    assert ran.summary["agreement"]["krippendorff_alpha"] < 0.4
    assert ran.summary["agreement"]["override"] == why
    assert ran.events("agreement")[-1]["override"] == why
    (verdict,) = [e for e in ran.events("verdict") if e["rule"] == "agreement" and why in e["message"]]
    assert verdict["level"] == "watch"
    assert ran.artifact("reward").config["override_agreement"] == why
    page = (ran.directory / "report.html").read_text()
    assert "Trained on all the same: a pilot &lt;b&gt;, to see the pipeline" in page


def test_a_reason_must_be_one(place, at_odds):
    with pytest.raises(ConfigError, match="override_agreement"):
        place.run(["data.override_agreement=ok"], data=at_odds, only="reward", to="odds")


def test_the_rater_who_is_not_like_the_others_is_named(place):
    votes = [
        {
            "ann": ("better", "worse")[n % 4 == 0],
            "bob": ("better", "worse")[n % 5 == 0],
            "eve": ("worse", "better")[n % 3 == 0],
        }
        for n in range(40)
    ]
    place.write("apart.jsonl", [voted(number, cast) for number, cast in enumerate(votes)])
    with pytest.raises(GateError, match=r"Talk first to eve \(kappa -0\.\d+; 0\.\d+ without them\)"):
        place.run(data={"comparisons": {"path": "apart.jsonl"}}, only="reward", to="apart")


@pytest.mark.parametrize("labels", ["dawid_skene", "share", "majority", "weighted"])
def test_the_loss_sees_what_the_votes_come_to(place, monkeypatch, labels):
    """From votes to the number in the loss, once round: every target is what the chosen way makes of the votes."""
    seen: list[float] = []

    def watched(a, b, preference, **settings):
        seen.extend(preference.tolist())
        return bradley_terry(a, b, preference, **settings)

    monkeypatch.setattr(reward_algorithm, "bradley_terry", watched)
    wavering = ("better", "tie")
    votes = [{"ann": "better", "bob": wavering[n % 2], "cem": ("worse", "better")[n % 3 > 0]} for n in range(40)]
    path = place.write("posterior.jsonl", [voted(number, cast) for number, cast in enumerate(votes)])
    data = {"comparisons": {"path": "posterior.jsonl"}, "override_agreement": "planted votes"}
    place.run(data=data, reward={"labels": labels}, only="reward", to="posterior")
    train, _ = split(read_comparisons(DataConfig(path=str(path))), 0.25)
    expected = [record.preference for record in resolve(train, labels)]
    assert sorted(seen) == pytest.approx(sorted(expected), abs=1e-6)
    assert labels == "majority" or any(0 < target < 1 and target != 0.5 for target in seen)


def test_ppo_refuses_a_reward_model_that_says_the_same_of_everything(place):
    made = place.run(only="reward")
    source = made.artifact("reward").path / "model"
    collapsed = place.folder / "collapsed"
    model = RewardModel.load(source)
    with torch.no_grad():
        model.head.weight.zero_()
    model.std = 0.0
    model.save(collapsed)
    parts = {"rewards": [{"name": "collapsed", "model": str(collapsed)}]}
    with pytest.raises(GateError, match="collapsed"):
        place.run(data={"comparisons": None}, reward=None, ppo=parts, to="collapsed run", **NO_EVALUATION)


def test_ppo_refuses_a_reward_model_of_this_run_that_has_learned_nothing(place):
    nothing = {"optim": {"learning_rate": 1e-12, "weight_decay": 0.0}, "best_of": 0}
    rows = [
        {"prompt": PROMPTS[n], "response_a": answers(n)[0], "response_b": answers(n)[1], "preference": 0.5}
        for n in range(40)
    ]
    place.write("ties.jsonl", rows)
    with pytest.raises(GateError) as refusal:
        place.run(
            data={"comparisons": {"path": "ties.jsonl"}},
            reward={"form": "implicit", **nothing},
            to="nothing",
            **NO_EVALUATION,
        )
    assert "collapsed" in str(refusal.value)


def test_the_best_of_n_gate_stops_when_raters_dislike_what_the_reward_model_likes(place):
    rounds = {"count": 1, "labeller": "raters.py:contrary"}
    with pytest.raises(GateError) as refusal:
        place.run(rounds=rounds, reward={"best_of": 4, "best_of_prompts": 12}, to="gate", **NO_EVALUATION)
    assert "favourite" in str(refusal.value)
    assert "collect labels" in str(refusal.value)
    ran = place.run(only="reward", reward={"best_of": 4, "best_of_prompts": 12}, to="gate")
    assert "ppo" not in "".join(ran.trained()), "the gate comes before RL"
    assert ran.trained().count("reward") == 1, "and costs no reward model"


def test_the_size_of_the_gate_is_no_reason_to_train_the_reward_model_again(place):
    place.run(only="reward")
    before = len(place.run(only="reward").trained())
    place.run(reward={"best_of": 3, "best_of_prompts": 6}, only="reward")
    assert len(place.run(only="reward").trained()) == before
