"""What a reward model has seen goes with it: through refreshes, into RL, and not at all where it is unknown."""

from types import SimpleNamespace

import pytest
from helpers.recipes import Workplace

from keel.batch.collate import EncodedPair
from keel.core.errors import ArtifactError
from keel.stages.coverage import COVERAGE, covered, joined, read_coverage, write_coverage
from keel.stats.coverage import Coverage

RATERS = """
from keel.data.records import Comparison

def judge(pairs):
    return [Comparison(prompt=p.prompt, a=p.a, b=p.b, preference=float(len(p.a) > len(p.b))) for p in pairs]
"""
PAIRS = [EncodedPair(prompt=[1, 1, 1, 1], a=[2, 3, 4], b=[5, 6, 7, 8], preference=1.0)]


def seen(coverage: Coverage) -> list[int]:
    return coverage.seen.tolist()


def test_both_responses_count_and_the_prompt_does_not(tmp_path):
    coverage = covered(PAIRS, None)
    assert len(seen(coverage)) == 3
    write_coverage(tmp_path, coverage)
    assert seen(read_coverage(tmp_path)) == seen(coverage)


def test_a_refreshed_model_has_seen_what_it_saw_before(tmp_path):
    write_coverage(tmp_path, Coverage.of([[2, 3, 4], [9, 9, 9]]))
    assert seen(covered(PAIRS, SimpleNamespace(path=tmp_path))) == seen(Coverage.of([[2, 3, 4], [5, 6, 7, 8], [9] * 3]))


def test_what_an_older_model_saw_is_unknown_and_stays_so(tmp_path):
    unknown = covered(PAIRS, SimpleNamespace(path=tmp_path))
    assert unknown is None
    write_coverage(tmp_path, unknown)
    assert read_coverage(tmp_path) is None


def test_several_reward_models_have_seen_what_any_has_unless_one_is_unknown():
    one, other = Coverage.of([[1, 2, 3]]), Coverage.of([[3, 2, 1]])
    assert seen(joined([one, other])) == seen(one | other)
    assert joined([one, None]) is None
    assert joined([]) is None


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / COVERAGE).write_bytes(b"no tensors")
    with pytest.raises(ArtifactError, match=COVERAGE):
        read_coverage(tmp_path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("coverage"))
    place.write("raters.py", RATERS)
    return place


def unseen(ran, event: str) -> list[float | None]:
    return [e["unseen_trigram_share"] for e in ran.events(event) if e["stage"].startswith("ppo")]


def test_updates_and_evaluations_say_how_much_is_unseen_and_rounds_see_more(place):
    ran = place.run(
        to="rounds",
        evaluate=None,
        sft=None,
        reward={"best_of": 0},
        ppo={"updates": 1},
        rounds={"count": 2, "comparisons": 8, "labeller": "raters.py:judge"},
    )
    assert len(unseen(ran, "step")) == 2
    assert all(0 < share <= 1 for share in unseen(ran, "step") + unseen(ran, "evaluated"))
    first, second = sorted(
        (read_coverage(path.parent) for path in (ran.directory / "artifacts").glob(f"reward-*/{COVERAGE}")),
        key=lambda coverage: len(coverage.seen),
    )
    assert set(seen(first)) < set(seen(second))


def test_a_reward_model_of_another_run_brings_its_coverage_and_one_from_elsewhere_has_none(place):
    made = place.run(to="made", evaluate=None, ppo=None, sft=None, reward={"best_of": 0})
    folder = made.artifact("reward").path

    def with_model(path, to):
        parts = {"updates": 1, "rewards": [{"name": "bought", "model": str(path)}]}
        return place.run(to=to, evaluate=None, sft=None, reward=None, data={"comparisons": None}, ppo=parts)

    assert None not in unseen(with_model(folder / "model", "bought"), "step")
    elsewhere = place.folder / "elsewhere"
    elsewhere.mkdir()
    (folder / "model").rename(elsewhere / "model")
    found = with_model(elsewhere / "model", "foreign")
    assert unseen(found, "step") == [None]
    assert set(unseen(found, "evaluated")) == {None}
