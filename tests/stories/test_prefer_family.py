"""IPO, SimPO, ORPO and KTO: the whole road of each, by one word, and what a recipe may not ask for."""

import json

import pytest
from helpers.recipes import Workplace
from safetensors.torch import load_file

from keel.core.errors import ConfigError, DataError
from keel.data.formats import DataConfig, read_ratings

PREFER = {"batch": 8, "epochs": 2, "evaluate_every": 4, "max_new_tokens": 8, "optim": {"learning_rate": 2e-3}}
DIRECT = {"reward": None, "ppo": None, "prefer": PREFER, "evaluate": None}
RATED = {**DIRECT, "data": {"comparisons": None, "ratings": {"path": "ratings.jsonl", "holdout": 0.25}}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("family"))
    pairs = [json.loads(line) for line in (place.folder / "pairs.jsonl").read_text().splitlines()]
    place.write(
        "ratings.jsonl",
        [
            {"prompt": pair["prompt"], "completion": pair[side], "label": good}
            for number, pair in enumerate(pairs)
            for side, good in (("response_a", pair["preference"] > 0.5), ("response_b", pair["preference"] < 0.5))
            if number % 3 or good  # more thumbs up than down
        ],
    )
    return place


def labelled(place: Workplace, name: str, label: object) -> str:
    rows = [json.loads(line) for line in (place.folder / "ratings.jsonl").read_text().splitlines()]
    place.write(name, [{**row, "label": label} for row in rows])
    return f"data.ratings.path={name}"


@pytest.mark.parametrize("algorithm", ["ipo", "simpo", "orpo"])
def test_one_word_switches_what_learns_from_comparisons(place, algorithm):
    ran = place.run([f"prefer.algorithm={algorithm}"], **DIRECT)
    found = ran.stages["prefer"]
    assert found["algorithm"] == algorithm
    assert found["loss"] < found["loss_before"]
    assert found["accuracy"] > 0.9
    assert found["reward_margin"] > 0
    assert ("chosen_log_ratio" in found) == (algorithm == "ipo")
    assert ("reference" in ran.trained()[-2:]) == (algorithm == "ipo"), "only what needs a reference asks it"


def test_settings_of_other_methods_train_nothing_again(place):
    place.run(["prefer.algorithm=simpo"], to="again", **DIRECT)
    again = place.run(["prefer.algorithm=simpo", "prefer.dpo.beta=0.3", "prefer.kto.beta=0.2"], to="again", **DIRECT)
    assert again.trained().count("prefer") == 1
    assert place.run(["prefer.algorithm=simpo", "prefer.simpo.gamma=0"], to="again", **DIRECT).trained().count(
        "prefer"
    ) == 2  # fmt: skip


def test_kto_learns_from_thumbs(place):
    ran = place.run(["prefer.algorithm=kto"], to="kto", page=True, **RATED)
    assert ran.trained() == ["data demonstrations", "data ratings", "sft", "reference", "prefer"]
    found = ran.stages["prefer"]
    assert found["loss_before"] == pytest.approx(0.5, abs=1e-5), "policy and reference are one: half of all value"
    assert found["loss"] < found["loss_before"]
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    assert found["accuracy"] > 0.9
    assert found["chosen_log_ratio"] > found["rejected_log_ratio"]
    assert 0.5 < found["desirable_share"] < 0.8
    steps = [e for e in ran.events("step") if e["stage"] == "prefer"]
    assert all(e["reference_point"] >= 0 for e in steps)
    said = load_file(next((ran.directory / "artifacts").glob("reference-*")) / "reference.safetensors")
    assert len(said["held_out"]) == 2 * found["held_out_ratings"], "each rated response and one to another prompt"


def test_comparisons_serve_kto_too(place):
    """And what the reference says for KTO is not what it says for DPO."""
    before = place.run(to="taken-apart", **DIRECT).trained()
    ran = place.run(["prefer.algorithm=kto"], to="taken-apart", **DIRECT)
    assert ran.trained()[len(before) :] == ["reference", "prefer"]
    assert ran.stages["prefer"]["held_out_ratings"] == 2 * 8
    assert ran.stages["prefer"]["accuracy"] > 0.9


def test_kto_with_adapters_begins_at_its_reference(place):
    ran = place.run(["prefer.algorithm=kto", "prefer.lora.rank=4"], to="lora", **RATED)
    assert ran.stages["prefer"]["loss_before"] == pytest.approx(0.5, abs=1e-5)


def test_methods_on_pairs_refuse_ratings(place):
    with pytest.raises(ConfigError, match=r"algorithm dpo learns from data\.comparisons.*Set prefer\.algorithm: kto"):
        place.recipe(**RATED)


def test_comparisons_cannot_be_read_from_ratings(place):
    with pytest.raises(DataError, match="which has no comparisons; it has ratings"):
        place.run(["data.comparisons.path=ratings.jsonl"], to="no-pairs", **DIRECT)


def test_kto_without_judgments_says_what_it_needs(place):
    with pytest.raises(ConfigError, match=r"kto needs data\.ratings \(thumbs up or down\) or data\.comparisons"):
        place.recipe(["prefer.algorithm=kto"], **{**RATED, "data": {"comparisons": None}})


def test_a_batch_of_one_is_refused_with_the_recipe(place):
    with pytest.raises(ConfigError, match=r"batch=1: kto measures every rating from the mean KL of its batch"):
        place.recipe(["prefer.algorithm=kto", "prefer.batch=1"], **RATED)


@pytest.mark.parametrize(("label", "kind"), [(True, "up"), (False, "down")])
def test_ratings_that_are_all_alike_are_refused(place, label, kind):
    override = labelled(place, f"all-{kind}.jsonl", label)
    with pytest.raises(DataError, match=f"training ratings are thumbs {kind}"):
        place.run(["prefer.algorithm=kto", override], to=f"all-{kind}", **RATED)


def test_a_label_that_is_no_thumb_is_refused_with_its_line(place):
    override = labelled(place, "nonsense.jsonl", "meh")
    with pytest.raises(DataError, match=r"nonsense\.jsonl.*1.*label"):
        place.run(["prefer.algorithm=kto", override], to="nonsense", **RATED)


def test_thumbs_of_a_published_set_are_read(shared_data):
    """LLaMA-Factory's demonstration of KTO."""
    ratings = read_ratings(DataConfig(path=str(shared_data / "llamafactory-demos" / "kto.jsonl.gz")))
    assert len(ratings) > 200
    assert {rating.desirable for rating in ratings} == {True, False}
