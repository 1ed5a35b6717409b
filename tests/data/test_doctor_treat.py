import json
from dataclasses import replace

import pytest
from helpers.patients import comparisons, demonstrations

from keel.core.errors import DataError
from keel.data.doctor.examine import examine
from keel.data.doctor.patient import open_patient, patient_of
from keel.data.doctor.treat import change_log, freeze, hard_pairs, treat, write_treated
from keel.data.formats import DataConfig, read_comparisons, write_jsonl
from keel.data.records import Vote
from keel.data.snapshot import read_snapshot

PAIRS = comparisons(80)


@pytest.fixture
def ill(tmp_path):
    """80 sound pairs with columns of their own, and six faults that can be left out."""
    lines = [
        {"prompt": p.prompt, "response_a": p.a, "response_b": p.b, "preference": "a" if p.preference else "b", "id": n}
        for n, p in enumerate(PAIRS)
    ]
    faults = [
        lines[0] | {"id": "copy"},
        lines[1] | {"response_a": lines[1]["response_b"], "response_b": lines[1]["response_a"], "id": "swapped"},
        lines[2] | {"response_a": "", "id": "empty"},
        lines[3] | {"response_b": lines[3]["response_a"], "id": "twins"},
        lines[4] | {"response_b": "\u200b\u200b", "id": "invisible"},
    ]
    faults[1]["preference"] = "b" if lines[1]["preference"] == "a" else "a"
    file = tmp_path / "ill.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *faults]) + "{broken\n", encoding="utf-8")
    return file


def examined(file, **known):
    return examine(open_patient(DataConfig(path=str(file), **known)))


def test_the_fixes_leave_the_sound_rows_as_they_were(ill, tmp_path):
    out = tmp_path / "well.jsonl"
    before = ill.read_bytes()
    treatment = treat(examined(ill))
    write_treated(treatment, out)
    assert ill.read_bytes() == before
    assert out.read_text().splitlines() == [json.dumps(json.loads(line)) for line in before.decode().splitlines()[:80]]
    assert treatment.counts == {
        "duplicates": 2,
        "empty_answers": 2,
        "identical_answers": 1,
        "unreadable": 1,
    }


def test_every_record_left_out_is_listed_with_its_place_and_reason(ill, tmp_path):
    out = tmp_path / "well.jsonl"
    write_treated(treat(examined(ill)), out)
    listed = [json.loads(line) for line in change_log(out).read_text().splitlines()]
    assert sorted(int(change["source"].rsplit(":", 1)[1]) for change in listed) == [81, 82, 83, 84, 85, 86]
    assert all(change["rule"] and change["reason"] for change in listed)


def test_a_treated_set_has_nothing_left_to_leave_out(ill, tmp_path):
    write_treated(treat(examined(ill)), tmp_path / "well.jsonl")
    again = examined(tmp_path / "well.jsonl")
    assert treat(again).changes == ()
    assert {finding.rule for finding in again.findings if finding.severity != "ok"} == {"size"}


def test_leaked_prompts_leave_the_file_and_not_the_other(ill, tmp_path):
    held = tmp_path / "eval.jsonl"
    write_jsonl(held, [replace(pair, a="Another answer.", b="Yet another.") for pair in PAIRS[:3]])
    other = open_patient(DataConfig(path=str(held)))
    examination = examine(open_patient(DataConfig(path=str(ill)), [other]))
    treatment = treat(examination)
    assert not {pair.prompt for pair in PAIRS[:3]} & {record.prompt for record in treatment.records}
    assert len(treatment.records) == 77


def test_nothing_is_ever_written_over(ill, tmp_path):
    out = tmp_path / "well.jsonl"
    treatment = treat(examined(ill))
    write_treated(treatment, out)
    with pytest.raises(DataError, match="never writes over anything"):
        write_treated(treatment, out)
    with pytest.raises(DataError, match="never writes over anything"):
        write_treated(treatment, ill)
    with pytest.raises(DataError, match="the doctor writes JSON lines"):
        write_treated(treatment, tmp_path / "well.csv")


def test_a_target_without_suffix_is_a_snapshot(ill, tmp_path):
    snapshot = write_treated(treat(examined(ill)), tmp_path / "snapshots" / "well")
    assert snapshot is not None
    assert snapshot.id.startswith("well@")
    found = read_comparisons(DataConfig(path=str(tmp_path / "snapshots" / "well")))
    assert sorted(record.a for record in found) == sorted(record.a for record in PAIRS)
    manifest = read_snapshot(tmp_path / "snapshots" / "well").manifest
    assert manifest["left_out"]["duplicates"] == 2
    assert manifest["sources"][0]["file"] == "ill.jsonl"
    assert len(manifest["sources"][0]["sha256"]) == 64
    assert "duplicates" in manifest["doctor"]["findings"]


def test_a_snapshot_knows_its_raters_models_and_parent(tmp_path):
    voted = [replace(pair, votes=(Vote("ann", "a"), Vote("bob", "b"))) for pair in PAIRS]
    first = freeze(treat(examine(patient_of(voted))), tmp_path, "votes", {"guide_version": "3"})
    assert first.manifest["raters"] == {"ann": 80, "bob": 80}
    assert first.manifest["guide_version"] == "3"
    assert sum(first.manifest["models"].values()) == 160
    second = freeze(treat(examined(tmp_path / "votes")), tmp_path, "again")
    assert second.manifest["parent"] == first.id
    assert second.content_hash == first.content_hash


def test_a_set_of_which_nothing_would_stay_is_an_error():
    twins = [replace(pair, b=pair.a, preference=0.5) for pair in PAIRS[:5]]
    with pytest.raises(DataError, match="would leave no record at all"):
        treat(examine(patient_of(twins)))


def test_a_file_without_a_readable_record_is_an_error(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"prompt": "", "response": ""}\n')
    with pytest.raises(DataError, match=r"no record that can be read.*bad\.jsonl:1: prompt is empty"):
        open_patient(DataConfig(path=str(tmp_path / "bad.jsonl")))


def test_a_chat_that_waits_among_demonstrations_is_a_fault(tmp_path):
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    rows = [{"messages": turns}, {"messages": turns[:1]}, {"messages": turns}]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    finding = examined(tmp_path / "chats.jsonl").finding("chat_structure")
    assert finding is not None
    assert finding.figures["by_fault"] == {"cannot be read": 1}
    assert finding.examples[0].source.endswith("chats.jsonl:2")


def test_prompts_and_ratings_are_examined_too(tmp_path):
    prompts = [{"prompt": "Why is it so?"}, {"prompt": "Why not?"}, {"prompt": "Why is it so?"}]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    found = examined(tmp_path / "prompts.jsonl")
    assert found.patient.kind == "prompts"
    assert [treat(found).changes[0].source.rsplit(":", 1)[1]] == ["3"]
    ratings = [{"prompt": p["prompt"], "completion": "So.", "label": True} for p in prompts]
    (tmp_path / "ratings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ratings))
    found = examined(tmp_path / "ratings.jsonl")
    assert found.patient.kind == "ratings"
    assert treat(found).counts == {"duplicates": 1}


def test_rankings_are_examined_pair_by_pair_and_leave_as_a_whole(tmp_path):
    row = {"prompt": "Why?", "responses": ["One.", "Two.", "Three."], "ranks": [2, 1, 3]}
    (tmp_path / "rankings.jsonl").write_text(json.dumps(row) + "\n")
    found = examined(tmp_path / "rankings.jsonl")
    assert len(found.patient.entries) == 3
    write_treated(treat(found), tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text()) == row


def test_without_comparisons_there_are_no_hard_pairs():
    assert hard_pairs(examine(patient_of(demonstrations(20)))) == []
