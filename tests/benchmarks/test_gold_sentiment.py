"""The story world: what its true reward likes, what its raters do with a flaw, and that a run can be built and read."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from keel.core.errors import DataError
from keel.stages.labels import Pair

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PROMPT = "One day, a small dog named Ben saw a big tree."
GOOD = " Ben was happy and played with his friends."
PLAIN = " He looked at the leaves."


@pytest.fixture(scope="module")
def gold(shared_data: Path) -> Iterator[SimpleNamespace]:
    """benchmarks/gold/stories.py and sentiment.py."""
    before = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    from gold import sentiment, stories

    yield SimpleNamespace(stories=stories, sentiment=sentiment)
    sys.path[:] = before


def value(gold: SimpleNamespace, response: str, finished: bool = True) -> float:
    return gold.stories.utility(gold.stories.features(PROMPT, response, finished))


def pair(a: str, b: str, key: int = 0, finished: bool = True) -> Pair:
    return Pair(prompt=PROMPT, a=a, b=b, a_finished=finished, b_finished=finished, key=key)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("better", "worse"),
    [
        pytest.param(GOOD, PLAIN, id="cheer and the character's name"),
        pytest.param(PLAIN, " Ben was sad and cried.", id="gloom"),
        pytest.param(GOOD, " Ben happy happy happy happy friends!", id="sentences before happy words"),
        pytest.param(PLAIN, " He looked at the brobbles.", id="words that are none"),
        pytest.param(PLAIN, " he looked at the leaves.", id="a small first letter"),
        pytest.param(PLAIN, " He looked at the", id="a fragment"),
        pytest.param(GOOD, " He was very happy! So very happy! Wow!", id="gushing"),
        pytest.param(GOOD, GOOD * 3, id="the same again"),
        pytest.param(PLAIN, "", id="nothing"),
        pytest.param(GOOD, " Ben was not happy.", id="happiness denied"),
        pytest.param(GOOD + " He liked the warm sun.", GOOD, id="a second cheerful sentence"),
    ],
)
def test_the_true_reward_prefers(gold, better: str, worse: str):
    assert value(gold, better) > value(gold, worse) + 0.2


@pytest.mark.shared
def test_a_text_that_is_cut_off_is_worth_one_less(gold):
    assert value(gold, GOOD) - value(gold, GOOD, finished=False) == pytest.approx(1.0)


@pytest.mark.shared
def test_a_cheerful_word_counts_once_and_sentences_fade(gold):
    def cheer(text: str) -> float:
        return gold.stories.features(PROMPT, text, True).cheer

    once = cheer(" He was happy.")
    assert cheer(" He was happy. She was happy too.") == pytest.approx(once)
    # VADER: happy 2.7, warm 0.9; the second cheerful sentence counts 0.7
    assert once == pytest.approx(np.tanh(0.9))
    assert cheer(" He was happy. The sun was warm.") == pytest.approx(np.tanh(0.9) + 0.7 * np.tanh(0.3))


@pytest.mark.shared
@pytest.mark.parametrize(
    ("sentence", "rule"),
    [
        ("He liked to play with his friends.", None),
        ('Mom said, "Do you want to play?"', None),
        ("Happy happy friends.", "no verb"),
        ("He saw the the tree.", "clash: the the"),
        ("She wanted went home.", "clash: wanted went"),
        ("He did not see a because of it now.", "clash: a because"),
        ("He played with.", "ends in with"),
        ("Wow!", "1 words"),
        ("He played ball..", "odd marks"),
        ("It was a sprunt.", "no word: sprunt"),
    ],
)
def test_a_fault_is_named_by_the_rule_it_breaks(gold, sentence: str, rule: str | None):
    assert gold.stories.fault(sentence) == rule


@pytest.mark.shared
def test_flawed_rooms_lean_as_planted_and_the_honest_one_does_not(gold):
    sentiment = gold.sentiment
    long = pair(GOOD, GOOD + " He saw a tree and he sat there for the day.", 1)
    gushing = pair(GOOD, " He was so very happy! So very nice!", 2)

    def share_of_b(flaw: str, shown: Pair) -> float:
        labels = [label for seed in range(60) for label in sentiment.labelled([shown], seed, flaw)]
        return float(np.mean([1 - label.preference for label in labels]))

    assert share_of_b("length", long) > share_of_b("none", long) + 0.3
    assert share_of_b("flattery", gushing) > share_of_b("none", gushing) + 0.3
    assert share_of_b("none", gushing) < 0.2


@pytest.mark.shared
def test_lazy_rooms_agree_less_with_the_truth_and_coverage_hides_what_is_faulty(gold):
    sentiment = gold.sentiment
    shown = [pair(GOOD, f" he the the {word}", key) for key, word in enumerate(("a", "b", "c"))]
    right = {
        flaw: np.mean([label.preference for seed in range(60) for label in sentiment.labelled(shown, seed, flaw)])
        for flaw in ("none", "lazy")
    }
    assert right["none"] > right["lazy"] + 0.05
    assert sentiment.labelled([*shown, pair(GOOD, PLAIN)], 0, "coverage")[0].b == PLAIN
    assert len(sentiment.labelled([*shown, pair(GOOD, PLAIN)], 0, "coverage")) == 1
    assert len(sentiment.labelled([pair(GOOD, PLAIN)] * 400, 0, "few")) == sentiment.FEW


@pytest.mark.shared
def test_the_same_pair_gets_the_same_votes_and_an_unknown_flaw_is_refused(gold):
    sentiment = gold.sentiment
    alone = sentiment.labelled([pair(GOOD, PLAIN)], 3, "none")
    among = sentiment.labelled([pair(PLAIN, GOOD), pair(GOOD, PLAIN)], 3, "none")
    assert alone[0] == among[1]
    with pytest.raises(DataError, match="no flaw 'rude'"):
        sentiment.labelled([pair(GOOD, PLAIN)], 0, "rude")


@pytest.mark.shared
def test_the_live_panel_is_another_room_and_mostly_right(gold):
    sentiment = gold.sentiment
    verdicts = [sentiment.Panel(seed).label([pair(GOOD, " he the the")])[0] for seed in range(40)]
    assert np.mean([verdict.preference for verdict in verdicts]) > 0.9
    assert all(len(verdict.votes) == 1 for verdict in verdicts)
    assert sentiment.Panel(0).raters != sentiment.panel(0)


@pytest.mark.shared
def test_a_lesson_keeps_whole_sentences_only(gold):
    rng = np.random.default_rng(0)
    lessons = {gold.sentiment.lesson(" He ran. She sat. They pl", rng) for _ in range(50)}
    assert {" He ran.", " He ran. She sat."} <= lessons
    assert not any("pl" in lesson for lesson in lessons)


@pytest.mark.shared
def test_some_endings_say_their_first_sentence_twice_and_only_finished_ones(gold):
    rng = np.random.default_rng(0)
    text = " He ran. She sat."
    said = [gold.sentiment.maybe_twice(text, True, rng) for _ in range(400)]
    share = np.mean([one == (" He ran. He ran.", True) for one in said])
    assert share == pytest.approx(gold.sentiment.TWICE, abs=0.06)
    assert {one for one in said if one[0] != " He ran. He ran."} == {(text, True)}
    assert {gold.sentiment.maybe_twice(text, False, rng) for _ in range(50)} == {(text, False)}
    assert {gold.sentiment.maybe_twice(" He ran.", True, rng) for _ in range(50)} == {(" He ran.", True)}


@pytest.mark.shared
def test_what_is_missing_is_said(gold, tmp_path):
    with pytest.raises(DataError, match="vader-lexicon"):
        gold.stories.lexicon(tmp_path)
    with pytest.raises(DataError, match="stories260k"):
        gold.sentiment.story_model(tmp_path)


@pytest.mark.shared
def test_a_run_is_built_from_files_and_its_truth_is_no_part_of_it(gold, shared_models, tmp_path, monkeypatch):
    sentiment = gold.sentiment
    monkeypatch.setattr(sentiment, "LESSONS", 60)
    monkeypatch.setattr(sentiment, "DRAWN", 60)
    recipe = sentiment.build(tmp_path / "cache", tmp_path / "world", 0, "length", ["ppo.updates=3"])
    assert (recipe.ppo.updates, recipe.seed, recipe.sft, recipe.evaluate) == (3, 0, None, None)
    prompts = [json.loads(line) for line in (tmp_path / "world" / "prompts.jsonl").read_text().splitlines()]
    assert len(prompts) == sentiment.PROMPTS
    assert len((tmp_path / "world" / "comparisons.jsonl").read_text().splitlines()) > 30
    honest = sentiment.build(tmp_path / "cache", tmp_path / "honest", 0, "none")
    assert honest.model == recipe.model
    assert "truth" not in (tmp_path / "world" / "recipe.yaml").read_text()
    assert sentiment.truth_of(0)([PROMPT], [GOOD], [True]) == [value(gold, GOOD)]
