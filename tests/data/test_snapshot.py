import json
import shutil

import pytest

from keel.core.errors import ArtifactError, ConfigError, DataError
from keel.data.formats import DataConfig, read_comparisons, to_values, write_jsonl
from keel.data.records import Comparison, Vote
from keel.data.snapshot import canonical_lines, hash_of_lines, read_snapshot, snapshot_at, write_snapshot
from keel.stages.paths import located

RECORDS = [
    Comparison("Name a prime.", "Seven.", "Nine.", 1.0, votes=(Vote("ann", "a"), Vote("bob", "a"))),
    Comparison("Name a square.", "Four.", "Five.", 0.75, weight=2.0),
    Comparison("Grüße wen?", "Dich.", "Ihn.", 0.5),
]
VALUES = [to_values(record) for record in RECORDS]


@pytest.fixture
def snapshot(tmp_path):
    return write_snapshot(tmp_path, "primes", VALUES, {"kind": "comparisons"})


def test_what_is_read_from_a_snapshot_is_what_was_frozen(snapshot):
    found = read_comparisons(DataConfig(path=str(snapshot.records.parent)))
    assert sorted(found, key=lambda r: r.a) == sorted(RECORDS, key=lambda r: r.a)
    assert snapshot.manifest["records"] == 3
    assert snapshot.manifest["kind"] == "comparisons"


def test_neither_the_order_of_records_nor_of_keys_nor_the_file_format_changes_the_hash(tmp_path):
    turned = [dict(reversed(list(values.items()))) for values in reversed(VALUES)]
    assert hash_of_lines(canonical_lines(turned)) == hash_of_lines(canonical_lines(VALUES))
    table = tmp_path / "pairs.csv"
    table.write_text("prompt,response_a,response_b,preference\nName a prime.,Seven.,Nine.,a\n")
    lines = tmp_path / "pairs.jsonl"
    write_jsonl(lines, [Comparison("Name a prime.", "Seven.", "Nine.", 1.0)])
    read = [canonical_lines(map(to_values, read_comparisons(DataConfig(path=str(file))))) for file in (table, lines)]
    assert read[0] == read[1]


def test_a_record_that_stands_twice_makes_another_hash():
    assert hash_of_lines(canonical_lines([*VALUES, VALUES[0]])) != hash_of_lines(canonical_lines(VALUES))


def test_the_order_in_the_folder_depends_on_the_content_alone(tmp_path):
    one = write_snapshot(tmp_path / "x", "s", VALUES, {})
    other = write_snapshot(tmp_path / "y", "s", reversed(VALUES), {})
    assert one.records.read_bytes() == other.records.read_bytes()


def test_the_same_records_under_the_same_name_are_the_same_snapshot(snapshot, tmp_path):
    before = (tmp_path / "primes" / "snapshot.json").read_bytes()
    assert write_snapshot(tmp_path, "primes", reversed(VALUES), {"kind": "other"}).id == snapshot.id
    assert (tmp_path / "primes" / "snapshot.json").read_bytes() == before


def test_other_records_never_replace_a_snapshot(snapshot, tmp_path):
    with pytest.raises(ArtifactError, match="never changes: give these records another --name"):
        write_snapshot(tmp_path, "primes", VALUES[:2], {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match="already exists"):
        write_snapshot(tmp_path, "folder", VALUES, {})
    assert read_snapshot(tmp_path / "primes").id == snapshot.id


@pytest.mark.parametrize("name", ["records.jsonl", "snapshot.json"])
def test_every_changed_byte_is_an_error(snapshot, tmp_path, name):
    file = tmp_path / "primes" / name
    whole = file.read_bytes()
    for at in range(0, len(whole), 7):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for other in ("records.jsonl", "snapshot.json"):
            (copy / other).write_bytes((tmp_path / "primes" / other).read_bytes())
        (copy / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        if json_equal(copy / "snapshot.json", file) and name == "snapshot.json":
            continue  # white space between the values says nothing
        with pytest.raises(ArtifactError):
            read_snapshot(copy)
    assert read_snapshot(tmp_path / "primes").id == snapshot.id


def json_equal(one, other):
    try:
        return json.loads(one.read_bytes()) == json.loads(other.read_bytes())
    except ValueError:
        return False


def test_a_snapshot_is_named_by_its_hash(snapshot, tmp_path):
    named = f"{tmp_path}/primes@{snapshot.content_hash[:10]}"
    assert len(read_comparisons(DataConfig(path=named))) == 3
    assert snapshot_at(named) == tmp_path / "primes"
    with pytest.raises(ArtifactError, match=r"is the snapshot primes@\w{12}, and @deadbeef was asked for"):
        read_comparisons(DataConfig(path=f"{tmp_path}/primes@deadbeef"))


def test_a_recipe_finds_the_snapshot_beside_it_by_folder_and_by_hash(snapshot, tmp_path):
    for name in ("primes", snapshot.id):
        assert located(name, tmp_path) == str(tmp_path / name)
    assert located("primes@deadbeef", tmp_path / "elsewhere") == "primes@deadbeef"


def test_what_is_no_snapshot_is_said_to_be_none(tmp_path):
    assert snapshot_at(tmp_path) is None
    with pytest.raises(ArtifactError, match=r"is no snapshot: it has no snapshot\.json"):
        read_snapshot(tmp_path)
    with pytest.raises(DataError):
        read_comparisons(DataConfig(path=str(tmp_path / "primes@deadbeef")))


def test_missing_records_are_an_error(snapshot, tmp_path):
    (tmp_path / "primes" / "records.jsonl").unlink()
    with pytest.raises(ArtifactError, match="the snapshot is not whole"):
        read_snapshot(tmp_path / "primes")


def test_the_files_of_a_snapshot_are_read_only(snapshot):
    assert {file.stat().st_mode & 0o222 for file in snapshot.records.parent.iterdir()} == {0}


@pytest.mark.parametrize("name", ["", "../up", "a@b", ".hidden", "a b"])
def test_names_are_plain(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot name a snapshot"):
        write_snapshot(tmp_path, name, VALUES, {})


def test_nothing_cannot_be_frozen(tmp_path):
    with pytest.raises(ArtifactError, match="no records to freeze"):
        write_snapshot(tmp_path, "empty", [], {})
