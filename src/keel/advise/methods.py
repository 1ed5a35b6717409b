"""The methods that advice chooses between: what each needs, and when to change to it."""

from collections.abc import Callable
from dataclasses import dataclass

from keel.advise.facts import Facts
from keel.advise.memory import Fit, Kind, fit

FEW = 200
"""Comparisons or ratings below which nothing is worth training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One word of a recipe's `method`, or `sft` for fine-tuning alone."""

    name: str
    title: str
    kind: Kind
    needs: Callable[[Facts], str]
    """What is missing; "" where it can be used."""
    switch: str
    """When somebody who uses another method should come to this one."""


def comparisons(facts: Facts) -> str:
    if facts.blocked:
        return "raters agree too little on the comparisons to train on them"
    if facts.data.comparisons < FEW:
        return f"needs comparisons, {FEW} at the very least; there are {facts.data.comparisons}"
    return ""


def score(facts: Facts) -> str:
    """Something that can score any answer: a program, or a reward model of comparisons."""
    if "verifiable" in facts.rewards:
        return ""
    lacking = comparisons(facts)
    return lacking and f"needs a score for any answer: a program that checks it, or a reward model; {lacking}"


def questions(facts: Facts) -> str:
    found = facts.data
    if found.prompts or found.demonstrations or found.comparisons:
        return ""
    return "needs prompts to answer (--prompts)"


def sampled(facts: Facts) -> str:
    return score(facts) or questions(facts)


def ratings(facts: Facts) -> str:
    if facts.data.ratings >= FEW:
        return ""
    lacking = comparisons(facts)
    return lacking and f"needs thumbs up or down, {FEW} at the very least ({facts.data.ratings} given), or comparisons"


def fresh(facts: Facts) -> str:
    """Somebody or something that judges answers which did not exist before."""
    if not (facts.fresh or "verifiable" in facts.rewards or "ai" in facts.rewards or not comparisons(facts)):
        return "needs somebody who judges fresh answers: people (--fresh-labels), a judge, a program, a reward model"
    return questions(facts)


def judge(facts: Facts) -> str:
    return questions(facts) if "ai" in facts.rewards else "needs a model that judges (--judge)"


def demonstrations(facts: Facts) -> str:
    return "" if facts.data.demonstrations else "needs demonstrations (--demonstrations)"


def both(facts: Facts) -> str:
    return comparisons(facts) or questions(facts)


METHODS = {
    method.name: method
    for method in (
        Method(
            name="sft",
            title="supervised fine-tuning on demonstrations",
            kind="pairs",
            needs=demonstrations,
            switch="comparisons cannot be had: more and better demonstrations are then all there is",
        ),
        Method(
            name="dpo",
            title="DPO: learn from the comparisons directly",
            kind="pairs",
            needs=comparisons,
            switch="memory or time runs short, or RL will not stay stable: DPO samples nothing and holds one network",
        ),
        Method(
            name="ipo",
            title="IPO: DPO with a squared loss",
            kind="pairs",
            needs=comparisons,
            switch="DPO's margins keep growing on pairs on which all raters agree",
        ),
        Method(
            name="simpo",
            title="SimPO: no reference, rewards by the token",
            kind="pairs",
            needs=comparisons,
            switch="answers grow longer under DPO without growing better",
        ),
        Method(
            name="orpo",
            title="ORPO: fine-tuning and preferences in one stage",
            kind="pairs",
            needs=comparisons,
            switch="one stage must do: the model is a base model, and there are comparisons but no demonstrations",
        ),
        Method(
            name="kto",
            title="KTO: learn from thumbs up and down",
            kind="pairs",
            needs=ratings,
            switch="thumbs from users come in faster than comparisons from raters",
        ),
        Method(
            name="rejection",
            title="rejection sampling: fine-tune on the best of n answers",
            kind="pairs",
            needs=sampled,
            switch="RL will not stay stable: fine-tuning on the best of n cannot run away",
        ),
        Method(
            name="best_of_n",
            title="best of n: sample n answers and give the best",
            kind="sample",
            needs=sampled,
            switch="training is out of reach, and n times the cost of an answer is not",
        ),
        Method(
            name="rlaif",
            title="RLAIF: a model judges, then DPO on its comparisons",
            kind="pairs",
            needs=judge,
            switch="human labels run out, and the judge agrees with people on a golden set (kappa 0.6 or more)",
        ),
        Method(
            name="cai",
            title="Constitutional AI: critique and revise by written principles",
            kind="pairs",
            needs=judge,
            switch="the goal can be written down as principles, above all what the model must not do",
        ),
        Method(
            name="iterative_dpo",
            title="iterative DPO: sample, have judged, train, repeat",
            kind="pairs",
            needs=fresh,
            switch="one DPO has levelled off, and fresh answers can be judged",
        ),
        Method(
            name="online_dpo",
            title="online DPO: pairs of fresh samples, judged at once",
            kind="group",
            needs=sampled,
            switch="DPO levels off because its pairs no longer resemble what the policy says, and a score is at hand",
        ),
        Method(
            name="rloo",
            title="RLOO: RL without a critic, samples of a prompt compared",
            kind="group",
            needs=sampled,
            switch="the policy shall go where no comparison is, and a reward can be trusted: half the cost of PPO",
        ),
        Method(
            name="grpo",
            title="GRPO: RL without a critic, scores scaled within a prompt",
            kind="group",
            needs=sampled,
            switch="the answer can be checked by a program (maths, code)",
        ),
        Method(
            name="reinforce_pp",
            title="REINFORCE++: RL without a critic or groups",
            kind="group",
            needs=sampled,
            switch="there are many prompts and sampling several answers to each is too dear",
        ),
        Method(
            name="ppo",
            title="PPO: RL on a reward model, with a critic",
            kind="critic",
            needs=sampled,
            switch="DPO has levelled off, reward model and pipeline are proven, and there is memory for four networks",
        ),
        Method(
            name="hybrid",
            title="PPO, then DPO on fresh pairs",
            kind="critic",
            needs=both,
            switch="PPO has reached its level, and cheap refinement is wanted",
        ),
    )
}
"""From the simplest to the most involved; of equals the simpler is advised."""


def learned_judge(facts: Facts, method: Method) -> bool:
    """Whether a reward model is held in memory beside the policy."""
    return method.kind != "pairs" and "verifiable" not in facts.rewards


def fit_of(facts: Facts, method: Method) -> Fit:
    return fit(facts, method.kind, learned_judge=learned_judge(facts, method))


def lacking(facts: Facts, method: Method) -> str:
    """Why a method cannot be used here; "" where it can."""
    if missing := method.needs(facts):
        return missing
    held = fit_of(facts, method)
    return "" if held.fits else f"does not fit into memory: {held.text}, of which 80 % may be taken"
