import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import keel
from keel.core.artifacts import Artifact, load_artifact, save_artifact, stage_id
from keel.core.errors import ArtifactError


def save(path: Path, content: str = "weights", **changes: object) -> Artifact:
    def write(folder: Path) -> dict[str, float]:
        (folder / "model").mkdir()
        (folder / "model" / "weights.bin").write_text(content)
        (folder / "notes.txt").write_text("")
        return {"perplexity": 3.5}

    fields = {
        "kind": "policy",
        "stage_id": stage_id("sft", {"a": 1}, ["p"]),
        "parents": ["p"],
        "config": {"a": 1},
        "metrics": lambda: {"loss": 1.0},
    }
    return save_artifact(path, **(fields | changes), write=write)


def test_what_was_saved_is_what_is_loaded(tmp_path):
    saved = save(tmp_path / "sft")
    loaded = load_artifact(tmp_path / "sft", "policy", verify=True)
    assert loaded == saved
    assert loaded.metrics == {"loss": 1.0, "perplexity": 3.5}
    assert loaded.parents == ("p",)
    assert loaded.keel_version == keel.__version__
    assert loaded.created.endswith("Z")


def test_the_id_follows_the_content_and_the_stage_and_not_the_place_or_the_time(tmp_path):
    first = save(tmp_path / "a")
    assert save(tmp_path / "b", metrics={"seconds": 3}).id == first.id
    assert save(tmp_path / "b", "other weights").id != first.id
    assert save(tmp_path / "b", stage_id="another").id != first.id


def test_the_stage_id_changes_with_all_that_decides_the_result():
    base = stage_id("sft", {"rate": 1.0, "seed": 0}, ["a", "b"])
    assert base == stage_id("sft", {"seed": 0, "rate": 1.0}, ("a", "b"))
    others = [("reward", {"rate": 1.0, "seed": 0}, ["a", "b"]), ("sft", {"rate": 1.0, "seed": 1}, ["a", "b"])]
    others += [("sft", {"rate": 1.0, "seed": 0}, ["b", "a"])]
    assert base not in {stage_id(*other) for other in others}


def test_each_kind_of_damage_names_the_file(tmp_path):
    path = tmp_path / "a"
    weights = path / "model" / "weights.bin"

    save(path)
    weights.write_text("weight")
    with pytest.raises(ArtifactError, match=r"weights\.bin: the file is damaged, 6 bytes instead of 7"):
        load_artifact(path)

    save(path)
    weights.write_text("weighty")
    load_artifact(path)  # same length: only a full check sees it
    with pytest.raises(ArtifactError, match=r"weights\.bin: the file is damaged, its SHA-256"):
        load_artifact(path, verify=True)

    weights.unlink()
    with pytest.raises(ArtifactError, match=r"weights\.bin: the file is missing"):
        load_artifact(path)

    save(path)
    record = path / "artifact.json"
    record.write_text(record.read_text().replace('"loss": 1.0', '"loss": 0.1'))
    with pytest.raises(ArtifactError, match=r"artifact\.json: the file is damaged or was edited"):
        load_artifact(path)
    record.write_text(record.read_text()[:50])
    with pytest.raises(ArtifactError, match=r"artifact\.json: the file is damaged, not JSON"):
        load_artifact(path)
    record.write_text("[]")
    with pytest.raises(ArtifactError, match=r"artifact\.json: the file is damaged or was edited"):
        load_artifact(path)


def test_what_is_no_artifact_or_another_kind_is_refused(tmp_path):
    save(tmp_path / "a")
    with pytest.raises(ArtifactError, match="expected a reward_model artifact, found a policy"):
        load_artifact(tmp_path / "a", "reward_model")
    with pytest.raises(ArtifactError, match="there is no such folder"):
        load_artifact(tmp_path / "b")
    with pytest.raises(ArtifactError, match=r"the folder holds no artifact\.json"):
        load_artifact(tmp_path)


def test_a_failing_writer_leaves_the_old_artifact(tmp_path):
    saved = save(tmp_path / "a")

    def metrics() -> dict[str, float]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        save(tmp_path / "a", "new", metrics=metrics)
    assert load_artifact(tmp_path / "a", verify=True) == saved


def test_the_record_lists_every_file_with_its_sha256(tmp_path):
    save(tmp_path / "a")
    record = json.loads((tmp_path / "a" / "artifact.json").read_text())
    assert sorted(record["files"]) == ["model/weights.bin", "notes.txt"]
    assert record["files"]["notes.txt"] == {
        "bytes": 0,
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }


SAVER = """
import sys
from pathlib import Path
from keel.core.artifacts import save_artifact

def write(folder):
    for number in range(40):
        (folder / f"{number}.bin").write_bytes(bytes([number]) * 200_000)

print("ready", flush=True)
save_artifact(Path(sys.argv[1]), kind="policy", stage_id="s", parents=[], config={}, metrics={}, write=write)
print("saved", flush=True)
"""


def test_kill_at_any_moment_leaves_nothing_or_a_whole_artifact(tmp_path):
    seen = set()
    for attempt in range(8):
        path = tmp_path / str(attempt)
        process = subprocess.Popen([sys.executable, "-c", SAVER, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        if attempt < 7:
            time.sleep(0.008 * attempt)
            process.send_signal(signal.SIGKILL)
        process.communicate()
        if path.exists():
            assert load_artifact(path, verify=True).kind == "policy"
            assert len(list(path.iterdir())) == 41
        seen.add(path.exists())
        save(path)  # the same place can be used at once, and no leavings stay
        assert [leaving.name for leaving in tmp_path.iterdir() if leaving.name.startswith(f".{attempt}.")] == []
    assert seen == {True, False}
