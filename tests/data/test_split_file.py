import json
from pathlib import Path

import pytest
from helpers.laws import quick
from hypothesis import given, settings
from hypothesis import strategies as st

from keel.core.errors import DataError
from keel.data.formats import DataConfig, read_comparisons, read_prompts, read_rankings, write_jsonl
from keel.data.records import Comparison, Ranking, record_key
from keel.data.split import split
from keel.data.split_file import part_file

WORDS = [
    "keel",
    "holds",
    "the",
    "boat",
    "upright",
    "when",
    "wind",
    "and",
    "water",
    "push",
    "it",
    "over",
    "on",
    "long",
    "cold",
    "grey",
    "northern",
    "sea",
    "days",
]


def asked(number: int, last: str = "please") -> str:
    """Twenty words that are unlike those of another number; `last` makes near-copies."""
    return " ".join(f"{word}{number}" for word in WORDS[:19]) + f" {last}"


def parted(path: Path, records: list, out: str = "out", **settings) -> tuple[list, list]:
    write_jsonl(path, records)
    done = part_file(DataConfig(path=str(path), holdout=settings.pop("holdout", 0.3)), path.parent / out, **settings)
    return tuple(read_prompts(DataConfig(path=str(side), limit=None)) for side in (done.train, done.held_out))


def test_without_near_copies_the_sides_are_those_of_a_recipe(tmp_path):
    prompts = [asked(number) for number in range(200)]
    assert parted(tmp_path / "in.jsonl", prompts) == split(prompts, 0.3)


def test_near_copies_stand_on_the_side_of_the_first(tmp_path):
    prompts = [asked(number, last) for number in range(60) for last in ("please", "now", "thanks")]
    train, held_out = parted(tmp_path / "in.jsonl", prompts)
    assert [{prompt.split()[0] for prompt in side} for side in (train, held_out)] == [
        {prompt.split()[0] for prompt in side} for side in split([asked(number) for number in range(60)], 0.3)
    ]
    assert len(train) + len(held_out) == 180


def test_a_prompt_keeps_its_side_as_rows_are_added(tmp_path_factory):
    path = tmp_path_factory.mktemp("grow") / "in.jsonl"
    some = st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["please", "now", "thanks"])), max_size=12)

    @settings(quick, max_examples=8)
    @given(some, some)
    def law(old, new):
        base = [asked(number) for number in range(20, 40)]  # so that neither side is empty
        first = base + [asked(*one) for one in old]
        before = parted(path, first, "a", replace=True)
        after = parted(path, first + [asked(*one) for one in new], "b", replace=True)
        assert all(set(one) <= set(other) for one, other in zip(before, after, strict=True))
        assert not set(after[0]) & set(after[1])

    law()


@quick
@given(
    st.lists(
        st.builds(
            Ranking,
            st.integers(0, 30).map(asked),
            st.lists(st.sampled_from("vwxyz"), min_size=2, max_size=5, unique=True).map(tuple),
            st.just((3.0, 2.0, 2.0, 1.0, 0.0)),
        ).map(lambda r: Ranking(r.prompt, r.responses, r.scores[: len(r.responses)])),
        min_size=1,
        max_size=20,
    ),
    st.floats(0, 0.9),
)
def test_no_two_pairs_of_a_ranking_are_on_different_sides(rankings, holdout):
    pairs = [pair for ranking in rankings for pair in ranking.pairs()]
    k = [len(ranking.responses) for ranking in rankings]
    assert len(pairs) == sum(n * (n - 1) // 2 for n in k)
    train, held_out = split(pairs, holdout)
    assert not {pair.prompt for pair in train} & {pair.prompt for pair in held_out}
    assert {record_key(pair) for pair in held_out} == {record_key(ranking) for ranking in split(rankings, holdout)[1]}


def test_pairs_of_a_ranking_put_the_better_response_first_and_ties_in_the_middle():
    ranking = Ranking("p", ("x", "y", "z"), (1.0, 3.0, 1.0), ("m", "n", "o"))
    assert ranking.pairs() == (
        Comparison("p", "y", "x", 1.0, models=("n", "m")),
        Comparison("p", "y", "z", 1.0, models=("n", "o")),
        Comparison("p", "x", "z", 0.5, models=("m", "o")),
    )


def test_rows_are_written_as_they_were(tmp_path):
    rows = [{"prompt": asked(n), "chosen": "x", "rejected": "y", "id": n, "meta": {"a": [1, None]}} for n in range(40)]
    (tmp_path / "in.json").write_text(json.dumps(rows))
    done = part_file(DataConfig(path=str(tmp_path / "in.json"), holdout=0.3), tmp_path / "out")
    sides = [json.loads(path.read_text()) for path in (done.train, done.held_out)]
    assert sorted((row for side in sides for row in side), key=lambda row: row["id"]) == rows
    assert (done.num_train, done.num_held_out) == tuple(map(len, sides))
    again = part_file(DataConfig(path=str(tmp_path / "in.json"), holdout=0.3), tmp_path / "csv", suffix=".csv.gz")
    assert len(read_comparisons(DataConfig(path=str(again.train)))) == done.num_train


def test_the_folder_is_a_set_of_its_own(tmp_path):
    rankings = [Ranking(asked(n), ("x", "y"), (1.0, 0.0)) for n in range(40)]
    write_jsonl(tmp_path / "in.jsonl", rankings)
    part_file(DataConfig(path=str(tmp_path / "in.jsonl"), holdout=0.3), tmp_path / "out")
    sides = [read_rankings(DataConfig(path=str(tmp_path / "out"), split=side)) for side in ("train", "held_out")]
    assert sides == list(split(rankings, 0.3))


def test_unusable_rows_stop_or_are_counted_and_an_empty_side_is_an_error(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"prompt": asked(n) if n else ""}) + "\n" for n in range(30)))
    with pytest.raises(DataError, match=r"line 1: prompt is empty.*--on-error drop"):
        part_file(DataConfig(path=str(path)), tmp_path / "out")
    done = part_file(DataConfig(path=str(path), on_error="drop", holdout=0.3), tmp_path / "out")
    assert done.dropped == {"prompt is empty": 1}
    with pytest.raises(DataError, match="is there already"):
        part_file(DataConfig(path=str(path), on_error="drop"), tmp_path / "out")
    write_jsonl(path, ["one prompt"])
    with pytest.raises(DataError, match=r"of 1 prompts none is left for held_out at --holdout 0\.1"):
        part_file(DataConfig(path=str(path)), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_real_prompts_are_parted_and_no_near_copy_crosses(shared_data, tmp_path):
    from keel.data.doctor.similar import near_copies, shingles

    config = DataConfig(path=str(shared_data / "hh-harmless-base"), on_error="drop")
    done = part_file(config, tmp_path / "out")
    sides = [read_prompts(DataConfig(path=str(path))) for path in (done.train, done.held_out)]
    assert done.num_moved > 0 or done.num_torn == 0
    assert not set(sides[0]) & set(sides[1])
    found = near_copies(shingles(sides[0] + sides[1]), 0.8)
    crossing = [pair for pair in found if (pair.first < len(sides[0])) != (pair.second < len(sides[0]))]
    assert len(crossing) <= done.num_torn
