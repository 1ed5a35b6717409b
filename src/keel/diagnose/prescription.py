"""The next settings to try: what the findings call for, in the words of the tool that ran."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from keel.diagnose.findings import Examined, Finding
from keel.diagnose.log import Stage
from keel.diagnose.moves import CALLED_FOR, DEFAULT_MOVES, HEALTHY_MOVES, MOVES
from keel.diagnose.settings import VOCABULARIES
from keel.monitor.history import number
from keel.monitor.verdict import LEVELS

MOST = 3
"""Settings in a letter: more at once, and nobody knows which of them helped."""
BACK_OFF = {"hold": "hold_target", "loosen": "loosen_target"}
"""Where a controller steers the KL coefficient, its target is what to change."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One setting to change."""

    setting: str
    formerly: str
    had: float | None
    """The value in this run; None where the log does not say."""
    to: str
    why: str
    watch: str
    rule: str
    """The rule that calls for it; empty where it is only worth a try."""
    stage: str
    usual: bool = False
    """Whether the tool does so by default; such advice comes last."""


def prescribe(examined: Sequence[Examined]) -> tuple[Advice, ...]:
    """At most three settings, those for the gravest findings first; for a healthy run what is worth a try."""
    current = [one for one in examined if not one.stage.over] or list(examined)
    pairs = [(finding, one.stage) for one in current for finding in one.findings]
    pairs.sort(key=lambda pair: (pair[0].until is not None, -pair[0].gravity, -(pair[0].verdict.confidence or 0)))
    advice: dict[tuple[str, str], Advice] = {}
    spent: set[tuple[str, str]] = set()
    for finding, move, stage in _called_for(pairs):
        _add(advice, spent, stage, move, finding)
    last = pairs[0][1] if pairs else current[-1].stage
    for move in DEFAULT_MOVES[last.kind] if pairs else _next_for(current[-1]):
        _add(advice, spent, last, move, None)
    return tuple(sorted(advice.values(), key=lambda one: one.usual))[:MOST]


def _called_for(pairs: Sequence[tuple[Finding, Stage]]) -> Iterator[tuple[Finding, str, Stage]]:
    """Moves of all findings: the first two of the gravest, then the first of each other, then the rest."""
    queues = [list(CALLED_FOR.get(finding.verdict.rule, DEFAULT_MOVES[stage.kind])) for finding, stage in pairs]
    if queues and queues[0]:
        yield pairs[0][0], queues[0].pop(0), pairs[0][1]
    while any(queues):
        for (finding, stage), queue in zip(pairs, queues, strict=True):
            if queue:
                yield finding, queue.pop(0), stage


def _next_for(examined: Examined) -> Sequence[str]:
    """Moves worth a try after a healthy stage."""
    history = examined.stage.history
    if examined.too_short:
        return ("longer", "pass_more", "evaluate", "judge")
    moves = list(HEALTHY_MOVES[examined.stage.kind])
    if examined.stage.kind == "rl":
        scores = history.steps.known("score_mean")
        third = len(scores) // 3
        if third >= 3 and scores[-third:].mean() > scores[third:-third].mean() + scores[-third:].std(ddof=1):
            moves.insert(0, "longer")
        kl = number(history.steps.last("kl_nats_per_token"))
        if kl < 0.1:
            moves.insert(1, "loosen")
    return moves


def _add(
    advice: dict[tuple[str, str], Advice], spent: set[tuple[str, str]], stage: Stage, move: str, finding: Finding | None
) -> None:
    vocabulary = VOCABULARIES[stage.settings]
    if move in BACK_OFF and BACK_OFF[move] in vocabulary and stage.set_to.get("kl.controller") == "adaptive":
        move_here = BACK_OFF[move]
    else:
        move_here = move
    setting = vocabulary.get(move_here)
    if setting is None:
        return
    algorithm = str(stage.set_to.get("algorithm") or "ppo")
    name = setting.name.replace("{algorithm}", algorithm)
    had, to = setting.change(stage.set_to, algorithm)
    key = (name, "" if setting.factor else to)  # a number can go one way only; words name different changes
    if key in advice or key in spent:
        return
    if not to:  # at its limit, which is no reason to go the other way
        spent.add(key)
        return
    stop = _last_good(stage, finding)
    if "{stop}" in to:
        if stop is None:
            return
        to = to.replace("{stop}", str(stop))
    advice[key] = Advice(
        setting=name,
        formerly=setting.formerly,
        had=had,
        to=to,
        why=MOVES[move].why,
        watch=MOVES[move].watch,
        rule=finding.verdict.rule if finding else "",
        stage=stage.name,
        usual=setting.usual,
    )


def _last_good(stage: Stage, finding: Finding | None) -> int | None:
    """The update before the trouble began; None where it began with the run."""
    if finding is None or finding.since is None or finding.gravity < LEVELS.index("act"):
        return None
    before = [int(row["step"]) for row in stage.history.steps.rows if row["step"] < finding.since]
    return before[-1] if before else None
