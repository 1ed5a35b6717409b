"""`keel advise`: which method suits what there is, why, and the recipe to run."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keel.cli.render import BOLD, clipped, columns, next_step, out, styled
from keel.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keel.advise.choose import Advice
    from keel.advise.facts import Facts
    from keel.advise.memory import Fit
    from keel.advise.rules import Found

DESCRIPTION = """Choose a method from the machine, the model, the data, who judges and the goal; say which rules
decided, with their sources, what comes second and when to switch; and write a recipe that runs."""

EPILOG = """Each kind of data is a file, or a number of records where there is no file yet.

examples:
  keel advise --model Qwen/Qwen2.5-0.5B --comparisons votes.jsonl --demonstrations demos.jsonl
  keel advise --size 7B --gpus 1 --gpu-gib 24 --comparisons 20000 --kappa 0.55 --all
  keel advise --model models/mine --prompts gsm8k.jsonl --verifier maths --goal maths --write grpo.yaml"""

GOALS = ("quality", "safety", "maths", "code", "style", "format", "summaries")
REWARDS = ("people", "thumbs", "verifiable", "ai", "none")
KINDS = {
    "comparisons": "two responses and which is better, with votes where there are any",
    "demonstrations": "prompts with an ideal response",
    "ratings": "responses with thumbs up or down",
    "prompts": "prompts without a response",
    "golden": "comparisons judged by seniors, never trained on",
}


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "advise", help="which method to use, why, and a recipe for it", description=DESCRIPTION
    )
    parser.epilog = EPILOG
    parser.add_argument("--model", metavar="MODEL", help="the model to start from: a folder, or a name on the hub")
    parser.add_argument("--size", metavar="N", help="its parameters, such as 7B; read off files or name where possible")
    for kind, text in KINDS.items():
        parser.add_argument(f"--{kind}", metavar="FILE", help=text)
    parser.add_argument("--kappa", metavar="X", type=float, help="agreement of raters, where the file has no votes")
    parser.add_argument(
        "--reward",
        metavar="KIND",
        choices=REWARDS,
        action="append",
        default=[],
        help="who says what is better: people, thumbs, verifiable, ai or none (default: what the other options imply)",
    )
    parser.add_argument(
        "--verifier", metavar="V", help="what checks answers: maths, code, text, tags, json or file.py:function"
    )
    parser.add_argument("--judge", metavar="MODEL", help="a model that judges: a folder, or a web address")
    parser.add_argument("--constitution", metavar="FILE", help="written principles for a judge")
    parser.add_argument("--goal", choices=GOALS, default="quality", help="what the model is for (default: quality)")
    parser.add_argument("--scope", choices=("narrow", "general"), help="one domain or many (default: by the goal)")
    parser.add_argument(
        "--priority", choices=("stability", "reward"), default="stability", help="what counts more (default: stability)"
    )
    parser.add_argument(
        "--fresh-labels",
        metavar="LABELLER",
        nargs="?",
        const="people",
        help="fresh answers can be judged while training goes on; file.py:function where a program asks for it",
    )
    parser.add_argument("--gpus", metavar="N", type=int, help="default: what this machine has")
    parser.add_argument(
        "--gpu-gib", metavar="GIB", type=float, help="memory of one GPU (default: what this machine has)"
    )
    parser.add_argument("--ram-gib", metavar="GIB", type=float, help="default: what this machine has")
    parser.add_argument("--all", action="store_true", help="rules that did not apply and methods left out, too")
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    parser.add_argument("--write", metavar="RECIPE", type=Path, help="write a recipe for the advised method")
    parser.add_argument("--override", metavar="WHY", help="train on comparisons on which raters disagree, because ...")
    parser.set_defaults(call=advise, parser=parser)


def advise(arguments: argparse.Namespace) -> None:
    """Read what there is, choose, print, write."""
    from keel.advise.choose import advise as choose
    from keel.advise.choose import to_dict

    facts = facts_of(arguments)
    advice = choose(facts)
    written = write(advice, arguments.write) if arguments.write else None
    if arguments.json:
        out(json.dumps(to_dict(advice) | {"recipe": str(written) if written else None}, indent=2))
    else:
        show(advice, everything=arguments.all)
    follow_up(advice, written)


def facts_of(arguments: argparse.Namespace) -> "Facts":
    """Everything that the rules look at, from the options, the files and the machine."""
    from keel.advise.facts import NARROW, Facts
    from keel.advise.gather import gather
    from keel.advise.hardware import detect
    from keel.advise.model import describe
    from keel.advise.recipe import CHECKS

    if (file := arguments.constitution) and not Path(file).is_file():
        raise ConfigError(f"--constitution {file}: no such file.")
    if (named := arguments.verifier) and ":" not in named and named not in CHECKS:
        raise ConfigError(f"--verifier {named}: expected {', '.join(CHECKS)}, or file.py:function.")
    if arguments.override is not None and len(arguments.override) < 10:
        raise ConfigError(
            f"--override {arguments.override!r}: say why in ten letters or more; it is kept with the run."
        )
    data = gather({kind: getattr(arguments, kind) for kind in KINDS}, arguments.kappa)
    implied = {
        "people": data.comparisons > 0 or arguments.fresh_labels is not None,
        "thumbs": data.ratings > 0,
        "verifiable": arguments.verifier is not None,
        "ai": arguments.judge is not None or arguments.constitution is not None,
    }
    if "none" in arguments.reward and len(arguments.reward) > 1:
        raise ConfigError("--reward none beside another one: leave one of them out.")
    given = set(arguments.reward) or {name for name, holds in implied.items() if holds}
    return Facts(
        hardware=detect(arguments.gpus, arguments.gpu_gib, arguments.ram_gib),
        model=describe(arguments.model, arguments.size),
        data=data,
        rewards=frozenset(given - {"none"}),
        goal=arguments.goal,
        scope=arguments.scope or ("narrow" if arguments.goal in NARROW else "general"),
        priority=arguments.priority,
        fresh=arguments.fresh_labels is not None,
        verifier=arguments.verifier or "",
        judge=arguments.judge or "",
        constitution=arguments.constitution or "",
        labeller=arguments.fresh_labels if arguments.fresh_labels not in (None, "people") else "",
        override=arguments.override or "",
    )


def show(advice: "Advice", *, everything: bool) -> None:
    """The advice for people."""
    facts, method = advice.facts, advice.method
    out(styled(f"method: {method.name}" if method else advice.verdict.message, BOLD, sys.stdout))
    out(f"  {method.title}" if method else f"  {advice.verdict.remedy}")
    if advice.later:
        out(f"  After that: {advice.later.name}, {advice.later.title}.")
    out(f"\nfrom\n{columns(told(facts, advice.fit))}")
    chosen = method or advice.later
    if advice.fired:
        counted = f", and what they count for {chosen.name}" if chosen else ""
        out(f"\nrules that applied{counted}\n{columns(rules(advice.fired, chosen.name if chosen else ''))}")
    else:
        out("\nno rule applied")
    if advice.runner_up:
        out(f"\nsecond: {advice.runner_up.name}, {advice.runner_up.title}")
        out(f"  Switch to it when {advice.runner_up.switch}.")
    if advice.caveats:
        out("\nbeware")
        for caveat in advice.caveats:
            out(f"  {caveat.level}: {caveat.message}\n    {caveat.remedy}")
    if everything:
        out(f"\nrules that did not apply\n{columns([[one.rule.name, one.because] for one in advice.silent])}")
        ranking = [[name, f"{score:g}"] for name, score in advice.scores.items()]
        out(f"\nmethods that could be used\n{columns(ranking)}" if ranking else "\nno method could be used")
        out(f"\nmethods left out\n{columns([[name, why] for name, why in advice.excluded.items()])}")


def rules(fired: "Sequence[Found]", name: str) -> list[list[str]]:
    """Weight for the method of this name, rule, figures and source."""
    weights = [one.rule.weights.get(name, 0.0) for one in fired]
    return [
        [f"{weight:+g}" if weight else " ·", one.rule.name, one.because, f"[{one.rule.source}]"]
        for weight, one in zip(weights, fired, strict=True)
    ]


def told(facts: "Facts", fit: "Fit | None") -> list[list[str]]:
    """What the advice rests on, a line each."""
    machine, data = facts.hardware, facts.data
    gpus = f"{machine.gpus} × {machine.gpu_gib:.3g} GiB" if machine.gpus else "no GPU"
    counts = [
        (data.comparisons, "comparisons" + (f" (and {data.ties} ties)" if data.ties else "")),
        (data.demonstrations, "demonstrations"),
        (data.ratings, "ratings"),
        (data.prompts, "prompts"),
        (data.golden, "golden"),
    ]
    rows = [
        ["machine", f"{gpus}, {machine.ram_gib:.3g} GiB RAM, {machine.cores} cores ({machine.source})"],
        [
            "model",
            f"{facts.model.path or 'unnamed'}, {amount(facts.model.parameters)} parameters ({facts.model.source})",
        ],
        ["data", ", ".join(f"{count:,} {what}" for count, what in counts if count) or "none"],
        ["judges", ", ".join(sorted(facts.rewards)) or "none"],
        ["goal", f"{facts.goal}, {facts.scope}; {facts.priority} first"],
    ]
    if data.agreement:
        measured = f"{data.agreement.raters} raters, measured" if data.agreement.measured else "as given"
        rows.insert(3, ["agreement", f"{data.agreement.alpha:.2f} ({measured})"])
    if fit:
        rows.append(["memory", fit.text])
    return [[name, clipped(text, 110)] for name, text in rows]


def amount(parameters: float) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6), ("thousand", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.3g} {unit}"
    return f"{parameters:.0f}"


def write(advice: "Advice", path: Path) -> Path:
    """The recipe of the advised method as a file; raises ConfigError where there is none to write."""
    from keel.advise.recipe import recipe_of, unanswered
    from keel.core.config import load_config
    from keel.core.files import atomic_write_text
    from keel.core.yaml_text import write as as_yaml
    from keel.stages.recipe import Recipe

    if advice.method is None:
        raise ConfigError(f"{path} was not written: {advice.verdict.message} {advice.verdict.remedy}")
    if path.exists():
        raise ConfigError(f"{path} exists. Choose another name, or remove it first.")
    values = recipe_of(advice)
    load_config(Recipe, None, base=values)  # what is written is valid
    heading = [f"{advice.method.title[0].upper()}{advice.method.title[1:]}. Written by keel advise, because"]
    heading += [
        f"- {one.because} [{one.rule.source}]"
        for one in advice.fired
        if one.rule.weights.get(advice.method.name, 0) > 0
    ]
    heading += [f"To fill in: {line}" for line in unanswered(advice)]
    atomic_write_text(path, "".join(f"# {line}\n" for line in heading) + as_yaml(values))
    return path


def follow_up(advice: "Advice", written: Path | None) -> None:
    """What to do next, in one line."""
    from keel.advise.recipe import unanswered

    if written:
        missing = unanswered(advice)
        begin = f"fill in {missing[0]}, then " if missing else ""
        next_step(f"{begin}keel run {written}")
    elif advice.method:
        next_step("the same with --write recipe.yaml gives a recipe; --all says why not something else")
    elif advice.later:
        next_step(
            "keel data agreement FILE names raters and items; docs/calibration.md says how to bring them together"
        )
    else:
        next_step("keel sample, then keel studio, to collect comparisons")
