import gzip
import json

import numpy as np
import pytest

from keel.annotate.consensus import dawid_skene, majority, resolve, share, vote_table, weighted
from keel.core.errors import DataError
from keel.data.records import Comparison, Vote


def votes(*choices, strengths=None):
    strengths = strengths or [None] * len(choices)
    return tuple(Vote(f"r{k}", c, s) for k, (c, s) in enumerate(zip(choices, strengths, strict=True)))


def comparison(*choices, preference=0.25):
    return Comparison("prompt", "one", "two", preference, votes=votes(*choices))


def planted(num_items=800, seed=0):
    """Five raters, the first two good, the others near to guessing; true answers a or b."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(2, size=num_items)
    skill = np.array([0.95, 0.95, 0.55, 0.55, 0.55])
    right = rng.random((num_items, 5)) < skill
    said = np.where(right, truth[:, None], 1 - truth[:, None])
    records = [comparison(*("ba"[vote] for vote in row)) for row in said]
    return truth, records


@pytest.mark.parametrize(
    ("choices", "preference", "confidence"),
    [
        (("a", "a", "b"), 1.0, 2 / 3),
        (("b", "b", "a"), 0.0, 2 / 3),
        (("tie", "both_bad", "a"), 0.5, 2 / 3),
        (("a", "b"), 0.5, 1 / 2),
        (("a", "a", "b", "b", "tie"), 0.5, 2 / 5),
        (("a", "tie"), 0.5, 1 / 2),
        (("a", "skip", "skip"), 1.0, 1.0),
    ],
)
def test_majority(choices, preference, confidence):
    verdict = majority(votes(*choices))
    assert (verdict.preference, verdict.confidence) == pytest.approx((preference, confidence))


@pytest.mark.parametrize(
    ("choices", "preference"),
    [
        (("a", "a", "b"), 2 / 3),
        (("a", "tie"), 3 / 4),
        (("both_bad", "b"), 1 / 4),
        (("both_bad", "tie", "skip"), 1 / 2),
    ],
)
def test_share_counts_ties_half_and_skips_not_at_all(choices, preference):
    assert share(votes(*choices)).preference == pytest.approx(preference)
    assert share(votes(*choices)).num_votes == sum(choice != "skip" for choice in choices)


def test_weighted_counts_strength():
    # a with 3, b with 1: 3/4. A tie of strength 0 is still an answer and counts 1: (3 + .5) / 5.
    assert weighted(votes("a", "b", strengths=[3.0, 1.0])).preference == pytest.approx(3 / 4)
    assert weighted(votes("a", "b", "tie", strengths=[3.0, 1.0, 0.0])).preference == pytest.approx(3.5 / 5)


def test_weighted_without_strengths_is_the_share():
    for choices in (("a", "a", "b"), ("tie", "b"), ("both_bad", "a", "skip")):
        assert weighted(votes(*choices)) == share(votes(*choices))


def test_weighted_counts_raters():
    assert weighted(votes("a", "b", "b"), {"r0": 4.0}).preference == pytest.approx(4 / 6)
    assert weighted(votes("a", "b"), {"r0": 0.0}).preference == 0.0


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_strength_that_is_no_weight_is_refused(strength):
    with pytest.raises(DataError, match="rater r0 has strength"):
        weighted(votes("a", strengths=[strength]))


@pytest.mark.parametrize("way", [majority, share, weighted])
@pytest.mark.parametrize("choices", [(), ("skip",), ("skip", "skip")])
def test_no_vote_is_one_half_with_no_confidence(way, choices):
    verdict = way(votes(*choices))
    assert (verdict.preference, verdict.confidence, verdict.num_votes) == (0.5, 0.0, 0)


@pytest.mark.parametrize("way", [majority, share, weighted])
def test_swapping_the_sides_turns_the_preference_around(way):
    swap = {"a": "b", "b": "a"}
    rng = np.random.default_rng(0)
    for _ in range(50):
        choices = rng.choice(["a", "b", "tie", "both_bad", "skip"], size=rng.integers(1, 6)).tolist()
        there, back = way(votes(*choices)), way(votes(*(swap.get(choice, choice) for choice in choices)))
        assert there.preference == pytest.approx(1 - back.preference)
        assert there.confidence == pytest.approx(back.confidence)


def test_dawid_skene_beats_the_majority_when_most_raters_guess():
    truth, records = planted()
    by_majority = np.mean([majority(r.votes).preference == t for r, t in zip(records, truth, strict=True)])
    verdicts = dawid_skene(records)
    by_model = np.mean([(v.preference > 0.5) == t for v, t in zip(verdicts, truth, strict=True)])
    assert by_model > by_majority + 0.04
    assert np.mean([v.confidence for v in verdicts]) == pytest.approx(by_model, abs=0.03)


def test_dawid_skene_with_equal_raters_agrees_with_the_majority():
    rng = np.random.default_rng(1)
    truth = rng.integers(2, size=300)
    said = np.where(rng.random((300, 3)) < 0.85, truth[:, None], 1 - truth[:, None])
    records = [comparison(*("ba"[vote] for vote in row)) for row in said]
    for record, verdict in zip(records, dawid_skene(records), strict=True):
        assert (verdict.preference > 0.5) == (majority(record.votes).preference > 0.5)


def test_dawid_skene_without_votes_knows_nothing():
    assert [v.preference for v in dawid_skene([comparison("skip"), comparison()])] == [0.5, 0.5]
    verdicts = dawid_skene([comparison("a", "a"), comparison("skip")])
    assert verdicts[0].preference > 0.9
    assert (verdicts[1].preference, verdicts[1].num_votes) == (0.5, 0)


@pytest.mark.parametrize("method", ["majority", "share", "weighted", "dawid_skene"])
def test_resolve_keeps_what_has_no_votes_and_drops_what_was_only_skipped(method):
    records = [comparison("a", "a", "a"), comparison("skip"), comparison(preference=0.25)]
    resolved = resolve(records, method)
    assert len(resolved) == 2
    assert resolved[0].preference > 0.9
    assert resolved[0].votes == records[0].votes
    assert resolved[1] is records[2]


def test_resolve_names_the_ways_there_are():
    with pytest.raises(DataError, match=r"'mean'.*majority, share, weighted, dawid_skene"):
        resolve([comparison("a")], "mean")


def test_vote_table_has_a_column_a_rater_and_ordered_codes():
    records = [
        Comparison("p", "x", "y", 0.5, votes=(Vote("ann", "a"), Vote("bob", "both_bad"))),
        Comparison("p", "x", "y", 0.5, votes=(Vote("eve", "b"), Vote("ann", "skip"))),
        Comparison("p", "x", "y", 0.5, votes=(Vote("bob", "tie"), Vote("bob", "a"))),
    ]
    table, raters = vote_table(records)
    assert raters == ["ann", "bob", "eve"]
    assert table.tolist() == [[0, 1, -1], [-1, -1, 2], [-1, 0, -1]]


def test_vote_table_needs_two_raters_on_one_comparison():
    assert vote_table([]) is None
    assert vote_table([comparison("a"), comparison("a", "skip"), comparison()]) is None


def test_real_votes_resolve_to_labels_between_the_extremes(shared_data):
    with gzip.open(shared_data / "pandalm-votes" / "pairs.jsonl.gz", "rt", encoding="utf-8") as stream:
        cast = [json.loads(line)["votes"] for line in stream]
    records = [Comparison("p", "x", "y", 0.5, votes=tuple(Vote(r, c) for r, c in row.items())) for row in cast]
    by_share, by_model = resolve(records, "share"), resolve(records, "dawid_skene")
    gap = [abs(s.preference - d.preference) for s, d in zip(by_share, by_model, strict=True)]
    assert len(by_share) == len(by_model) == len(records)
    assert np.mean(gap) < 0.1
