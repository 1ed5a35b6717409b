"""The rules of advice: what each looks at, whom it speaks for, and where it comes from.

Sources: A is "RLHF in Depth", B the "RLHF Guide", the two practitioners' guides that keel started from; papers by
their arXiv number; keel where it was measured here. Weights say how much a rule counts: 1 a preference, 2 a reason, 4
and more what decides alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite

from keel.advise.facts import CHECKABLE, Facts

Answer = tuple[bool, str]
MANY_GPUS = 8
LARGE = 30e9
PROVEN = 100_000
LONGER = 0.65
UNANIMOUS = 0.97


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One reason for some methods, or against them where a weight is negative."""

    name: str
    source: str
    weights: Mapping[str, float]
    look: Callable[[Facts], Answer]
    """Whether it applies, and a line with the figures that say so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a rule says here."""

    rule: Rule
    fired: bool
    because: str


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def verifiable(facts: Facts) -> Answer:
    if "verifiable" in facts.rewards:
        return True, f"a program can check the answers{f' ({facts.verifier})' if facts.verifier else ''}"
    return False, "no program checks the answers"


def few_gpus(facts: Facts) -> Answer:
    found = f"{_count(facts.hardware.gpus, 'GPU')}, the guide draws the line at {MANY_GPUS}"
    return facts.hardware.gpus < MANY_GPUS, found


def start_with_dpo(facts: Facts) -> Answer:
    if not facts.usable:
        return False, "there are no comparisons to use"
    if "verifiable" in facts.rewards or facts.fresh:
        return False, "there is a reason for online RL: a checkable reward, or labels while training"
    if facts.priority == "reward":
        return False, "the highest reward was asked for, not stability"
    return True, f"{_count(facts.usable, 'comparison')}, and no reason for online RL"


def clean_labels(facts: Facts) -> Answer:
    found, line = facts.data.agreement, facts.thresholds.agreement_scale
    if found is None:
        return False, "agreement is unknown: no comparison has the votes of two raters"
    return found.alpha >= line, f"agreement {found.alpha:.2f}, the line is {line:.2f}"


def unanimous(facts: Facts) -> Answer:
    found = facts.data.agreement
    if found is None:
        return False, "agreement is unknown"
    return found.alpha >= UNANIMOUS, f"agreement {found.alpha:.2f}; from {UNANIMOUS} on DPO has no end to its margins"


def fresh_labels(facts: Facts) -> Answer:
    return facts.fresh, "fresh answers can be judged" if facts.fresh else "nobody judges fresh answers (--fresh-labels)"


def fresh_on_few_gpus(facts: Facts) -> Answer:
    return facts.fresh and few_gpus(facts)[0], f"{fresh_labels(facts)[1]}; {few_gpus(facts)[1]}"


def stability(facts: Facts) -> Answer:
    return facts.priority == "stability", f"--priority is {facts.priority}"


def highest_reward(facts: Facts) -> Answer:
    if facts.priority != "reward":
        return False, "--priority is stability"
    return facts.hardware.gpus >= MANY_GPUS, f"--priority is reward; {few_gpus(facts)[1]}"


def large_model(facts: Facts) -> Answer:
    return facts.model.parameters > LARGE, f"{facts.model.parameters / 1e9:.3g} billion parameters, the line is 30"


def small_set(facts: Facts) -> Answer:
    if not facts.usable or "verifiable" in facts.rewards:
        return False, "no reward model would have to be trained on comparisons"
    scope = f"a {facts.scope} reward model wants {facts.enough:,}"
    return facts.usable < facts.enough, f"{_count(facts.usable, 'comparison')}; {scope}"


def large_set(facts: Facts) -> Answer:
    return facts.usable >= PROVEN, f"{_count(facts.usable, 'comparison')}; most large projects have {PROVEN:,} or more"


def thumbs(facts: Facts) -> Answer:
    only = facts.data.ratings > 0 and facts.data.ratings > 4 * facts.usable
    return only, f"{_count(facts.data.ratings, 'rating')} against {_count(facts.usable, 'comparison')}"


def ai_judge(facts: Facts) -> Answer:
    if "ai" not in facts.rewards:
        return False, "no model judges (--judge)"
    if facts.usable:
        return False, f"{_count(facts.usable, 'comparison')} by people go first: a judge's faults spread"
    return True, "a model judges, and no people"


def principles(facts: Facts) -> Answer:
    if "ai" not in facts.rewards:
        return False, "no model judges (--judge)"
    written = bool(facts.constitution)
    found = f"principles in {facts.constitution}" if written else f"the goal is {facts.goal}"
    return written or (facts.goal == "safety" and not facts.usable), found


def one_stage(facts: Facts) -> Answer:
    follows = "is tuned to follow" if facts.model.chat else "is not known to follow"
    found = f"{_count(facts.data.demonstrations, 'demonstration')}; the model {follows} instructions"
    return bool(facts.usable) and not facts.data.demonstrations and not facts.model.chat, found


def long_wins(facts: Facts) -> Answer:
    share = facts.data.longer_wins
    if share is None:
        return False, "unknown how often the longer answer wins"
    return share >= LONGER, f"the longer answer wins {share:.0%} of decided pairs, the line is {LONGER:.0%}"


def no_critic(facts: Facts) -> Answer:
    scored = bool(facts.usable) or "verifiable" in facts.rewards
    return scored, "the score comes at the end, so a critic has little to add" if scored else "nothing gives a score"


def many_hands(facts: Facts) -> Answer:
    able = facts.hardware.gpus >= MANY_GPUS or facts.model.parameters < 1e9
    return able and facts.priority == "reward" and facts.usable > 0, (
        f"--priority is {facts.priority}; {few_gpus(facts)[1]}; {_count(facts.usable, 'comparison')}"
    )


def checkable_goal(facts: Facts) -> Answer:
    both = facts.goal in CHECKABLE and "verifiable" in facts.rewards
    return both, f"the goal is {facts.goal}; {verifiable(facts)[1]}"


def only_demonstrations(facts: Facts) -> Answer:
    judged = facts.usable or facts.data.ratings or facts.rewards & {"verifiable", "ai"}
    who = "somebody judges" if judged else "nobody judges"
    found = f"{_count(facts.data.demonstrations, 'demonstration')}, and {who}"
    return facts.data.demonstrations > 0 and not judged, found


def noisy_labels(facts: Facts) -> Answer:
    found = facts.data.agreement
    if found is None or facts.blocked:
        return False, "agreement is unknown" if found is None else "agreement is below what training asks for"
    noise = found.label_noise
    rate = f"; about {noise:.0%} of the labels are wrong" if isfinite(noise) else ""
    return found.alpha < facts.thresholds.agreement_scale, f"agreement {found.alpha:.2f}{rate}"


ONLINE = ("ppo", "rloo", "grpo", "reinforce_pp", "online_dpo")
RULES = (
    Rule(
        name="verifiable_reward",
        source='B, "Use PPO when"; DeepSeekMath 2402.03300; DeepSeek-R1 2501.12948',
        weights={
            "grpo": 6,
            "rloo": 5.5,
            "ppo": 4.5,
            "rejection": 4.5,
            "reinforce_pp": 4,
            "online_dpo": 4,
            "best_of_n": 2,
        },
        look=verifiable,
    ),
    Rule(name="checkable_goal", source="DeepSeekMath 2402.03300", weights={"grpo": 1}, look=checkable_goal),
    Rule(
        name="few_gpus",
        source='B, "Use DPO when"',
        weights={"dpo": 2},
        look=few_gpus,
    ),
    Rule(name="start_with_dpo", source="B, recommendation 1", weights={"dpo": 2}, look=start_with_dpo),
    Rule(
        name="clean_labels",
        source='B, "Use DPO when"; DPO 2305.18290',
        weights={"dpo": 2, "ipo": 2},
        look=clean_labels,
    ),
    Rule(name="unanimous_labels", source="IPO 2310.12036", weights={"ipo": 6, "dpo": -2}, look=unanimous),
    Rule(
        name="noisy_labels",
        source='A, "robust to annotation noise"; robust DPO 2403.00409',
        weights={"ppo": 0.5, "rloo": 0.5, "dpo": 0.5},
        look=noisy_labels,
    ),
    Rule(
        name="fresh_labels",
        source='B, "Use PPO when"; keel, docs/decisions/rounds.md: rounds 74 to 75 %, once 43 to 76 %',
        weights={"ppo": 5, "rloo": 5, "iterative_dpo": 4, "online_dpo": 3},
        look=fresh_labels,
    ),
    Rule(
        name="fresh_labels_on_few_gpus",
        source='B, "Use DPO when"; A, "iterative preference optimization"',
        weights={"iterative_dpo": 2},
        look=fresh_on_few_gpus,
    ),
    Rule(
        name="stability_first",
        source='B, "Use DPO when"',
        weights={"dpo": 1, "rejection": 0.25},
        look=stability,
    ),
    Rule(
        name="highest_reward",
        source='B, "Use DPO when"; A, "proven at scale"',
        weights={"ppo": 4, "rloo": 3, "hybrid": 3},
        look=highest_reward,
    ),
    Rule(
        name="hybrid",
        source='A, "many labs use a hybrid"',
        weights={"hybrid": 1, "iterative_dpo": 0.5},
        look=many_hands,
    ),
    Rule(name="large_model", source='B, "Use PPO when"', weights={"ppo": 1}, look=large_model),
    Rule(
        name="small_set",
        source='B, "minimum viable preference dataset"; A: DPO "needs larger preference dataset"',
        weights={**dict.fromkeys(ONLINE, -2), "hybrid": -2, "dpo": -0.5},
        look=small_set,
    ),
    Rule(name="large_set", source='A, "100k to 500k preference pairs"', weights={"ppo": 1, "rloo": 1}, look=large_set),
    Rule(name="thumbs", source="KTO 2402.01306", weights={"kto": 6}, look=thumbs),
    Rule(name="ai_judge", source="A, table of alternatives; RLAIF 2309.00267", weights={"rlaif": 4}, look=ai_judge),
    Rule(
        name="principles",
        source="A, table of alternatives; Constitutional AI 2212.08073",
        weights={"cai": 5},
        look=principles,
    ),
    Rule(name="one_stage", source="ORPO 2403.07691", weights={"orpo": 3}, look=one_stage),
    Rule(name="longer_wins", source="SimPO 2405.14734; 2310.03716", weights={"simpo": 3}, look=long_wins),
    Rule(
        name="no_critic",
        source="RLOO 2402.14740; keel, docs/ppo.md: half of PPO's cost",
        weights={"rloo": 0.5, "grpo": 0.25, "reinforce_pp": 0.25},
        look=no_critic,
    ),
    Rule(name="only_demonstrations", source='A, "The Three Phases"', weights={"sft": 3}, look=only_demonstrations),
)


def examine(facts: Facts) -> list[Found]:
    """What every rule says."""
    told = [(rule, *rule.look(facts)) for rule in RULES]
    return [Found(rule=rule, fired=fired, because=because) for rule, fired, because in told]


def totals(found: list[Found]) -> dict[str, float]:
    """The sum of weights of each method that a rule speaks of."""
    sums: dict[str, float] = {}
    for one in found:
        for method, weight in one.rule.weights.items() if one.fired else ():
            sums[method] = sums.get(method, 0.0) + weight
    return sums
