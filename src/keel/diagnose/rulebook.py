"""Which rules a stage is put to.

keel's own RL is put to the rules of keel.monitor, whose lines were set on its figures. Logs of other tools hold few of
these figures, and what is usual differs, so they are put to the rules of keel.diagnose.policy, which ask for two signs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from keel.diagnose import offline, policy
from keel.diagnose.dialect import Kind
from keel.diagnose.log import Stage
from keel.monitor import rules as monitor
from keel.monitor.guardian import Assessment, assess
from keel.monitor.history import History
from keel.monitor.thresholds import Thresholds
from keel.monitor.verdict import Verdict

Rule = Callable[[History, Thresholds], Verdict]

ABSENT = ("Not measured", "Not judged")
"""How the message of a rule begins whose figures the log does not have."""
RULES: Mapping[Kind, Sequence[Rule]] = {
    "rl": (
        policy.distance,
        policy.length_growth,
        policy.unfinished,
        policy.collapse,
        policy.spread,
        policy.score_course,
        policy.update_size,
        policy.critic,
    ),
    "preference": (
        offline.pair_accuracy,
        offline.chosen_falls,
        offline.held_out_loss,
        offline.gap,
        offline.saturated,
        offline.no_learning,
    ),
    "reward": (
        offline.pair_accuracy,
        offline.held_out_loss,
        offline.gap,
        offline.score_size,
        offline.no_learning,
    ),
    "sft": (offline.held_out_loss, offline.no_learning),
}
COUNTERPARTS: Mapping[Rule, Sequence[str]] = {
    policy.distance: ("kl_bands", "kl_runaway"),
    policy.length_growth: ("length_hacking",),
    policy.unfinished: ("incoherence",),
    policy.collapse: ("mode_collapse",),
    policy.spread: ("reward_flattened",),
    policy.update_size: ("too_far",),
    policy.critic: ("value_failure",),
    policy.score_course: (),
}
"""The rules of keel.monitor that see to the same; where they can judge, a run of keel does not need these."""


def judged(stage: Stage, thresholds: Thresholds) -> Iterator[tuple[Rule, Verdict]]:
    """The rules for this stage and what each says of its end."""
    if stage.kind != "rl":
        yield from ((rule, rule(stage.history, thresholds)) for rule in RULES[stage.kind])
        return
    watched = {
        name: (rule, rule(stage.history, thresholds)) for name, rule in monitor.RULES.items() if name != "not_finite"
    }
    if stage.by_keel:
        yield from watched.values()
        known = {name for name, (_, verdict) in watched.items() if measured(verdict)}
        for rule in RULES["rl"]:
            if not known & set(COUNTERPARTS[rule]):
                yield rule, rule(stage.history, thresholds)
        return
    for rule in RULES["rl"]:
        yield rule, rule(stage.history, thresholds)
    covered = {name for names in COUNTERPARTS.values() for name in names}
    yield from (pair for name, pair in watched.items() if name not in covered and not measured(pair[1]))


def trouble(history: History, thresholds: Thresholds) -> Assessment:
    """What keel's rules say together, as the guardian weighs it while a run goes on."""
    return assess(monitor.judged(history, thresholds))


def measured(verdict: Verdict) -> bool:
    """Whether the log had what the rule needs."""
    return not verdict.message.startswith(ABSENT)
