from keel.data.formats import DataConfig, read_comparisons, write_jsonl
from keel.data.records import Comparison, Demonstration, Message, Vote
from keel.data.snapshot import snapshot_id

RECORDS = [
    Comparison("Hi", "Hello", "No", 0.75, votes=(Vote("ann", "a", 2.0),), source="a.jsonl:1"),
    Comparison((Message("user", "é"),), "x", "y", 0.5, source="a.jsonl:2"),
]


def test_the_id_survives_writing_and_reading_elsewhere(tmp_path):
    write_jsonl(tmp_path / "elsewhere.jsonl", RECORDS)
    again = read_comparisons(DataConfig(path=str(tmp_path / "elsewhere.jsonl")))
    assert again[0].source != RECORDS[0].source
    assert snapshot_id(again) == snapshot_id(RECORDS)


def test_any_change_of_content_changes_the_id():
    ids = {snapshot_id(records) for records in (RECORDS, RECORDS[::-1], RECORDS[:1], [*RECORDS, RECORDS[0]], [])}
    changed = Comparison("Hi", "Hello", "No", 0.75, votes=(Vote("bob", "a", 2.0),))
    ids.add(snapshot_id([changed, RECORDS[1]]))
    assert len(ids) == 6


def test_the_id_of_a_record_is_stable_across_releases():
    # printf '{"prompt":"Hi","response":"Hello"}\n' | sha256sum
    assert (
        snapshot_id([Demonstration("Hi", "Hello")])
        == "b86259864a1c5793eb1611984f95ac7c9ec64190d0d85f2926a2f4188aec731d"
    )
