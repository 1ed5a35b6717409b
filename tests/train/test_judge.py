import json
import math

import pytest
import torch

from keel.batch.collate import EncodedResponse, token_batch
from keel.core.errors import TrainingError
from keel.train.judge import EnsembleScorer, FunctionScorer, Judge, Responses, Scores
from keel.train.settings import ShapingConfig

PLAIN = {"normalise": "none", "clip": None, "missing_eos_ceiling": None}


class Fixed:
    """A scorer with given answers."""

    def __init__(self, *values: float, mean: float = 0.0, std: float = 1.0) -> None:
        self.values, self.mean, self.std = torch.tensor(values), mean, std

    def score(self, responses):
        return self.values


def responses_of(lengths, finished=None) -> Responses:
    tokens = [[EncodedResponse(tokens=[5] * length)] for length in lengths]
    return Responses(
        batch=token_batch([[1]] * len(lengths), tokens),
        prompt_texts=["ask"] * len(lengths),
        response_texts=[f"answer {i}" for i in range(len(lengths))],
        finished=torch.tensor([True] * len(lengths) if finished is None else finished),
    )


def judge_of(scorer=None, **shaping) -> Judge:
    return Judge(
        scorers={"rm": (1.0, scorer or Fixed())}, shaping=ShapingConfig(**{**PLAIN, **shaping}), max_new_tokens=10
    )


def shaped(raw, lengths=None, finished=None, *, normalised=None, **shaping) -> list[float]:
    raw = torch.tensor(raw)
    scores = Scores(raw=raw, normalised=raw if normalised is None else torch.tensor(normalised), parts={})
    responses = responses_of(lengths or [1] * len(raw), finished)
    return judge_of(**shaping).shape(scores, responses).tolist()


def test_scores_are_clipped_on_both_sides():
    assert shaped([-9.0, 0.5, 9.0], clip=2.0) == [-2.0, 0.5, 2.0]


def test_without_any_rule_the_reward_is_the_raw_score():
    assert shaped([-9.0, 0.5, 900.0]) == [-9.0, 0.5, 900.0]


def test_the_length_penalty_is_its_share_of_the_longest_allowed():
    # rm - 0.1 · tokens / max_new_tokens, as source A writes it: 5 of 10 tokens cost 0.05, 10 cost 0.1
    assert shaped([1.0, 1.0], [5, 10], length_penalty=0.1) == pytest.approx([0.95, 0.9])


def test_overlong_responses_are_charged_in_a_straight_line_over_the_buffer():
    # DAPO: nothing up to 6 of 10 tokens, then a quarter of the penalty a token
    found = shaped([1.0] * 4, [1, 6, 7, 10], overlong_buffer=4)
    assert found == pytest.approx([1.0, 1.0, 0.75, 0.0])
    assert shaped([1.0], [10], overlong_buffer=4, overlong_penalty=0.2) == pytest.approx([0.8])


def test_an_unfinished_response_earns_at_most_the_ceiling():
    assert shaped([3.0, -4.0, 3.0], finished=[False, False, True], missing_eos_ceiling=-1.0) == [-1.0, -4.0, 3.0]


def test_the_missing_eos_penalty_comes_on_top_of_the_ceiling():
    found = shaped([3.0, 3.0], finished=[False, True], missing_eos_ceiling=-1.0, missing_eos_penalty=0.5)
    assert found == [-1.5, 3.0]


def test_rules_act_in_order_clip_ceiling_penalty_length():
    found = shaped(
        [9.0, 9.0],
        [10, 10],
        [True, False],
        clip=2.0,
        missing_eos_ceiling=1.0,
        missing_eos_penalty=0.25,
        length_penalty=0.5,
    )
    assert found == pytest.approx([2.0 - 0.5, 1.0 - 0.25 - 0.5])


def test_stored_statistics_normalise_before_the_clip():
    judge = judge_of(Fixed(7.0, 3.0, mean=3.0, std=2.0), normalise="model", clip=1.5)
    responses = responses_of([1, 1])
    assert judge.shape(judge.scores(responses), responses).tolist() == [1.5, 0.0]  # (7 - 3) / 2 = 2, clipped


def test_parts_add_up_by_weight_each_normalised_by_its_own_statistics():
    judge = Judge(
        scorers={"a": (0.5, Fixed(4.0, 2.0, mean=2.0, std=2.0)), "b": (-1.0, Fixed(1.0, 3.0))},
        shaping=ShapingConfig(),
        max_new_tokens=10,
    )
    scores = judge.scores(responses_of([1, 1]))
    assert scores.raw.tolist() == [0.5 * 4 - 1, 0.5 * 2 - 3]
    assert scores.normalised.tolist() == [0.5 * 1 - 1, 0.5 * 0 - 3]
    assert {name: part.tolist() for name, part in scores.parts.items()} == {"a": [4.0, 2.0], "b": [1.0, 3.0]}


def test_running_statistics_are_those_of_all_scores_so_far():
    judge, seen = judge_of(normalise="running"), []
    for raw in ([1.0, 2.0, 6.0], [0.0, 3.0]):
        seen += raw
        found = judge.shape(
            Scores(raw=torch.tensor(raw), normalised=torch.zeros(len(raw)), parts={}), responses_of([1] * len(raw))
        )
    mean, std = torch.tensor(seen).mean(), torch.tensor(seen).std()
    torch.testing.assert_close(found, (torch.tensor([0.0, 3.0]) - mean) / std)


def test_held_out_scores_leave_the_running_statistics_alone():
    judge = judge_of(normalise="running")
    scores, responses = Scores(raw=torch.tensor([1.0, 5.0]), normalised=torch.zeros(2), parts={}), responses_of([1, 1])
    judge.shape(scores, responses)
    before = {name: judge.state()[name] for name in ("count", "mean", "m2")}
    judge.shape(Scores(raw=torch.tensor([70.0, 90.0]), normalised=torch.zeros(2), parts={}), responses, observe=False)
    assert {name: judge.state()[name] for name in before} == before


def test_held_out_rewards_stay_on_the_scale_of_the_first_so_that_a_rise_shows():
    judge, responses = judge_of(normalise="running", clip=5.0), responses_of([1, 1])

    def held_out(judge, *raw):
        scores = Scores(raw=torch.tensor(raw), normalised=torch.zeros(2), parts={})
        return judge.shape(scores, responses, observe=False).tolist()

    assert held_out(judge, 10.0, 14.0) == [-1.0, 1.0]  # mean 12, population spread 2
    judge.shape(Scores(raw=torch.tensor([50.0, 90.0]), normalised=torch.zeros(2), parts={}), responses)
    assert held_out(judge, 14.0, 16.0) == [1.0, 2.0]
    resumed = judge_of(normalise="running", clip=5.0)
    resumed.load_state(json.loads(json.dumps(judge.state())))
    assert held_out(resumed, 14.0, 16.0) == [1.0, 2.0]


def test_running_statistics_resume_to_the_same_bits():
    torch.manual_seed(0)
    batches = [torch.randn(4) * 3 + 1 for _ in range(6)]

    def reward(judge, raw):
        return judge.shape(Scores(raw=raw, normalised=raw, parts={}), responses_of([1] * 4))

    straight = judge_of(normalise="running")
    wanted = [reward(straight, raw) for raw in batches]
    first = judge_of(normalise="running")
    for raw in batches[:3]:
        reward(first, raw)
    second = judge_of(normalise="running")
    second.load_state(first.state())
    found = [reward(second, raw) for raw in batches[3:]]
    assert all(torch.equal(a, b) for a, b in zip(found, wanted[3:], strict=True))


def test_one_score_alone_has_no_spread_and_still_a_finite_reward():
    (reward,) = judge_of(normalise="running").shape(
        Scores(raw=torch.tensor([4.0]), normalised=torch.zeros(1), parts={}), responses_of([1])
    )
    assert float(reward) == 0.0


@pytest.mark.parametrize(
    ("aggregate", "wanted"),
    [
        # members normalised: (1, -1) and (3, 0); mean (2, -.5), population std (1, .5)
        ("mean", [2.0, -0.5]),
        ("min", [1.0, -1.0]),
        ("mean_minus_std", [2.0 - 0.5 * 1.0, -0.5 - 0.5 * 0.5]),
    ],
)
def test_an_ensemble_normalises_its_members_and_takes_the_aggregate(aggregate, wanted):
    members = [Fixed(12.0, 8.0, mean=10.0, std=2.0), Fixed(3.0, 0.0)]
    ensemble = EnsembleScorer(members, aggregate, std_weight=0.5)
    assert ensemble.score(responses_of([1, 1])).tolist() == pytest.approx(wanted)
    assert ensemble.disagreement == pytest.approx(0.75)


def test_a_function_gets_texts_and_must_answer_once_for_each():
    asked = []

    def function(prompts, responses):
        asked.append((prompts, responses))
        return [True, 2]

    assert FunctionScorer(function=function, name="f").score(responses_of([1, 1])).tolist() == [1.0, 2.0]
    assert asked == [(["ask", "ask"], ["answer 0", "answer 1"])]
    with pytest.raises(TrainingError, match="returned 2 numbers for 3 responses"):
        FunctionScorer(function=function, name="f").score(responses_of([1, 1, 1]))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "None"),
        (3.0, "3.0"),
        ("ab", "'ab'"),
        (["good", "bad"], "'good'"),
        ([None, 1.0], "None"),
        ({"a": 1, "b": 2}, "{'a': 1, 'b': 2}"),
    ],
)
def test_whatever_is_no_list_of_numbers_is_named(answer, said):
    with pytest.raises(TrainingError) as stop:
        FunctionScorer(function=lambda prompts, responses: answer, name="bad.py:f").score(responses_of([1, 1]))
    assert "bad.py:f" in str(stop.value)
    assert said in str(stop.value)


def test_tensors_and_arrays_are_lists_of_numbers_too():
    for answer in (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]).numpy()):
        scorer = FunctionScorer(function=lambda prompts, responses, answer=answer: answer, name="f")
        assert scorer.score(responses_of([1, 1])).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reward_that_is_no_finite_number_names_the_response(bad):
    judge = judge_of(Fixed(1.0, bad))
    with pytest.raises(TrainingError) as stop:
        judge.scores(responses_of([1, 1]))
    assert "`rm`" in str(stop.value)
    assert "answer 1" in str(stop.value)
