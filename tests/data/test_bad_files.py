"""Files as people really have them: what is wrong is said with its place and what to do, and never a traceback."""

import gzip
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from keel.cli.main import main
from keel.core.errors import DataError
from keel.data import json_rows, rows
from keel.data.formats import DataConfig, read
from keel.data.records import Demonstration
from keel.data.transcribe import transcribe

GOOD = {"prompt": "p", "response": "r"}
LINE = json.dumps(GOOD) + "\n"

CASES = {
    # name of the file, what it holds, what is said
    "empty": ("a.jsonl", b"", "holds no records"),
    "empty gzip": ("a.jsonl.gz", b"", "holds no records"),
    "empty array": ("a.json", b"[]", "holds no records"),
    "empty csv": ("a.csv", b"", "a.csv is empty: a header line"),
    "empty parquet": ("a.parquet", b"", "damaged Parquet"),
    "mixed formats": ("a.jsonl", LINE + '{"text": "t"}\n', "formats are mixed: prompt_response at"),
    "mixed formats far down": (
        "a.jsonl",
        LINE * 30 + '{"instruction": "i", "output": "o"}\n',
        "line 31: this record is written as alpaca, the others as prompt_response: formats are mixed",
    ),
    "an array named lines": ("a.jsonl", "[" + LINE.strip() + "]\n", "If the file is one JSON array, name it .json."),
    "a name twice": (
        "a.jsonl",
        '{"prompt": "p", "prompt": "q", "response": "r"}\n',
        "line 1: the name 'prompt' stands twice in one object",
    ),
    "a name twice in a message": (
        "a.json",
        '[{"messages": [{"role": "user", "role": "assistant", "content": "x"}]}]',
        "line 1: the name 'role' stands twice",
    ),
    "cut short": ("a.jsonl", LINE + LINE[:15], "line 2: broken JSON at column 16 .*is the file cut short"),
    "array cut short": ("a.json", "[" + LINE + ",", "line 2: the array never ends"),
    "array with a fault": ("a.json", f'[{LINE}, {{"prompt": }}]', r"a\.json, line 2, column 14: broken JSON"),
    "half a surrogate": ("a.jsonl", '{"prompt": "\\ud83d", "response": "r"}\n', "prompt holds half of a surrogate"),
    "UTF-16": ("a.csv", "prompt,response\n".encode("utf-16"), "a.csv is UTF-16; UTF-8 text was expected. Save it as"),
    "Latin-1": (
        "a.csv",
        "prompt,response\np,caf\xe9\n".encode("latin-1"),
        "is not UTF-8 .*byte 0xe9.* Save it as UTF-8",
    ),
    "gzip without its suffix": ("a.jsonl", gzip.compress(LINE.encode()), "is packed with gzip.* Add .gz to its name"),
    "Parquet without its suffix": ("a.jsonl", b"PAR1....", "is Parquet; .* Name it .parquet"),
    "truncated gzip": ("a.jsonl.gz", gzip.compress((LINE * 9999).encode())[:-20], "is a damaged gzip file"),
    "semicolons": ("a.csv", "prompt;response\np;r\n", "parted by semicolons, commas were expected of .csv"),
    "tabs": ("a.csv", "prompt\tresponse\np\tr\n", "parted by tabs, .* or name it .tsv"),
    "quote not closed": (
        "a.csv",
        'prompt,response\np,r\np,"never\n' + "p,r\n" * 5,
        r"line 3: broken CSV .*read up to line 8\)\. A quote inside a quoted cell is written twice",
    ),
    "quote in the middle": ("a.csv", 'prompt,response\np,"say "hi" now"\n', "line 2: broken CSV"),
    "a cell too many": ("a.csv", "prompt,response\np,r,s\n", "line 2: 3 cells, but the header names 2 columns"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_file_is_explained(tmp_path, name):
    file, content, said = CASES[name]
    if file.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    config = DataConfig(path=str(tmp_path / file))
    with pytest.raises(DataError, match=said):
        read(config, "demonstrations")
    with pytest.raises(DataError, match=said):
        transcribe(config, tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("action", ["show", "convert", "split"])
def test_the_command_line_says_it_in_one_message(tmp_path, action, name):
    file, content, _ = CASES[name]
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    options = {"show": [], "convert": [str(tmp_path / "out.jsonl")], "split": ["--out", str(tmp_path / "parts")]}
    error = io.StringIO()
    with redirect_stderr(error), redirect_stdout(io.StringIO()):
        status = main(["data", action, str(tmp_path / file), *options[action]])
    assert "Traceback" not in error.getvalue()
    assert status in (0, 2)
    assert status == 2 or action == "show"  # show counts what it leaves out


READABLE = {
    "byte order mark": b"\xef\xbb\xbf" + LINE.encode(),
    "Windows line ends": LINE.replace("\n", "\r\n").encode(),
    "byte order marks of files put end to end": (b"\xef\xbb\xbf" + LINE.encode()) * 2,
    "blank lines and no end": b"\n\n" + LINE.strip().encode(),
}


@pytest.mark.parametrize("name", READABLE)
def test_what_only_looks_bad_is_read(tmp_path, name):
    (tmp_path / "a.jsonl").write_bytes(READABLE[name])
    records = read(DataConfig(path=str(tmp_path / "a.jsonl")), "demonstrations").records
    assert set(records) == {Demonstration("p", "r")}


TRICKS = [
    "\u202eright to left\u202c",
    "\u2067isolated\u2069",
    "nul\x00inside",
    "zero\u200bwidth",
    "\ufeffmark",
    "e\u0301",
    "\u2028",
]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_marks_and_controls_are_kept_as_they_are_and_shown_as_codes(tmp_path, capsys, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    records = [Demonstration(f"prompt {trick}", f"{trick} response") for trick in TRICKS]
    lines = [json.dumps({"prompt": record.prompt, "response": record.response}) for record in records]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    transcribe(DataConfig(path=str(tmp_path / "in.jsonl")), tmp_path / f"out{suffix}")
    assert read(DataConfig(path=str(tmp_path / f"out{suffix}")), "demonstrations").records == records
    assert main(["data", "show", str(tmp_path / f"out{suffix}")]) == 0
    shown = capsys.readouterr().out
    assert "\\u202e" in shown
    assert "\u202e" not in shown


def test_a_line_that_is_too_long_is_refused_in_pieces_and_the_next_one_read(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "MAX_LINE", 1000)
    long = json.dumps({"prompt": "p", "response": "x" * 5000}) + "\n"
    (tmp_path / "a.jsonl").write_text(LINE + long + LINE)
    with pytest.raises(DataError, match="line 2: the line is longer than"):
        read(DataConfig(path=str(tmp_path / "a.jsonl")), "demonstrations")
    reading = read(DataConfig(path=str(tmp_path / "a.jsonl"), on_error="drop"), "demonstrations")
    assert (len(reading.records), reading.dropped) == (2, {"line too long": 1})
    assert reading.records[1].source.endswith(":3")
    (tmp_path / "b.json").write_text('[{"prompt": "p", "response": "' + "x" * 5000)
    monkeypatch.setattr(json_rows, "CHUNK", 500)
    with pytest.raises(DataError, match=r"line 1: a record is longer than .* or a quote or bracket that opens in it"):
        read(DataConfig(path=str(tmp_path / "b.json")), "demonstrations")


@pytest.mark.parametrize("chunk", [7, 64, 1000])
def test_an_array_is_the_same_however_it_is_cut(tmp_path, monkeypatch, chunk):
    records = [
        {"prompt": f'p {n} \\ " \u2603 {{[', "response": "r\n" * n, "n": [n * 1.5e3, True, None]} for n in range(1, 9)
    ]
    (tmp_path / "a.json").write_text("\ufeff \n" + json.dumps(records, indent=1, ensure_ascii=chunk > 50))
    monkeypatch.setattr(json_rows, "CHUNK", chunk)
    found = list(rows.read_file(tmp_path / "a.json"))
    assert [row.values for row in found if isinstance(row, rows.Row)] == records
    text = (tmp_path / "a.json").read_text().split("\n")
    assert all(text[row.place.number - 1].strip() == "{" for row in found if isinstance(row, rows.Row))


def test_a_folder_of_mixed_formats_names_both_files(tmp_path):
    (tmp_path / "train-1.jsonl").write_text(LINE * 30)
    (tmp_path / "train-2.jsonl").write_text('{"text": "t"}\n')
    with pytest.raises(
        DataError, match=r"prompt_response at .*train-1\.jsonl, line 1 and text at .*train-2\.jsonl, line 1"
    ):
        read(DataConfig(path=str(tmp_path)), "demonstrations")


def test_a_column_inside_an_object_is_named_with_a_dot(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"fields": {"question": "p", "deep": {"answer": "r"}}}\n')
    columns = {"prompt": "fields.question", "response": "fields.deep.answer"}
    config = DataConfig(path=str(tmp_path / "a.jsonl"), columns=columns)
    assert read(config, "demonstrations").records == [Demonstration("p", "r")]
    with pytest.raises(DataError, match=r"there is no column 'fields\.none'"):
        read(config.model_copy(update={"columns": {"prompt": "fields.none"}}), "prompts")


def test_a_file_that_stops_in_the_middle_leaves_nothing_behind(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"prompt,response\n" + b"p,r\n" * 9999)[:-9])
    for out in ("b.jsonl", "b.csv", "b.json.gz"):
        with pytest.raises(DataError, match="damaged gzip"):
            transcribe(DataConfig(path=str(tmp_path / "a.csv.gz")), tmp_path / out)
    assert [path.name for path in Path(tmp_path).iterdir()] == ["a.csv.gz"]
