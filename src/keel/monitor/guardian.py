"""From the verdicts of all rules to one decision: evidence is weighed, not counted.

Every family of rules (keel.monitor.rules.FAMILIES) looks at a run from another side. The surest rule of a family gives
its weight of evidence, log(p / (1 - p)) nats for a confidence p; the families' weights add up to the log-odds that the
run goes wrong, starting from PRIOR. So one sign alone, however loud, is looked into; two that agree are acted upon.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import exp, inf, log
from typing import Any, Literal

from keel.monitor.rules import FAMILIES
from keel.monitor.settings import ActionsConfig, GuardianConfig
from keel.monitor.verdict import Verdict
from keel.stats.correction import Correction

Action = Literal["tighten", "lower_kl", "ask_humans", "correct_reward", "roll_back", "stop"]

PRIOR = -3.0
"""Log-odds, before any evidence, that a run is going wrong just now: about one in twenty."""
CREDIT = 2.0
"""Nats that judges who like the newest policies take off at most: they may not have met what is going wrong yet."""
SURE_ENOUGH = 0.9
"""Probability of trouble from which the guardian goes back."""
LIKELY = 0.5
"""Probability from which it makes moving dearer and goes on: early where it is right, cheap where it is wrong."""
CALM = 0.4
"""Probability below which a doubt has passed."""
DOUBT = 0.3
"""Probability from which it asks judges, where there are some."""
HACKING = frozenset({"drift", "map", "score", "form", "variety", "people"})
"""Families whose signs together mean that the policy is being led astray."""
ALONE = frozenset({"kl_bands", "not_finite", "reward_saturation", "reward_flattened", "human_gain"})
"""Rules whose verdict of stop, or act for people's, is enough by itself: they read a line, not a likeness."""
MOST = log(0.99 / 0.01)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Something the guardian does, or would do, and why."""

    action: Action
    rules: tuple[str, ...]
    evidence: tuple[Verdict, ...]
    reason: str
    confidence: float
    since: int | None = None
    """Step at which the trouble began, as far as the evidence shows."""
    relax: bool = False
    """Whether the KL coefficient may come down again by a factor: the reward is corrected, and nothing looks wrong."""
    taken: bool = True
    """False where the recipe lets the rules behind it advise only."""

    def record(self) -> dict[str, Any]:
        """The fields of the event `action` that say why."""
        return {
            "action": self.action,
            "taken": self.taken,
            "rules": list(self.rules),
            "evidence": [
                {"rule": v.rule, "level": v.level, "message": v.message, "figures": v.figures} for v in self.evidence
            ],
            "reason": self.reason,
            "confidence": self.confidence,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Assessment:
    """How likely it is that the run goes wrong, and the verdicts that say so, weightiest first."""

    probability: float
    signs: tuple[Verdict, ...] = ()
    names: tuple[str, ...] = ()
    """Of the rules, as in RULES."""
    decisive: bool = False
    """Whether one rule's verdict is enough by itself."""
    since: int | None = None
    relapse: bool = False
    """Whether the run was rolled back before."""

    @property
    def doubtful(self) -> bool:
        """Whether the newest policy is not one to keep: likelier bad than good, the first time by more than one kind
        of evidence.
        """
        telling = [sign for sign in self.signs if (sign.confidence or 0) > 0.5]
        loud = any(sign.level in ("act", "stop") for sign in telling)
        return self.probability >= 0.5 and (self.decisive or len(telling) > 1 or (self.relapse and loud))


def assess(verdicts: Mapping[str, Verdict], rollbacks: int = 0) -> Assessment:
    """Weigh what the rules of hacking and collapse say together; `verdicts` by rule name.

    Judges who like the newest policies take off what their verdicts weigh. After `rollbacks` one loud sign is enough
    to doubt the newest policy.
    """
    alone = [name for name, verdict in verdicts.items() if name in ALONE and _enough(name, verdict)]
    strongest: dict[str, str] = {}
    for name, verdict in verdicts.items():
        family = FAMILIES[name]
        if family not in HACKING or verdict.level == "ok" or verdict.confidence is None:
            continue
        if family not in strongest or verdict.confidence > (verdicts[strongest[family]].confidence or 0):
            strongest[family] = name
    weights = {name: _weight(verdicts[name].confidence) for name in strongest.values()}
    liked = verdicts["human_gain"].figures.get("liked_nats") if "human_gain" in verdicts else None
    credit = min(max(float(liked or 0.0), 0.0), CREDIT)
    odds = PRIOR + sum(weights.values()) - credit
    probability = max(0.99 if alone else 0.0, 1 / (1 + exp(-odds)))
    names = [*alone, *sorted((n for n in weights if n not in alone), key=lambda n: -weights[n])]
    signs = tuple(verdicts[name] for name in names)
    return Assessment(
        probability=probability,
        signs=signs,
        names=tuple(names),
        decisive=bool(alone),
        since=_since([v for v in signs if v.level in ("act", "stop")] or list(signs)),
        relapse=rollbacks > 0,
    )


def _enough(name: str, verdict: Verdict) -> bool:
    return verdict.level == "stop" or (name in ("human_gain", "reward_flattened") and verdict.level == "act")


def _weight(confidence: float | None) -> float:
    """Nats of evidence; none for a coin flip, none against."""
    p = min(max(confidence or 0.5, 0.5), 0.99)
    return min(log(p / (1 - p)), MOST)


def _since(signs: Sequence[Verdict]) -> int | None:
    """The earliest step that any of the signs dates from."""
    steps = [figure for v in signs if isinstance(figure := v.figures.get("since"), int)]
    return min(steps, default=None)


@dataclass(frozen=True, kw_only=True)
class Steering:
    """The settings that the guardian may change, as they are."""

    kl_coef: float
    length_penalty: float = 0.0
    missing_eos_ceiling: float | None = None
    entropy_coef: float = 0.0
    learning_rate_factor: float = 1.0
    correction: Correction | None = None
    """What judges' verdicts have made of the score."""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Steering":
        """From the plain values of `record`."""
        values: dict[str, Any] = dict(record)
        if values.get("correction") is not None:
            values["correction"] = Correction.of(values["correction"])
        return cls(**values)

    def record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "correction": None if self.correction is None else self.correction.record()}

    def told(self) -> dict[str, Any]:
        """A word or number each, for people."""
        return {**asdict(self), "correction": "score alone" if self.correction is None else self.correction.words}


def corrected(
    now: Steering,
    decision: Decision,
    actions: ActionsConfig,
    low: float,
    high: float,
    raised_by: float = 1.0,
    correction: Correction | None = None,
    initial: float = inf,
) -> Steering:
    """The settings to go on with after a decision; the KL coefficient stays within [low, high].

    With a rollback, and at the first signs, the KL coefficient rises, for whatever leads the policy astray is reached
    by moving. Only where answers grew alike and nothing else is wrong does an entropy bonus come first. What is gamed
    gets its price. `raised_by` is the factor by which it was raised since the last rollback: going back is the
    stronger remedy for the same trouble, so the two factors do not multiply.
    """
    if decision.action == "lower_kl":
        return replace(now, kl_coef=min(max(now.kl_coef / actions.kl_factor, low), high))
    if decision.action in ("correct_reward", "tighten", "roll_back") and correction is not None:
        now = replace(now, correction=correction)
    if decision.relax:
        now = replace(now, kl_coef=min(now.kl_coef, max(now.kl_coef / actions.kl_factor, initial)))
    if decision.action not in ("tighten", "roll_back"):
        return now
    rules, changed = set(decision.rules), now
    if "mode_collapse" in rules:
        changed = replace(changed, entropy_coef=max(now.entropy_coef, actions.entropy_coef))
    if "not_finite" in rules:
        changed = replace(changed, learning_rate_factor=now.learning_rate_factor / 2)
    if rules - {"mode_collapse", "not_finite"}:
        undone = raised_by if decision.action == "roll_back" else 1.0
        raised = max(now.kl_coef / undone * actions.kl_factor, actions.kl_least)
        changed = replace(changed, kl_coef=max(now.kl_coef, min(max(raised, low), high)))
    if "length_hacking" in rules:
        changed = replace(changed, length_penalty=max(now.length_penalty, actions.length_penalty))
    if "incoherence" in rules:
        ceiling = actions.missing_eos_ceiling
        old = now.missing_eos_ceiling
        changed = replace(changed, missing_eos_ceiling=ceiling if old is None else min(old, ceiling))
    return changed


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """Whether tightened settings have helped: the figure that gave the alarm has gone back half of its way, or judges
    like what the policy has written since.
    """

    figure: str
    before: float
    """Its level before the trouble."""
    at: float
    """Its level when the settings were tightened."""
    began: int
    """Step at which the settings were tightened."""
    until: int
    """Step at which that is decided."""
    since: int | None
    """Step at which the trouble began."""
    rules: list[str]

    def helped(self, now: float) -> bool:
        """Whether a level of `now` is half of the way back, or more."""
        half = (self.before + self.at) / 2
        return now <= half if self.at > self.before else now >= half


def trial(decision: Decision, began: int, until: int) -> Trial | None:
    """What to look at after a decision to tighten; None where no sign says from where to where its figure went."""
    for verdict in decision.evidence:
        for name, before in verdict.figures.items():
            at = verdict.figures.get(name.removesuffix("_before"))
            if name.endswith("_before") and isinstance(before, float) and isinstance(at, float) and at != before:
                return Trial(
                    figure=name.removesuffix("_before"),
                    before=before,
                    at=at,
                    began=began,
                    until=until,
                    since=decision.since,
                    rules=list(decision.rules),
                )
    return None


@dataclass
class Memory:
    """What the guardian has done so far; plain values, kept with every checkpoint."""

    rollbacks: int = 0
    corrected: int = 0
    """Verdicts behind the correction of the reward that is in force; 0 without one."""
    quiet_until: int = 0
    """No new change up to this step: what was changed needs time to show."""
    likely_updates: int = 0
    """Updates in a row at which trouble was likely; one kind of evidence may be chance once."""
    tightened: bool = False
    """Settings were tightened, and the doubt behind it has not passed since."""
    trial: dict[str, Any] | None = None
    """What must have gone back half of its way some updates after settings were tightened (`Trial` as plain values)."""
    raised_by: float = 1.0
    """Factor by which the KL coefficient was raised since the last rollback."""
    advised_until: int = 0
    """Advice is not repeated up to this step."""
    asked_until: int = 0
    """No judges are asked beyond their turn up to this step; what is certain is acted upon all the same."""
    abandoned: list[list[int]] = field(default_factory=list)
    """Steps that rollbacks undid, each as [from, to]: after the first, up to the last."""


def decide(verdicts: Mapping[str, Verdict], config: GuardianConfig, memory: Memory, step: int) -> Decision | None:
    """What to do at `step`; None when nothing is to be done, or not enough is known."""
    if config.mode == "silent":
        return None
    heard = {name: v for name, v in verdicts.items() if mode_of(name, config) != "silent"}
    acting = {name: v for name, v in heard.items() if mode_of(name, config) == "act"}
    found, able = assess(heard, memory.rollbacks), assess(acting, memory.rollbacks)
    quiet = step <= memory.quiet_until
    if able.probability >= SURE_ENOUGH and (able.decisive or not quiet):
        final = memory.rollbacks >= config.actions.max_rollbacks
        return decision("stop" if final else "roll_back", able, because(able), taken=True)
    if quiet:
        return None
    if found.probability >= SURE_ENOUGH and step > memory.advised_until:
        return decision("roll_back", found, because(found), taken=False)
    biased = heard.get("reward_bias")
    if biased is not None and biased.level == "act" and config.actions.correct_reward:
        may = mode_of("reward_bias", config) == "act"
        if may or step > memory.advised_until:
            alone = Assessment(probability=biased.confidence or 0.5, signs=(biased,), names=("reward_bias",))
            return decision("correct_reward", alone, biased.message, taken=may)
    if _likely(able, memory) and not memory.tightened:
        return decision("tighten", able, because(able), taken=True)
    if _likely(found, memory) and not _likely(able, memory) and step > memory.advised_until:
        return decision("tighten", found, because(found), taken=False)
    stalled = heard.get("stalled")
    # A policy that was held back for good reason may stall, and a corrected reward begins anew at 0.
    never = memory.rollbacks == 0 and memory.raised_by == 1.0 and not memory.corrected
    if stalled is not None and stalled.level == "watch" and never:
        may = mode_of("stalled", config) == "act"
        if may or step > memory.advised_until:
            alone = Assessment(probability=stalled.confidence or 0.5, signs=(stalled,), names=("stalled",))
            return decision("lower_kl", alone, stalled.message, taken=may)
    if able.signs and able.probability >= DOUBT and config.checks.every and step > memory.asked_until:
        return decision("ask_humans", able, f"Signs of trouble, not proof ({able.probability:.0%}).", taken=True)
    return None


def _likely(found: Assessment, memory: Memory) -> bool:
    """Whether trouble is likelier than not, by two kinds of evidence or at two updates in a row."""
    return found.probability >= LIKELY and (found.doubtful or memory.likely_updates >= 2)


def decision(action: Action, found: Assessment, reason: str, *, taken: bool) -> Decision:
    """An action with the evidence that it stands on."""
    return Decision(
        action=action,
        rules=found.names,
        evidence=found.signs,
        reason=reason,
        confidence=found.probability,
        since=found.since,
        taken=taken,
    )


def mode_of(rule: str, config: GuardianConfig) -> str:
    """Whether a rule may act, advise, or is off: never more than the guardian as a whole."""
    own = next((mode for name, mode in config.rules.items() if name == rule), config.mode)
    order = ("silent", "advise", "act")
    return min(own, config.mode, key=order.index)


def because(found: Assessment) -> str:
    """The signs in one sentence each."""
    cause = next((v.cause for v in found.signs if v.cause), "")
    return " ".join([*(v.message for v in found.signs if v.level != "ok"), cause]).strip()
