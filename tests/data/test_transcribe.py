"""Every format into every other, every kind of file, and what is lost on the way."""

import gzip
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from helpers.laws import quick
from hypothesis import given
from hypothesis import strategies as st

from keel.core.errors import DataError
from keel.data.dialects import FORMATS
from keel.data.formats import DataConfig, read, write_jsonl
from keel.data.losses import losses, mirrored
from keel.data.records import Comparison, Demonstration, LabelledText, Message, Ranking, Rating, Vote
from keel.data.transcribe import transcribe, writable

CHAT = (Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "Why?"))
DEMONSTRATIONS = [Demonstration("Hi, you", 'Hello\n"there"'), Demonstration("Ho", " Well ")]
COMPARISONS = [Comparison("Hi", "Hello", "No", 1.0), Comparison("Ho", "x, y", "z", 1.0)]
RATINGS = [Rating("Hi", "Hello", True), Rating("Ho", "No", False)]
RANKINGS = [
    Ranking("Hi", ("Hello", "No", "So"), (2.0, 1.0, 1.0), ("m", "n", "o")),
    Ranking("Ho", ("x", "y"), (0.5, -1)),
]
BY_KIND: dict[str, list[Any]] = {
    "demonstrations": DEMONSTRATIONS,
    "comparisons": COMPARISONS,
    "ratings": RATINGS,
    "rankings": RANKINGS,
    "prompts": ["Hi", "Ho"],
}
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".ndjson", ".csv", ".csv.gz", ".tsv", ".parquet")


def written(path: Path, *records: Any) -> DataConfig:
    write_jsonl(path, records)
    return DataConfig(path=str(path))


BARE: dict[str, list[Any]] = {
    "text": [Demonstration("", "Once"), Demonstration("", "Twice")],
    "text_comparison": [Comparison("", "x", "y", 0.25), Comparison("", "x", "z", 0.5)],
    "labelled_text": [LabelledText("fine", True), LabelledText("poor", False)],
}
"""Records without a prompt, by the format that they need."""


@pytest.mark.parametrize("name", [name for name, d in FORMATS.items() if d.write])
def test_records_come_back_equal_from_every_format(tmp_path, name):
    kind = FORMATS[name].gives[0]
    config = written(tmp_path / "in.jsonl", *BARE.get(name, BY_KIND.get(kind, [])))
    if name == "preference_implicit":  # two texts share a first word or two, and nobody knows where the prompt ended
        config = written(tmp_path / "in.jsonl", *(replace(c, prompt=CHAT) for c in COMPARISONS))
    as_chat = FORMATS[name].chats != "both"
    before = read(config.model_copy(update={"as_chat": as_chat}), kind).records
    done = transcribe(config, tmp_path / "out.jsonl", name)
    after = read(DataConfig(path=str(tmp_path / "out.jsonl"), as_chat=as_chat), kind)
    assert (done.to, after.format, done.lost) == (name, name, {})
    assert [losses(one, other) for one, other in zip(before, after.records, strict=True)] == [[], []]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["demonstrations", "comparisons", "ratings", "rankings", "prompts"])
def test_records_come_back_equal_from_every_kind_of_file(tmp_path, kind, suffix):
    if "parquet" in suffix:
        pytest.importorskip("pyarrow")
    records = BY_KIND[kind]
    if kind == "comparisons":
        votes = (Vote("ann", "a", 2.0), Vote("bob", "tie"))
        records = [*records, Comparison("He", "a\rb", "c\r\n", 0.75, 2.0, 0.5, votes, models=("m", ""))]
    transcribe(written(tmp_path / "in.jsonl", *records), tmp_path / f"out{suffix}")
    assert read(DataConfig(path=str(tmp_path / f"out{suffix}")), kind).records == records


def test_text_files_hold_one_text_a_line(tmp_path):
    texts = [Demonstration("", "Once upon a time"), Demonstration("", " there was")]
    transcribe(written(tmp_path / "in.jsonl", *texts), tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text() == "Once upon a time\n there was\n"
    config = written(tmp_path / "two.jsonl", Demonstration("", "two\nlines"))
    with pytest.raises(DataError, match="one text a line, and this one has line breaks"):
        transcribe(config, tmp_path / "two.txt")


@pytest.mark.parametrize(
    "name", ["prompt_completion", "preference", "unpaired", "ranking", "alpaca", "llamafactory_kto"]
)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_chats_stay_chats(tmp_path, name, suffix):
    if "parquet" in suffix:
        pytest.importorskip("pyarrow")
    kind = FORMATS[name].gives[0]
    records = [type(r)(CHAT, *(getattr(r, f) for f in r.__slots__[1:])) for r in BY_KIND[kind]]
    done = transcribe(written(tmp_path / "in.jsonl", *records), tmp_path / f"out{suffix}", name)
    assert not done.lost
    assert read(DataConfig(path=str(tmp_path / f"out{suffix}")), kind).records == records


def test_a_table_refuses_chats_among_texts(tmp_path):
    config = written(tmp_path / "in.jsonl", Demonstration(CHAT, "x"))
    with pytest.raises(DataError, match="a cell of a table holds a text, and prompt is a chat"):
        transcribe(config, tmp_path / "out.csv")
    transcribe(config, tmp_path / "chats.csv", "messages")
    assert read(DataConfig(path=str(tmp_path / "chats.csv")), "demonstrations").records == [Demonstration(CHAT, "x")]


LOSSES = [
    (Comparison("p", "x", "y", 1.0, votes=(Vote("ann", "a"),)), "preference", "votes"),
    (Comparison("p", "x", "y", 0.75), "preference", "how sure the preference is"),
    (Comparison("p", "x", "y", 0.5), "preference", "records that cannot be written: a tie has no chosen answer"),
    (Comparison("p", "x", "y", 1.0, weight=2.0), "preference", "weights"),
    (Comparison("p", "x", "y", 1.0, margin=0.5), "hh", "margins"),
    (Comparison("p", "x", "y", 1.0, models=("m", "n")), "openai_preference", "which model wrote what"),
    (Comparison(CHAT, "x", "y", 1.0), "hh", "records that cannot be written: HH dialogues have no system turns"),
    (Comparison("The sky", " is blue", " is red", 1.0), "preference_implicit", "where prompts end and responses begin"),
    (Comparison("p", "x", "y", 1.0), "prompt_only", "responses and what was said of them"),
    (Comparison("p", "x", "y", 1.0), "prompt_response", "rejected responses and what was said of them"),
    (Comparison("p", "x", "y", 1.0), "unpaired", "which two responses were compared, and how sure the preference is"),
    (Ranking("p", ("x", "y"), (2, 1)), "comparison", "scores (their order is kept)"),
    (Ranking(CHAT, ("x", "y"), (2, 1)), "ultrafeedback", "records that cannot be written: UltraFeedback's instruction"),
    (
        Demonstration((Message("user", "a"), Message("tool", "b"), Message("user", "c")), "x"),
        "alpaca",
        "records that cannot be written: alpaca's history holds user and assistant in turn",
    ),
]


@pytest.mark.parametrize(("record", "to", "what"), LOSSES, ids=[f"{to}: {what[:40]}" for _, to, what in LOSSES])
def test_what_would_be_lost_is_named_and_refused_without_lossy(tmp_path, record, to, what):
    config, out = written(tmp_path / "in.jsonl", record), tmp_path / "out.jsonl"
    with pytest.raises(DataError) as error:
        transcribe(config, out, to)
    assert what in str(error.value)
    assert "in.jsonl, line 1" in str(error.value)
    assert "--lossy" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    fine = (
        COMPARISONS[0]
        if isinstance(record, Comparison)
        else BY_KIND["rankings" if isinstance(record, Ranking) else "demonstrations"][0]
    )
    write_jsonl(tmp_path / "in.jsonl", [record, fine])
    done = transcribe(config, out, to, lossy=True)
    assert any(lost.startswith(what) for lost in done.lost)
    assert out.exists()


def test_the_side_that_a_response_stood_on_is_no_loss(tmp_path):
    one = Comparison("p", "x", "y", 0.0, models=("m", "n"))
    assert mirrored(one) == Comparison("p", "y", "x", 1.0, models=("n", "m"))
    assert not transcribe(written(tmp_path / "in.jsonl", one), tmp_path / "out.jsonl", "preference").lost


def test_columns_that_nobody_reads_go_along_where_the_format_takes_them(tmp_path):
    row = {"prompt": "p", "chosen": "x", "rejected": "y", "id": "7", "domain": {"name": "law"}, "messages": []}
    (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n")
    config = DataConfig(path=str(tmp_path / "in.jsonl"))
    transcribe(config, tmp_path / "out.jsonl", "comparison")
    kept = json.loads((tmp_path / "out.jsonl").read_text())
    assert (kept["id"], kept["domain"], kept["response_a"]) == ("7", {"name": "law"}, "x")
    with pytest.raises(DataError, match=r"column id .*column domain"):
        transcribe(config, tmp_path / "strict.jsonl", "openai_preference")


def test_what_a_reader_leaves_out_inside_its_columns_is_a_loss(tmp_path):
    row = {
        "instruction": "p",
        "completions": [{"response": r, "overall_score": s, "critique": "Hm."} for r, s in ("x1", "y2")],
    }
    (tmp_path / "in.json").write_text(json.dumps([row]))
    with pytest.raises(DataError, match=r"completions\[\]\.critique"):
        transcribe(DataConfig(path=str(tmp_path / "in.json")), tmp_path / "out.jsonl", "ranking")


def test_unusable_records_stop_or_are_counted(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "p", "response": "r"}\n{"prompt": "p", "response": ""}\n')
    config = DataConfig(path=str(tmp_path / "in.jsonl"))
    with pytest.raises(DataError, match=r"line 2: response is empty.*--on-error drop"):
        transcribe(config, tmp_path / "out.jsonl", "alpaca")
    done = transcribe(config.model_copy(update={"on_error": "drop"}), tmp_path / "out.jsonl", "alpaca")
    assert (done.num_read, done.num_written, done.dropped) == (2, 1, {"response is empty": 1})


def test_what_is_there_is_not_written_over(tmp_path):
    config = written(tmp_path / "in.jsonl", "one")
    with pytest.raises(DataError, match="is the file that is read"):
        transcribe(config, tmp_path / "in.jsonl", replace=True)
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(DataError, match="is there already"):
        transcribe(config, tmp_path / "out.jsonl")
    transcribe(config, tmp_path / "out.jsonl", replace=True)
    assert json.loads((tmp_path / "out.jsonl").read_text()) == {"prompt": "one"}
    with pytest.raises(DataError, match="no suffix that keel writes"):
        transcribe(config, tmp_path / "out.docx")
    with pytest.raises(DataError, match="is a folder"):
        transcribe(config, tmp_path)


def test_the_same_records_make_the_same_packed_bytes(tmp_path):
    config = written(tmp_path / "in.jsonl", "one", "two")
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        transcribe(config, tmp_path / name)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).count(b"\n") == 2


def test_a_format_without_the_kind_says_what_can_be_written(tmp_path):
    with pytest.raises(
        DataError, match=r"which has demonstrations, prompts; preference holds comparisons\. It can be w"
    ):
        transcribe(written(tmp_path / "in.jsonl", DEMONSTRATIONS[0]), tmp_path / "out.jsonl", "preference")
    with pytest.raises(DataError, match="scale is what a vendor delivers"):
        transcribe(written(tmp_path / "b.jsonl", COMPARISONS[0]), tmp_path / "out.jsonl", "scale")


def test_every_pair_of_formats_that_share_a_kind_converts(tmp_path):
    for kind, records in BY_KIND.items():
        config = written(tmp_path / f"{kind}.jsonl", *records)
        for number, name in enumerate(writable(FORMATS[read(config, kind).format].gives)):
            if name not in ("text", "text_comparison", "preference_implicit"):
                done = transcribe(config, tmp_path / f"{kind}-{number}.jsonl", name, lossy=True)
                assert done.num_written
                wanted = kind if kind == "prompts" else FORMATS[name].gives[0]
                assert read(DataConfig(path=str(done.out)), wanted).records


plain = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
pairs = st.builds(
    Comparison, plain, plain.map("{} a".format), plain.map("{} b".format), st.sampled_from([0.0, 0.25, 0.5, 1.0])
)


@pytest.mark.parametrize(
    ("to", "suffix"), product(["preference", "hh", "rewardbench", "comparison"], [".jsonl", ".csv"])
)
def test_whatever_the_texts_what_is_not_reported_lost_comes_back(tmp_path_factory, to, suffix):
    folder = tmp_path_factory.mktemp("law")

    @quick
    @given(st.lists(pairs, min_size=1, max_size=3))
    def law(records):
        config, out = written(folder / "in.jsonl", *records), folder / f"out{suffix}"
        try:
            done = transcribe(config, out, to, replace=True)
        except DataError as error:
            assert "would lose" in str(error)  # noqa: PT017
            return
        assert not done.lost
        again = read(DataConfig(path=str(out), as_chat=to == "hh"), "comparisons").records
        before = read(DataConfig(path=config.path, as_chat=to == "hh"), "comparisons").records
        assert [losses(one, other) for one, other in zip(before, again, strict=True)] == [[] for _ in records]

    law()
