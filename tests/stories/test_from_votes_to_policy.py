"""From pairs that a model answered, over raters and a snapshot, to a policy whose lineage leads back to the votes."""

import json
import shutil

import pytest
from helpers.projects import begin, join, judge_all
from helpers.recipes import PROMPTS, Workplace, answers

from keel.core.artifacts import load_artifact
from keel.core.errors import ArtifactError, ConfigError, GateError
from keel.stages.collect import collect
from keel.stages.lineage import lineage
from keel.stages.promote import FILE, promote, promotions, standing
from keel.stages.studio_snapshots import export
from keel.store.rows import NewItem
from keel.store.store import Store

SOURCE = {"model": "sft", "path": "runs/first", "content": "cd" * 32, "response_seed": 7}
DATA = "studio.sqlite::help"


def items() -> list[NewItem]:
    """Better and worse answers in turn as a and b; the last ten prompts hold golden pairs."""
    out = []
    for number, prompt in enumerate(PROMPTS):
        better, worse = answers(number)
        a, b = (better, worse) if number % 2 else (worse, better)
        gold = None if number < 40 else "a" if number % 2 else "b"
        out.append(NewItem(prompt=prompt, a=a, b=b, gold=gold, provenance={"a": SOURCE, "b": SOURCE}))
    return out


def better(item) -> str:
    return "a" if "thank" in item.a else "b"


def mostly(item) -> str:
    return "tie" if item.id % 5 == 0 else better(item)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("votes"))
    with begin(place.folder / "studio.sqlite", items()) as store:
        place.names = judge_all(store, {"ann": better, "bob": mostly, "cem": better})
        place.snapshot = collect(store, "help", name="week-1", labels="dawid_skene").snapshot
        collect(store, "help", name="golden-1", golden=True)
        export(store, place.snapshot, place.folder / "copies")
    return place


def data(**more) -> dict:
    sets = {"comparisons": {"path": f"{DATA}@week-1", "holdout": 0.25}, "golden": {"path": f"{DATA}@golden-1"}}
    return {**sets, **more}


@pytest.fixture(scope="module")
def ran(place):
    return place.run(data=data(), reward={"epochs": 4})


def test_the_lineage_of_the_policy_ends_in_the_snapshot_its_guide_raters_and_generators(place, ran):
    found = lineage(ran.artifact("ppo"))
    (snapshot,) = [ancestor.artifact for ancestor in found if ancestor.artifact.kind == "snapshot"]
    assert snapshot.config == {"name": "week-1", "content_hash": place.snapshot.content_hash}
    kinds = {ancestor.artifact.kind: ancestor.depth for ancestor in reversed(found)}
    assert kinds["policy"] < kinds["reward_model"] < kinds["comparison_set"] < kinds["snapshot"]
    manifest = json.loads((snapshot.path / "snapshot.json").read_text())
    assert manifest["guide_version"] == 1
    assert {rater["rater"] for rater in manifest["raters"]} == set(place.names.values())
    assert manifest["content"] == {f"sft@{'cd' * 6}": 80}
    records = [json.loads(line) for line in (snapshot.path / "records.jsonl").read_text().splitlines()]
    assert {record["provenance"]["a"]["response_seed"] for record in records} == {7}


def test_the_same_snapshot_from_a_folder_trains_nothing_again(place, ran):
    before = ran.trained()
    again = place.run(data=data(comparisons={"path": "copies/week-1", "holdout": 0.25}), reward={"epochs": 4})
    assert again.trained() == before
    by_hash = f"{DATA}@{place.snapshot.content_hash[:10]}"
    again = place.run(data=data(comparisons={"path": by_hash, "holdout": 0.25}), reward={"epochs": 4})
    assert again.trained() == before


def test_votes_that_come_later_change_no_run(place, ran, tmp_path):
    shutil.copytree(place.folder, tmp_path / "later")
    with Store.open(tmp_path / "later" / "studio.sqlite") as store, store.writing() as tx:
        project = tx.projects.by_name("help")
        tx.items.remove(tx.items.find(project.id).items[0].id, now=1e6)
    before = ran.trained()
    place.folder, folder = tmp_path / "later", place.folder
    try:
        again = place.run(data=data(), reward={"epochs": 4}, model={"path": str(folder / "model")})
    finally:
        place.folder = folder
    assert again.trained() == before


def test_a_project_without_a_snapshot_is_no_training_data(place):
    with pytest.raises(ConfigError, match="keel collect"):
        place.run(data=data(comparisons={"path": DATA}), only="reward", to="none")
    with pytest.raises(ConfigError, match="PGPASSWORD"):
        place.run(
            data=data(comparisons={"path": "postgresql://me:secret@db/keel::help@week-1"}), only="reward", to="none"
        )
    with pytest.raises(ArtifactError, match="no such database"):
        place.run(data=data(comparisons={"path": "other.sqlite::help@week-1"}), only="reward", to="none")


def test_a_damaged_copy_is_found(place):
    made = place.run(data=data(golden=None), only="reward", to="damaged")
    (folder,) = (made.directory / "artifacts").glob("snapshot-*")
    records = folder / "records.jsonl"
    text = records.read_text()
    records.write_text(text.replace("thank", "thanx", 1))
    with pytest.raises(ArtifactError, match="changed since it was frozen"):
        place.run(data=data(golden=None), only="reward", to="damaged")


def test_a_reward_model_that_passed_the_probe_is_promoted_step_by_step(ran, tmp_path):
    registry = tmp_path / "registry"
    with pytest.raises(GateError, match="never a candidate"):
        promote(ran.directory, registry, stage="production", by="ann", why="at once")
    entry = promote(ran.directory, registry, by="ann", why="first model")
    assert entry.artifact == ran.artifact("reward").id
    assert entry.evidence["snapshots"][0]["name"] == "week-1"
    assert entry.evidence["golden"]["decided_pairs"] == 10
    promote(ran.directory, registry, what="policy", by="ann", why="and its policy")
    promote(ran.directory, registry, stage="production", by="bob", why="a quiet week")
    assert [(p.what, p.stage, p.by) for p in promotions(registry)] == [
        ("reward", "candidate", "ann"),
        ("policy", "candidate", "ann"),
        ("reward", "production", "bob"),
    ]
    assert standing(registry)["reward", "production"].why == "a quiet week"


def test_promotions_are_only_added_and_a_torn_line_counts_for_nothing(ran, tmp_path):
    promote(ran.directory, tmp_path, by="ann", why="first")
    first = (tmp_path / FILE).read_bytes()
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"what": "rew')  # killed here
    assert len(promotions(tmp_path)) == 1
    promote(ran.directory, tmp_path, by="ann", why="second")
    assert (tmp_path / FILE).read_bytes().startswith(first)
    assert [p.why for p in promotions(tmp_path)] == ["first", "second"]
    (tmp_path / FILE).write_bytes(first[:30] + b"\n" + first)
    with pytest.raises(ArtifactError, match="line 1"):
        promotions(tmp_path)


def test_without_a_golden_probe_nothing_is_promoted(place, tmp_path):
    plain = place.run(data=data(golden=None), only="reward", to="plain")
    with pytest.raises(GateError, match=r"data\.golden"):
        promote(plain.directory, tmp_path, by="ann", why="it looks good")
    assert promotions(tmp_path) == []


def test_what_failed_the_probe_is_not_promoted(place, tmp_path):
    place.write(
        "wrong.jsonl",
        [{"prompt": p, "chosen": answers(n)[1], "rejected": answers(n)[0]} for n, p in enumerate(PROMPTS[40:], 40)],
    )
    failed = place.run(data=data(golden={"path": "wrong.jsonl"}), reward={"epochs": 4}, only="reward", to="failed")
    assert failed.stages["reward"]["golden_passed"] is False
    with pytest.raises(GateError, match="not learned what seniors see"):
        promote(failed.directory, tmp_path, by="ann", why="it looks good")
    seen = place.run(data=data(golden={"path": f"{DATA}@week-1"}), reward={"epochs": 4}, only="reward", to="failed")
    assert seen.stages["reward"]["golden_seen"] > 0
    with pytest.raises(GateError, match="were trained on"):
        promote(seen.directory, tmp_path, by="ann", why="it looks good")


def test_an_override_stands_in_the_promotion(place, tmp_path):
    with begin(tmp_path / "odds.sqlite", items()) as store:
        judge_all(store, {"ann": better, "bob": lambda item: "a", "cem": lambda item: "b"})
        join(store, "dora")
        collect(store, "help", name="odd")
    odd = f"{tmp_path / 'odds.sqlite'}::help@odd"
    changes = data(comparisons={"path": odd, "holdout": 0.25}, override_agreement="a pilot, nothing is served")
    ran = place.run(data=changes, reward={"labels": "majority", "epochs": 4}, only="reward", to="override")
    entry = promote(ran.directory, tmp_path / "registry", by="ann", why="to see it work")
    assert entry.evidence["overrides"] == ["a pilot, nothing is served"]


def test_changed_files_are_not_promoted(place, ran, tmp_path):
    shutil.copytree(ran.directory, tmp_path / "run")
    folder = tmp_path / "run" / "artifacts" / ran.stages["reward"]["artifact"] / "model"
    weights = next(folder.glob("*.safetensors"))
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(bytes(raw))
    load_artifact(folder.parent)
    with pytest.raises(ArtifactError, match="damaged"):
        promote(tmp_path / "run", tmp_path / "registry", by="ann", why="nobody will notice")


LABELLER = """
from keel.data.records import Comparison

def judge(pairs):
    return [Comparison(p.prompt, p.a, p.b, float(len(p.a) <= len(p.b))) for p in pairs]
"""


def test_a_reward_model_refreshed_in_rounds_is_probed_again_and_the_policy_stands_by_the_last_probe(place, tmp_path):
    place.write("raters.py", LABELLER)
    rounds = {"count": 2, "comparisons": 12, "labeller": "raters.py:judge"}
    ran = place.run(data=data(), reward={"epochs": 4}, ppo={"updates": 1}, rounds=rounds, evaluate=None, to="rounds")
    assert [stage for stage in ran.trained() if stage.startswith("golden")] == ["golden", "golden 2"]
    assert 0 <= ran.events("round")[0]["golden_accuracy"] <= 1
    probes = [load_artifact(path) for path in (ran.directory / "artifacts").glob("golden-*")]
    (last,) = [probe for probe in probes if set(probe.parents) & set(ran.artifact("ppo").parents)]
    if last.metrics["passed"]:
        entry = promote(ran.directory, tmp_path, what="policy", by="ann", why="two rounds")
        assert entry.evidence["golden"]["report"] == last.id
    else:
        with pytest.raises(GateError, match="golden probe was not passed"):
            promote(ran.directory, tmp_path, what="policy", by="ann", why="two rounds")


def test_a_snapshot_in_postgresql_trains_the_same(place, ran):
    from helpers.postgres import postgres_server

    with postgres_server() as server:
        url = server.url(server.database())
        with begin(url, items()) as store:
            judge_all(store, {"ann": better, "bob": mostly, "cem": better})
            made = collect(store, "help", name="week-1", labels="dawid_skene")
        there = place.run(
            data=data(comparisons={"path": f"{url}::help@week-1", "holdout": 0.25}), only="reward", to="postgres"
        )
    (snapshot,) = [a.artifact for a in lineage(there.artifact("reward")) if a.artifact.kind == "snapshot"]
    assert snapshot.config["content_hash"] == made.snapshot.content_hash
    assert there.stages["reward"]["training_pairs"] == ran.stages["reward"]["training_pairs"]
