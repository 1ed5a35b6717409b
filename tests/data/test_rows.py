import gzip
import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.laws import quick
from hypothesis import given
from hypothesis import strategies as st

from keel.core.errors import DataError
from keel.data.rows import READERS, RecordError, Row, find_files, kind_of, read_file


def written(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def places(path: Path) -> list[tuple[int, object]]:
    return [(row.place.number, row.values) for row in read_file(path) if isinstance(row, Row)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.ndjson", "a.json"])
def test_json_lines_count_blank_lines_and_any_line_ending(tmp_path, name):
    path = written(tmp_path / name, '\ufeff{"x": 1}\r\n\n{"x": "a\\u2028b\u2028"}')
    assert places(path) == [(1, {"x": 1}), (3, {"x": "a\u2028b\u2028"})]


def test_json_array_gives_the_line_where_each_record_begins(tmp_path):
    path = written(tmp_path / "a.json", json.dumps([{"x": 1}, {"x": 2, "y": [3]}, {"x": 4}], indent=2))
    assert places(path) == [(2, {"x": 1}), (5, {"x": 2, "y": [3]}), (11, {"x": 4})]


def test_csv_gives_the_line_where_each_record_begins_even_with_line_breaks_in_cells(tmp_path):
    path = written(tmp_path / "a.csv", 'x,y\n1,"two\nlines"\n"say ""hi""",4\n')
    assert places(path) == [(2, {"x": "1", "y": "two\nlines"}), (4, {"x": 'say "hi"', "y": "4"})]


def test_csv_cells_may_be_long(tmp_path):
    assert places(written(tmp_path / "a.csv", "x\n" + "long " * 100_000)) == [(2, {"x": "long " * 100_000})]


def test_tsv_and_text_lines(tmp_path):
    assert places(written(tmp_path / "a.tsv", "x\ty\n1\t2\n")) == [(2, {"x": "1", "y": "2"})]
    assert places(written(tmp_path / "a.txt.gz", "one \n\n two\n")) == [(1, {"text": "one "}), (3, {"text": " two"})]


def test_parquet_counts_records(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    values = [{"x": 1, "turns": [{"role": "user", "content": "hi"}]}, {"x": None, "turns": []}]
    parquet.write_table(arrow.Table.from_pylist(values), tmp_path / "a.parquet")
    assert places(tmp_path / "a.parquet") == [(1, values[0]), (2, values[1])]
    row = next(iter(read_file(tmp_path / "a.parquet")))
    assert isinstance(row, Row)
    assert str(row.place).endswith("a.parquet, record 1")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"x": 1}\n{"x": \n', "a.jsonl, line 2: broken JSON at column 6"),
        ("a.jsonl", '{"x": 1}\n[1]\n', "a.jsonl, line 2: found list [1], expected a JSON object"),
        ("a.jsonl", b'{"x": 1}\n{"x": "\xe9"}\n', "a.jsonl, line 2: byte 8 (0xe9) is not UTF-8"),
        ("a.jsonl", "[" * 100_000, "a.jsonl, line 1: JSON nested too deeply"),
        ("a.json", '[{"x": 1}, 3]', "a.json, line 1: found int 3"),
        ("a.csv", "x,y\n1,2,3\n", "a.csv, line 2: 3 cells, but the header names 2 columns"),
        ("a.csv", "x,y\n1\n", "a.csv, line 2: 1 cells, but the header names 2 columns"),
        ("a.txt", b"\xff\n", "a.txt, line 1: byte 1 (0xff) is not UTF-8"),
    ],
)
def test_a_line_that_cannot_be_parsed_comes_out_as_an_error_with_its_place(tmp_path, name, content, message):
    errors = [row for row in read_file(written(tmp_path / name, content)) if isinstance(row, RecordError)]
    assert [message in str(error) for error in errors] == [True], [str(error) for error in errors]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"x": 1},\n {"x": }]', "a.json, line 2, column 8: broken JSON (Expecting value)"),
        ("a.json", '[{"x": 1},\n', "a.json, line 2: the array never ends"),
        ("a.csv", "", "a.csv is empty: a header line"),
        ("a.csv", "x,x\n1,2\n", "a.csv, line 1: column 'x' stands twice"),
        ("a.csv", 'x,y\n1,"two\n', "broken CSV"),
        ("a.csv", b"x\n\xff\n", "a.csv is not UTF-8"),
        ("a.parquet", b"no parquet", "a.parquet, record 1: damaged Parquet"),
    ],
)
def test_a_damaged_file_stops_with_the_reason(tmp_path, name, content, message):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=re.escape(message)):
        list(read_file(written(tmp_path / name, content)))


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"x" + data, lambda data: data[:20] + b"zz"])
def test_a_damaged_gzip_file_stops_with_the_reason(tmp_path, damage):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(damage(gzip.compress(json.dumps({"x": "some words " * 50}).encode())))
    with pytest.raises(DataError, match=r"a\.jsonl\.gz is a damaged gzip file"):
        list(read_file(path))


def test_suffixes_are_known_through_gz_and_case():
    assert [kind_of(Path(name)) for name in ("a.JSONL.GZ", "b.csv", "README")] == [".jsonl", ".csv", ""]


def test_a_folder_gives_the_files_of_the_split(tmp_path):
    for name in ("train-00000.parquet", "train-00001.parquet", "test.jsonl", "training.csv", "notes.md", "._train.csv"):
        written(tmp_path / name, "")
    assert [f.name for f in find_files(tmp_path, "train")] == ["train-00000.parquet", "train-00001.parquet"]
    assert [f.name for f in find_files(tmp_path, "test")] == ["test.jsonl"]


def test_the_only_file_of_a_folder_needs_no_split_name(tmp_path):
    written(tmp_path / "pairs.jsonl.gz", "")
    assert [f.name for f in find_files(tmp_path, "train")] == ["pairs.jsonl.gz"]


def test_what_cannot_be_found_says_what_there_is(tmp_path):
    with pytest.raises(DataError, match="is a folder without data files"):
        find_files(tmp_path, "train")
    written(tmp_path / "ratings.jsonl", "")
    written(tmp_path / "dpo.jsonl", "")
    with pytest.raises(DataError, match=r"none is named after the split 'train': dpo\.jsonl, ratings\.jsonl"):
        find_files(tmp_path, "train")
    with pytest.raises(DataError, match=r"does not exist\. Did you mean ratings\.jsonl"):
        find_files(tmp_path / "rating.jsonl", "train")
    with pytest.raises(DataError, match=r"The folder .*nowhere does not exist either"):
        find_files(tmp_path / "nowhere" / "a.jsonl", "train")
    with pytest.raises(DataError, match="no suffix that keel reads"):
        find_files(written(tmp_path / "a.docx", ""), "train")
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        list(read_file(folder))


@pytest.mark.parametrize("suffix", [*READERS, ".jsonl.gz"])
def test_whatever_a_file_holds_reading_gives_rows_or_a_data_error(tmp_path_factory, suffix):
    path = tmp_path_factory.mktemp("fuzz") / f"a{suffix}"
    pieces = st.sampled_from(
        [b"{", b"}", b"[", b"]", b'"', b",", b":", b"\n", b"x", b"1", b"\xff", b'{"x": 1}', b"PAR1"]
    )

    @quick
    @given(st.binary(max_size=40) | st.lists(pieces, max_size=12).map(b"".join))
    def law(data):
        path.write_bytes(data)
        with suppress(DataError):
            assert all(isinstance(row, Row | RecordError) for row in read_file(path))

    law()
