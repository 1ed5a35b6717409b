"""Pairs, golden answers and judges with planted faults for tests of AI feedback."""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from keel.data.records import Comparison
from keel.stages.feedback.answers import Answers
from keel.stages.feedback.judges import AIJudge, PythonJudge
from keel.stages.feedback.judging import AILabeller, Rubric
from keel.stages.feedback.question import Question
from keel.stages.labels import Pair


def pair(number: int, a: str, b: str) -> Pair:
    return Pair(prompt=f"question {number}?", a=a, b=b, a_finished=True, b_finished=True, key=number)


def strengths(count: int, seed: int = 0) -> list[Pair]:
    """Answers that say how good they are: `answer 0.3`."""
    draw = random.Random(seed)
    return [pair(n, f"answer {draw.uniform(-2, 2):.4f}", f"answer {draw.uniform(-2, 2):.4f}") for n in range(count)]


def strength(answer: str) -> float:
    return float(answer.split()[-1])


def golden(pairs: Sequence[Pair], seed: int = 0, *, sure: bool = False) -> list[Comparison]:
    """What people say: Bradley-Terry in the strengths, or always the stronger answer."""
    draw = random.Random(seed)
    return [Comparison(p.prompt, p.a, p.b, float(draw.random() < chance(p, sure))) for p in pairs]


def chance(p: Pair, sure: bool) -> float:
    difference = strength(p.a) - strength(p.b)
    return float(difference > 0) if sure else 1 / (1 + math.exp(-difference))


def python_judge(function: Callable[[Sequence[Question]], Sequence[object]], name: str = "judge") -> PythonJudge:
    return PythonJudge(lambda questions: list(function(questions)), name, name)


def labeller(judge: AIJudge, folder: Path, **settings) -> AILabeller:
    rubrics = settings.pop("rubrics", [Rubric.of(None)])
    return AILabeller(judge=judge, answers=Answers(folder / "answers.sqlite"), rubrics=rubrics, seed=0, **settings)
