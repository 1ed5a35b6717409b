"""Votes as they are written, and the real sets against reference libraries."""

import gzip
import json
import warnings
from itertools import combinations

import krippendorff
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_fleiss

from keel.core.errors import ConfigError, DataError
from keel.data.look_alikes import look_alikes
from keel.data.snapshot import write_snapshot
from keel.data.vote_files import read_votes
from keel.data.vote_report import vote_report
from keel.data.vote_rows import Reading


def written(tmp_path, rows, name="votes.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def plain_rows(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def by_hand(name, folder):
    """Votes {item: {rater: class}} of a real set, read by other means than keel's."""
    if name == "mtbench":
        found = {}
        for row in plain_rows(folder / "mtbench-votes/votes.jsonl.gz"):
            if row["judge"] == "gpt4_pair":
                continue
            word = {"model_a": row["model_a"], "model_b": row["model_b"]}.get(row["winner"], "tie")
            pair = min(row["model_a"], row["model_b"]), max(row["model_a"], row["model_b"])
            word = word if word == "tie" else str(pair.index(word))
            found.setdefault((row["question_id"], row["turn"], pair), {})[row["judge"]] = word
        return found
    if name == "vader":
        rows = plain_rows(folder / "vader-lexicon/lexicon.jsonl.gz")
        return {n: {k: str(np.sign(r)) for k, r in enumerate(row["ratings"])} for n, row in enumerate(rows)}
    path = {"pandalm": "pandalm-votes/pairs", "tulu": "tulu-human-votes/pairs", "xsum": "xsum-factuality-votes/items"}
    rows = plain_rows(folder / f"{path[name]}.jsonl.gz")
    if name == "tulu":
        return {row["id"]: {k: str(np.sign(v["score"])) for k, v in row["votes"].items()} for row in rows}
    return {row["id"]: {k: v for k, v in row["votes"].items() if v} for row in rows}


REAL = {
    "pandalm": ("pandalm-votes/pairs", 796, 3, 0.920, 0.865),
    "tulu": ("tulu-human-votes/pairs", 756, 16, 0.523, 0.299),
    "mtbench": ("mtbench-votes/votes", 1355, 65, 0.674, 0.486),
    "xsum": ("xsum-factuality-votes/items", 1414, 3, 0.960, 0.776),
    "vader": ("vader-lexicon/lexicon", 7517, 10, 0.778, 0.630),
}


@pytest.mark.parametrize("name", REAL)
def test_a_real_set_is_recognised_and_its_figures_are_those_of_the_reference_libraries(shared_data, name):
    file, items, raters, agreement, alpha = REAL[name]
    report = vote_report(read_votes(shared_data / f"{file}.jsonl.gz"))
    figures = report.to_dict()
    assert (figures["layout"], figures["items"], figures["raters"]) == (name, items, raters)
    assert round(figures["pairwise_agreement"], 3) == agreement
    assert round(figures["krippendorff_alpha"], 3) == alpha

    votes = by_hand(name, shared_data)
    who = sorted({rater for cast in votes.values() for rater in cast})
    classes = sorted({word for cast in votes.values() for word in cast.values()})
    table = np.full((len(who), len(votes)), np.nan)
    for n, cast in enumerate(votes.values()):
        for rater, word in cast.items():
            table[who.index(rater), n] = classes.index(word)
    assert figures["krippendorff_alpha"] == pytest.approx(
        krippendorff.alpha(reliability_data=table, level_of_measurement="nominal"), abs=1e-9
    )
    shares = [np.mean([a == b for a, b in combinations(cast.values(), 2)]) for cast in votes.values() if len(cast) > 1]
    assert figures["pairwise_agreement"] == pytest.approx(np.mean(shares), abs=1e-9)
    counts = np.stack([(table == code).sum(axis=0) for code in range(len(classes))], axis=1)
    if len(set(counts.sum(axis=1))) == 1:  # statsmodels takes equal numbers of votes only
        assert figures["fleiss_kappa"] == pytest.approx(statsmodels_fleiss(counts), abs=1e-9)
    names = {
        str(rater) if name != "vader" else f"rater {rater + 1}": row for rater, row in zip(who, table, strict=True)
    }
    for pair in figures["cohen_kappa"]:
        first, second = (names[rater] for rater in pair["raters"])
        both = ~np.isnan(first) & ~np.isnan(second)
        assert pair["items"] == both.sum()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # undefined where both only ever say one thing
            expected = cohen_kappa_score(first[both], second[both], labels=range(len(classes)))
        kappa = np.nan if pair["kappa"] is None else pair["kappa"]
        assert kappa == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_items_whose_votes_all_tie_count(shared_data):
    rows = plain_rows(shared_data / "pandalm-votes/pairs.jsonl.gz")
    tied = sum(set(row["votes"].values()) == {"tie"} for row in rows)
    assert tied > 0
    file = read_votes(shared_data / "pandalm-votes/pairs.jsonl.gz")
    assert (file.votes == 1).all(axis=1).sum() == tied


def test_ordinal_and_full_scores_are_there_for_the_asking(shared_data):
    panda = vote_report(read_votes(shared_data / "pandalm-votes/pairs.jsonl.gz"))
    figures = panda.to_dict()
    asked = vote_report(panda.file, "ordinal").agreement.alpha
    assert figures["krippendorff_alpha_ordinal"] == pytest.approx(asked.value, abs=1e-12)
    assert figures["krippendorff_alpha_ordinal_low"] == pytest.approx(asked.low, abs=0.01)
    path = shared_data / "vader-lexicon/lexicon.jsonl.gz"
    table = np.array([row["ratings"] for row in plain_rows(path)], dtype=float).T
    for scores, data in (("sign", np.sign(table)), ("full", table)):
        found = vote_report(read_votes(path, Reading(scores=scores)), "ordinal").agreement.alpha.value
        assert found == pytest.approx(
            krippendorff.alpha(reliability_data=data, level_of_measurement="ordinal"), abs=1e-9
        )


def test_sides_are_read_where_they_are_told(shared_data):
    rows = plain_rows(shared_data / "tulu-human-votes/pairs.jsonl.gz")
    cast = [vote for row in rows for vote in row["votes"].values()]
    first = sum((v["score"] > 0) == (v["shown_first"] == "a") and v["score"] != 0 for v in cast)
    decided = sum(v["score"] != 0 for v in cast)
    bias = vote_report(read_votes(shared_data / "tulu-human-votes/pairs.jsonl.gz")).position
    assert bias is not None
    assert (bias.num_first, bias.num_second, bias.num_ties) == (first, decided - first, len(cast) - decided)
    assert bias.share.value == pytest.approx(first / decided)


def test_gpt4_is_left_out_of_mtbench_unless_asked_for(shared_data):
    path = shared_data / "mtbench-votes/votes.jsonl.gz"
    assert any("1800 votes of gpt4_pair are not counted" in note for note in read_votes(path).notes)
    everybody = read_votes(path, Reading(raters=("*",)))
    assert len(everybody.raters) == 66
    assert len(everybody.items) == 1800


def test_the_four_ways_of_writing_the_same_votes_give_the_same_table(tmp_path):
    said = {"ann": "abtab", "bob": "abbab", "eve": "batab"}
    words = {"a": "a", "b": "b", "t": "tie"}
    items = [{rater: words[text[n]] for rater, text in said.items()} for n in range(5)]
    objects = [{"id": n, "votes": cast} for n, cast in enumerate(items)]
    lists = [{"id": n, "votes": [{"rater": r, "choice": w} for r, w in c.items()]} for n, c in enumerate(items)]
    rows = [{"id": n, "rater": r, "vote": w.upper()} for n, cast in enumerate(items) for r, w in cast.items()]
    columns = [{"id": n, **cast} for n, cast in enumerate(items)]
    tables = [read_votes(written(tmp_path, way, f"{n}.jsonl")) for n, way in enumerate((objects, lists, rows, columns))]
    assert [file.layout.kind for file in tables] == ["votes", "votes", "rows", "columns"]
    for file in tables:
        assert file.raters == ("ann", "bob", "eve")
        assert file.categories == ("a", "tie", "b")
        np.testing.assert_array_equal(file.votes, tables[0].votes)
    asked = read_votes(tmp_path / "3.jsonl", Reading(rater_columns=("ann", "eve"), item=("id",)))
    assert asked.raters == ("ann", "eve")


def test_the_order_of_the_models_does_not_matter(tmp_path):
    rows = [
        {"judge": "ann", "model_a": "x", "model_b": "y", "question": "q", "winner": "model_a"},
        {"judge": "bob", "model_a": "y", "model_b": "x", "question": "q", "winner": "model_b"},
        {"judge": "eve", "model_a": "y", "model_b": "x", "question": "q", "winner": "tie"},
    ]
    file = read_votes(written(tmp_path, rows))
    assert len(file.items) == 1
    assert file.votes.tolist() == [[0, 0, 1]]


def test_a_second_vote_on_an_item_replaces_the_first_and_is_told(tmp_path):
    rows = [
        {"item": 1, "rater": "ann", "vote": "a"},
        {"item": 1, "rater": "bob", "vote": "a"},
        {"item": 1, "rater": "ann", "vote": "b"},
        {"item": 2, "rater": "ann", "vote": "a", "time": 20.0},
        {"item": 2, "rater": "ann", "vote": "b", "time": 10.0},
        {"item": 2, "rater": "bob", "vote": "tie", "time": 10.0},
    ]
    path = written(tmp_path, rows)
    file = read_votes(path)
    assert file.votes.tolist() == [[2, 0], [0, 1]]  # the last in the file, or the newest where times are known
    assert file.repeats.tolist() == [[0, 0, 2], [0, 2, 0]]
    assert f"2 times a rater voted again on the same item (first: {path}, line 3, ann)" in file.notes[0]
    repeats = vote_report(file).repeats
    assert repeats is not None
    assert (repeats.num_repeats, repeats.agreement.value) == (2, 0.0)


def test_times_and_sides_count_in_tables_and_as_dates(tmp_path):
    table = tmp_path / "votes.csv"
    table.write_text("item,rater,vote,time,swapped\n1,ann,a,200,true\n1,ann,b,100,false\n1,bob,a,1,False\n")
    file = read_votes(table)
    assert file.votes.tolist() == [[0, 0]]  # the newest vote of ann, not her last
    assert file.first_shown.tolist() == [0, 0, 1]  # a with b first, b with a first, a with a first
    dates = ["2026-02-01T10:00:00Z", "2026-01-31T23:00:00", "2026-02-01T10:30:00+02:00"]
    rows = [{"item": 1, "rater": "ann", "vote": vote, "time": at} for vote, at in zip("abb", dates, strict=True)]
    assert read_votes(written(tmp_path, rows)).votes.tolist() == [[0]]


def test_a_rater_who_left_out_the_first_items_is_found(tmp_path):
    table = tmp_path / "columns.csv"
    table.write_text("item,ann,bob,eve,note\n1,a,a,,b\n2,b,b,b,hard to tell\n3,a,b,a,twice the same\n")
    file = read_votes(table)
    assert file.raters == ("ann", "bob", "eve")  # most notes are no choice
    assert file.votes.tolist() == [[0, 0, -1], [2, 2, 2], [0, 2, 0]]
    with pytest.raises(ConfigError, match="there is no column zed"):
        read_votes(table, Reading(rater_columns=("ann", "zed")))


def test_a_snapshot_is_read_by_its_folder(tmp_path):
    rows = [{"prompt": f"q{n}", "response_a": "x", "response_b": "y", "votes": {"ann": "a"}} for n in range(3)]
    write_snapshot(tmp_path, "first", rows, {})
    assert read_votes(tmp_path / "first").votes.tolist() == [[0], [0], [0]]


def test_an_item_with_a_number_is_named_by_it(tmp_path):
    rows = [{"item": 7, "rater": rater, "vote": vote} for rater, vote in (("ann", "a"), ("bob", "b"))]
    assert read_votes(written(tmp_path, rows)).items == ("7",)


def test_what_does_not_count_is_told(tmp_path):
    rows = [{"id": n, "votes": {"ann": "a", "bob": "skip", "eve": "tie"}} for n in range(30)]
    rows[3]["votes"]["ann"] = "aa"
    rows[4]["votes"]["ann"] = None
    rows[5]["votes"] = "a"
    rows[6]["votes"] = [1]
    rows[7]["votes"] = [{"choice": "a"}]
    path = written(tmp_path, rows)
    path.write_text(path.read_text() + "{broken\n" + json.dumps({"id": 99, "note": "no votes here"}) + "\n")
    notes = " | ".join(read_votes(path).notes)
    assert f'1 (unknown word for a vote, "aa"); first: {path}, line 4' in notes
    assert f"1 (votes are str, neither an object nor a list); first: {path}, line 6" in notes
    assert f"1 (vote in a list that is no object with rater and choice); first: {path}, line 7" in notes
    assert f"1 (vote without a rater); first: {path}, line 8" in notes
    assert "1 (broken JSON)" in notes
    assert f"1 (row without the columns that hold item, rater and vote); first: {path}, line 32" in notes


def test_names_that_look_alike_are_told_and_not_merged(tmp_path):
    rows = [{"id": n, "votes": {"ann": "a", "аnn": "b", "Bob ": "a", "bob\u200b": "a"}} for n in range(3)]
    file = read_votes(written(tmp_path, rows))
    assert len(file.raters) == 4
    alike = [note for note in file.notes if "look alike" in note]
    assert [note.count('"') for note in alike] == [4, 4]
    assert '"\\u0430nn"' in alike[0]  # a Cyrillic letter shows as what it is


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["ann", "Ann", "ANN "], [("ann", "Ann", "ANN ")]),
        (["rené", "rene\u0301", "rene"], [("rené", "rene\u0301", "rene")]),
        (["ο", "o", "о"], [("ο", "o", "о")]),
        (["rater_1", "rater_2", "李", "王"], []),
    ],
)
def test_look_alikes(names, groups):
    assert look_alikes(names) == groups


def test_classes_of_any_name_are_read_and_text_is_refused(tmp_path):
    rows = [{"item": n, "rater": r, "label": ["spam", "ham", "eggs"][n % 3]} for n in range(9) for r in "xy"]
    file = read_votes(written(tmp_path, rows))
    assert (file.categories, file.ordered) == (("eggs", "ham", "spam"), False)
    with pytest.raises(ConfigError, match="no order that keel knows"):
        vote_report(file, "ordinal")
    rows = [{"item": n, "rater": r, "label": f"this is answer {n} by {r}"} for n in range(60) for r in "xy"]
    with pytest.raises(DataError, match="120 different things"):
        read_votes(written(tmp_path, rows))


def test_numbers_keep_their_order_and_signs_become_sides(tmp_path):
    likert = read_votes(written(tmp_path, [{"item": 1, "rater": r, "rating": n} for n, r in ((5, "x"), (1, "y"))]))
    assert (likert.categories, likert.votes.tolist()) == (("1", "5"), [[1, 0]])
    scores = [{"id": 1, "votes": {"x": {"score": 2}, "y": {"score": -1}, "z": {"score": 0}}}]
    assert read_votes(written(tmp_path, scores)).votes.tolist() == [[0, 2, 1]]
    full = read_votes(written(tmp_path, scores), Reading(scores="full"))
    assert (full.categories, full.votes.tolist()) == (("-1", "0", "2"), [[2, 0, 1]])


def test_agreement_of_a_csv_and_a_row_without_an_item(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text("item,annotator,choice\n1,ann,A\n1,bob,B\n,ann,A\n2,ann,tie\n2,bob,tie\n")
    file = read_votes(path)
    assert file.votes.tolist() == [[0, 2], [1, 1]]
    assert "left out: 1 (no item)" in file.notes[0]


STRANGE = [
    None, "", 0, -1, 2.5, float("nan"), True, "a", "tie", "skip", "yes", "x" * 300, "\ud800", "\u202eann", [1], {}, [[]],
    {"rater": "x"}, {"choice": "a"}, [{"rater": {"q": 1}, "choice": "b", "swapped": True, "time": "now"}], [1, "x"],
    {"ann": "a", "bob": "b"}, {"ann": {"score": 1}, "bob": {"score": -2, "shown_first": "a"}}, 10**400,
]  # fmt: skip
COLUMNS = [
    "id",
    "votes",
    "rater",
    "vote",
    "winner",
    "verdict",
    "verdict_swapped",
    "model_a",
    "model_b",
    "ratings",
    "ann",
]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_stands_in_a_file_the_answer_is_a_report_or_a_reason(tmp_path, seed):
    rng = np.random.default_rng(seed)
    readings = [Reading(), Reading(preset="mtbench"), Reading(vote="votes"), Reading(rater_columns=("ann", "vote"))]
    for _ in range(60):
        columns = rng.choice(COLUMNS, size=rng.integers(1, 7), replace=False)
        rows = [{str(c): STRANGE[rng.integers(len(STRANGE))] for c in columns} for _ in range(rng.integers(1, 6))]
        path = written(tmp_path, rows)
        for how in readings:
            try:
                json.dumps(vote_report(read_votes(path, how)).to_dict(), allow_nan=False)
            except (DataError, ConfigError) as error:
                assert str(path) in str(error)  # noqa: PT017 - the error is allowed, not expected
