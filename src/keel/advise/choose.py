"""From facts to a method, the reasons for it, the runner-up, and what to beware of."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isfinite, isnan
from typing import Any

from keel.advise.facts import CHECKABLE, Facts
from keel.advise.memory import Fit, largest
from keel.advise.methods import METHODS, Method, fit_of, lacking
from keel.advise.rules import LONGER, ONLINE, Found, examine, totals
from keel.monitor.bands import agreement_gate
from keel.monitor.verdict import Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """What to do, and why."""

    facts: Facts
    verdict: Verdict
    method: Method | None
    """None where nothing should or can be trained yet."""
    later: Method | None
    """The method to take once what blocks is repaired; None where nothing blocks, or nothing would follow."""
    runner_up: Method | None
    fit: Fit | None
    found: tuple[Found, ...]
    scores: dict[str, float]
    """Sum of weights of each method that can be used here, best first."""
    excluded: dict[str, str]
    """Methods that cannot be used here, and why."""
    caveats: tuple[Verdict, ...]

    @property
    def fired(self) -> list[Found]:
        """Rules that speak for or against the advised method, the weightiest first; then the others that apply."""
        chosen = self.method or self.later
        name = chosen.name if chosen else ""
        applying = [one for one in self.found if one.fired]
        return sorted(applying, key=lambda one: -abs(one.rule.weights.get(name, 0.0)))

    @property
    def silent(self) -> list[Found]:
        return [one for one in self.found if not one.fired]


def advise(facts: Facts) -> Advice:
    """The method that most reasons speak for among those that can be used here."""
    found = examine(facts)
    sums = totals(found)
    excluded = {name: why for name, method in METHODS.items() if (why := lacking(facts, method))}
    order = list(METHODS)
    usable = sorted((name for name in order if name not in excluded), key=lambda n: (-sums.get(n, 0.0), order.index(n)))
    ranked = [name for name in usable if sums.get(name, 0.0) > 0]
    people_only = not facts.rewards & {"verifiable", "ai", "thumbs"}
    if facts.blocked and people_only:
        after = advise(replace(facts, override="once raters agree"))
        verdict = Verdict(
            "stop",
            "labels_first",
            "Train on nothing yet: raters agree too little on the comparisons.",
            remedy="Calibrate the raters (docs/calibration.md), have the disputed pairs judged again, measure again.",
        )
        method, later, ranked = None, after.method, []
    elif not ranked:
        method, later, verdict = None, None, _nothing(facts, excluded)
    else:
        method, later = METHODS[ranked[0]], None
        verdict = Verdict("ok", "method", f"{method.title[0].upper()}{method.title[1:]}.", {"score": sums[method.name]})
    return Advice(
        facts=facts,
        verdict=verdict,
        method=method,
        later=later,
        runner_up=METHODS[ranked[1]] if len(ranked) > 1 else None,
        fit=fit_of(facts, method) if method else None,
        found=tuple(found),
        scores={name: sums.get(name, 0.0) for name in usable},
        excluded=excluded,
        caveats=tuple(caveats(facts, method or later)),
    )


def _nothing(facts: Facts, excluded: dict[str, str]) -> Verdict:
    """Why no method can be named."""
    short = [why for why in excluded.values() if why.startswith("does not fit")]
    if short:
        most = largest(facts)
        return Verdict(
            "stop",
            "too_large",
            f"A model of {facts.model.parameters / 1e9:.3g} billion parameters cannot be trained in "
            f"{facts.hardware.device_gib:.3g} GiB by any method that the data allow.",
            {"largest_parameters": most},
            f"Take a model of up to {most / 1e9:.2g} billion parameters (LoRA on 4-bit weights), or a larger GPU.",
        )
    return Verdict(
        "stop",
        "nothing_to_learn_from",
        "There is nothing to learn from yet: no demonstrations, no judgments, no program or model that judges.",
        remedy="Collect comparisons (keel sample, then keel studio), write demonstrations, or name a --judge or "
        "--verifier.",
    )


def caveats(facts: Facts, method: Method | None) -> Iterator[Verdict]:
    """What to beware of, whichever method was chosen, and with this one."""
    name = method.name if method else ""
    yield from _of_labels(facts, name)
    yield from _of_rewards(facts, name)
    yield from _of_machine(facts, name)


def _of_labels(facts: Facts, name: str) -> Iterator[Verdict]:
    data, found = facts.data, facts.data.agreement
    if found is not None:
        low, high = (None if isnan(v) else v for v in (found.low, found.high))
        measure = "Krippendorff's alpha" if found.measured else "kappa"
        verdict = agreement_gate(found.alpha, low, high, measure=measure, thresholds=facts.thresholds)
        if verdict.level != "ok":
            yield verdict
    elif data.comparisons:
        yield Verdict(
            "watch",
            "agreement_unknown",
            "Nobody knows how far raters agree: no comparison has the votes of two of them.",
            remedy="Have 50 to 100 of the pairs judged twice, and look at keel data agreement.",
        )
    if found is not None and found.alpha < facts.thresholds.agreement_scale and isfinite(found.label_noise):
        yield Verdict(
            "watch",
            "label_noise",
            f"About {found.label_noise:.0%} of the labels are wrong, if votes err independently.",
            {"label_noise": found.label_noise},
            "The recipe tells the loss so where the loss can use it (label_noise of DPO).",
        )
    if 0 < data.comparisons < facts.enough and "verifiable" not in facts.rewards:
        yield Verdict(
            "watch",
            "few_comparisons",
            f"{data.comparisons:,} comparisons; for a {facts.scope} goal guide B wants {facts.enough:,}, below which "
            "results vary from run to run.",
            {"comparisons": data.comparisons, "wanted": facts.enough},
            "Report intervals, repeat with another seed, and collect where the policy is (keel prioritise).",
        )
    if data.longer_wins is not None and data.longer_wins >= LONGER:
        yield Verdict(
            "watch",
            "length_bias",
            f"The longer answer wins {data.longer_wins:.0%} of decided pairs: length may be all that is learned.",
            {"longer_wins": data.longer_wins},
            "Compare win-rates at equal length; for RL set ppo.shaping.length_penalty.",
        )


def _of_rewards(facts: Facts, name: str) -> Iterator[Verdict]:
    if name in ("rlaif", "cai"):
        golden = "" if facts.data.golden else " There is no golden set (--golden) to hold it against."
        yield Verdict(
            "watch",
            "judge_unproven",
            f"A model's judgments can be circular, and its biases spread (A).{golden}",
            remedy="Have people judge 100 pairs, and ask keel data judges whether the judge agrees with them.",
        )
    if facts.goal in CHECKABLE and "verifiable" not in facts.rewards:
        yield Verdict(
            "watch",
            "checkable",
            f"The goal is {facts.goal}, and no program checks the answers: a checked answer is worth many votes.",
            remedy=f"Name a verifier: --verifier {facts.goal}, or file.py:function.",
        )
    if name in ONLINE and "verifiable" not in facts.rewards and not facts.fresh:
        yield Verdict(
            "watch",
            "reward_model_once",
            "A reward model trained once is a lottery when optimised against: 43 to 76 % win-rate over three seeds "
            "of keel's demo, with every figure of the reward model healthy.",
            remedy="Let labels follow the policy (rounds, --fresh-labels), and believe win-rates, not scores.",
        )
    if name == "grpo":
        yield Verdict(
            "watch",
            "grpo_optimum",
            "GRPO as published weighs prompts by how alike their samples are, and ends elsewhere than RL's optimum.",
            remedy="The recipe takes preset dr_grpo, which does not; see docs/grpo.md.",
        )
    if name in ("dpo", "ipo", "simpo", "kto") and not facts.data.demonstrations and not facts.model.chat:
        yield Verdict(
            "watch",
            "no_sft",
            "Nothing says that the model can follow instructions, and there are no demonstrations to teach it.",
            remedy="The recipe fine-tunes on the preferred responses first.",
        )


def _of_machine(facts: Facts, name: str) -> Iterator[Verdict]:
    machine = facts.hardware
    if machine.gpus > 1:
        yield Verdict(
            "watch",
            "one_gpu",
            f"keel trains on one of the {machine.gpus} GPUs; memory is reckoned for one.",
            {"gpus": machine.gpus},
            "Use the others for other seeds or settings.",
        )
    if not machine.gpus and facts.model.parameters > 3e8 and name:
        yield Verdict(
            "watch",
            "slow",
            f"{facts.model.parameters / 1e9:.2g} billion parameters without a GPU: a step takes minutes, not seconds.",
            remedy="Try the recipe on a model of 10 to 100 million parameters first.",
        )
    if not machine.device_gib:
        yield Verdict(
            "watch", "memory_unknown", "The memory is not known; nothing was left out for it.", remedy="Give --ram-gib."
        )


def to_dict(advice: Advice) -> dict[str, Any]:
    """Everything, for JSON."""
    facts, fit = advice.facts, advice.fit
    return {
        "verdict": _plain(advice.verdict),
        "method": advice.method.name if advice.method else None,
        "method_later": advice.later.name if advice.later else None,
        "runner_up": advice.runner_up.name if advice.runner_up else None,
        "switch_when": advice.runner_up.switch if advice.runner_up else None,
        "memory": None
        if fit is None
        else {"how": fit.rung.name, "gib": fit.gib, "device_gib": fit.device_gib, "one_trunk": fit.one_trunk},
        "rules": [
            {
                "name": one.rule.name,
                "fired": one.fired,
                "because": one.because,
                "source": one.rule.source,
                "weights": dict(one.rule.weights),
            }
            for one in advice.found
        ],
        "scores": advice.scores,
        "excluded": advice.excluded,
        "caveats": [_plain(caveat) for caveat in advice.caveats],
        "facts": {
            "hardware": {
                "gpus": facts.hardware.gpus,
                "gpu_gib": facts.hardware.gpu_gib,
                "ram_gib": facts.hardware.ram_gib,
                "cores": facts.hardware.cores,
                "source": facts.hardware.source,
            },
            "parameters": facts.model.parameters,
            "parameters_source": facts.model.source,
            "comparisons": facts.data.comparisons,
            "ties": facts.data.ties,
            "demonstrations": facts.data.demonstrations,
            "ratings": facts.data.ratings,
            "prompts": facts.data.prompts,
            "golden": facts.data.golden,
            "longer_wins": facts.data.longer_wins,
            "agreement": None
            if facts.data.agreement is None
            else {
                "alpha": facts.data.agreement.alpha,
                "low": _number(facts.data.agreement.low),
                "high": _number(facts.data.agreement.high),
                "raters": facts.data.agreement.raters,
                "label_noise": _number(facts.data.agreement.label_noise),
            },
            "rewards": sorted(facts.rewards),
            "goal": facts.goal,
            "scope": facts.scope,
            "priority": facts.priority,
            "fresh_labels": facts.fresh,
        },
    }


def _plain(verdict: Verdict) -> dict[str, Any]:
    return {
        "level": verdict.level,
        "rule": verdict.rule,
        "message": verdict.message,
        "remedy": verdict.remedy,
        "figures": verdict.figures,
    }


def _number(value: float) -> float | None:
    return value if isfinite(value) else None
