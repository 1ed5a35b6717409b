"""One planted fault a rule, and its healthy twin."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from helpers.patients import comparisons, demonstrations, passage, question, sentence

from keel.data.doctor.examine import RULES, examine
from keel.data.doctor.finding import SEVERITIES
from keel.data.doctor.limits import Limits
from keel.data.doctor.patient import Patient, Refused, patient_of
from keel.data.records import Comparison, Demonstration, LabelledText, Message, Rating, Vote

N = 300
PAIRS = comparisons(N)
DEMOS = demonstrations(N)


def pairs(change: Callable[[int, Comparison], Comparison], **known: object) -> Patient:
    return patient_of([change(at, pair) for at, pair in enumerate(PAIRS)], **known)


def demos(change: Callable[[int, Demonstration], Demonstration], **known: object) -> Patient:
    return patient_of([change(at, demo) for at, demo in enumerate(DEMOS)], **known)


def every(number: int, change: Callable) -> Callable:
    """`change` for each `number`th record, the others as they are."""
    return lambda at, record: change(record) if at % number == 0 else record


def repeated(records: Sequence, change: Callable = lambda record: record) -> Patient:
    copies = [replace(change(record), source=f"copies.jsonl:{n}") for n, record in enumerate(records[:6], start=1)]
    return patient_of([*records, *copies])


def one_word_changed(demo: Demonstration) -> Demonstration:
    words = demo.response.split()
    words[5] = "something"
    return replace(demo, response=" ".join([*words, *passage(random.Random(1), 5).split()]))


def long_demos() -> list[Demonstration]:
    tail = passage(random.Random(1), 5)
    return [replace(demo, response=f"{demo.response} {tail}") if at < 6 else demo for at, demo in enumerate(DEMOS)]


def longer_wins(at: int, pair: Comparison) -> Comparison:
    return replace(pair, preference=float((len(pair.a) > len(pair.b)) == (at % 10 != 0)))


def best_source(share: int) -> Callable[[int, Comparison], Comparison]:
    """Model "one" wins all but one in `share` pairs, now as a, now as b."""

    def change(at: int, pair: Comparison) -> Comparison:
        models = ("one", "two") if at % 2 else ("two", "one")
        wins = at % share != 0
        return replace(pair, models=models, preference=float((models[0] == "one") == wins))

    return change


def noisy(flip: int) -> Patient:
    """The answer with the better of two words wins; every `flip`th label is the wrong one (0: none)."""
    rng = random.Random(3)
    records = []
    for number in range(600):
        best = rng.random() < 0.5
        good, bad = f"splendid {passage(rng, 2)} splendid", f"dreadful {passage(rng, 2)} dreadful"
        a, b = (good, bad) if best else (bad, good)
        wrong = bool(flip) and number % flip == 0
        records.append(
            Comparison(question(rng), f"{a}.", f"{b}.", float(best != wrong), source=f"noise.jsonl:{number}")
        )
    return patient_of(records)


def with_votes(busy: int) -> Patient:
    """`busy` of 100 votes are ann's."""
    return pairs(lambda at, pair: replace(pair, votes=(Vote("ann" if at % 100 < busy else "bob", "a"),)))


def chats(turns: Sequence[tuple[str, str]]) -> Patient:
    prompt = tuple(Message(role, text) for role, text in turns)
    first = (Message("user", prompt[-1].content),)
    return demos(
        lambda at, demo: replace(demo, prompt=prompt if at < 5 else (*first[:-1], Message("user", demo.prompt)))
    )


def cycle(closed: bool) -> Patient:
    x, y, z = "The first answer here.", "A second answer there.", "Some third answer now."
    last = Comparison("Which?", z, x, 1.0 if closed else 0.0, source="circle.jsonl:3")
    return patient_of(
        [
            Comparison("Which?", x, y, 1.0, source="circle.jsonl:1"),
            Comparison("Which?", z, y, 0.0, source="circle.jsonl:2"),
            last,
            *PAIRS,
        ]
    )


def against(shared: int) -> Patient:
    other = patient_of([*DEMOS[:shared], *demonstrations(50, seed=9)], name="eval.jsonl")
    return demos(lambda at, demo: demo, against=(other,))


def across_the_split(change: Callable[[str], str]) -> Patient:
    """A long prompt repeated with a change, so that a copy or two land on the held-out side."""
    base = passage(random.Random(7), 6)
    records = [Demonstration(f"{base} {change(str(n))}", passage(random.Random(n)), f"d.jsonl:{n}") for n in range(12)]
    return patient_of([*records, *DEMOS], holdout=0.2)


def moulded(share: int) -> Patient:
    rng = random.Random(5)
    return demos(
        lambda at, demo: replace(demo, prompt=f"Write a poem about {sentence(rng)}") if at % share == 0 else demo
    )


FRENCH = "Le chat est dans la maison et il ne veut pas sortir pour le moment, ce qui est dommage."
refused = (Refused("pairs.jsonl:7", "broken JSON", "broken JSON at column 3"),)
empty = (Refused("pairs.jsonl:7", "response is empty", "response is empty. Fill it in or drop the line."),)


@dataclass(frozen=True)
class Case:
    """A fault that `rule` finds in `ill`, where `well` has none."""

    rule: str
    ill: Callable[[], Patient]
    well: Callable[[], Patient]
    severity: str = "warn"
    says: str = ""


def healthy() -> Patient:
    return pairs(lambda at, pair: pair)


def healthy_demos() -> Patient:
    return demos(lambda at, demo: demo)


CASES = {
    "a line that cannot be read": Case(
        "unreadable", lambda: pairs(lambda at, p: p, refused=refused), healthy, says="1 × broken JSON"
    ),
    "an empty answer": Case("empty_answers", lambda: demos(lambda at, d: d, refused=empty), healthy_demos),
    "an answer of invisible characters": Case(
        "empty_answers",
        lambda: demos(every(100, lambda d: replace(d, response="\u200b \ufeff"))),
        healthy_demos,
        says="3 × invisible",
    ),
    "a placeholder": Case(
        "empty_answers", lambda: demos(every(100, lambda d: replace(d, response="N/A"))), healthy_demos
    ),
    "twins": Case(
        "identical_answers", lambda: pairs(every(60, lambda p: replace(p, b=p.a.upper(), preference=0.5))), healthy
    ),
    "many twins": Case(
        "identical_answers",
        lambda: pairs(every(10, lambda p: replace(p, b=p.a, preference=0.5))),
        healthy,
        "error",
        "30 pairs (10 %)",
    ),
    "copies": Case("duplicates", lambda: repeated(DEMOS), healthy_demos, says="6 records repeat"),
    "copies with the sides swapped": Case(
        "duplicates",
        lambda: repeated(PAIRS, lambda p: replace(p, a=p.b, b=p.a, preference=1 - p.preference, models=p.models)),
        healthy,
    ),
    "many copies": Case("duplicates", lambda: patient_of([*DEMOS, *DEMOS]), healthy_demos, "error"),
    "near copies": Case("near_duplicates", lambda: repeated(long_demos(), one_word_changed), healthy_demos),
    "an evaluation set inside": Case("leakage", lambda: against(4), lambda: against(0), "error", "4 records have"),
    "near copies across the split": Case(
        "leakage",
        lambda: across_the_split(lambda n: n),
        lambda: across_the_split(lambda n: passage(random.Random(int(n)), 9)),
    ),
    "a pair preferred both ways": Case(
        "contradictions",
        lambda: repeated(PAIRS, lambda p: replace(p, preference=1 - p.preference)),
        healthy,
        says="6 pairs are preferred both ways",
    ),
    "a circle": Case("contradictions", lambda: cycle(True), lambda: cycle(False), says="in a circle"),
    "the longer answer wins": Case("length_bias", lambda: pairs(longer_wins), healthy, "error"),
    "the shorter answer wins": Case(
        "length_bias",
        lambda: pairs(lambda at, p: replace(p, preference=float((len(p.a) < len(p.b)) == (at % 3 != 0)))),
        healthy,
    ),
    "one source wins most": Case("source_bias", lambda: pairs(best_source(8)), healthy, says="one wrote the preferred"),
    "one source wins nearly all": Case("source_bias", lambda: pairs(best_source(50)), healthy, "error"),
    "the first side is favoured": Case(
        "side_bias", lambda: pairs(lambda at, p: replace(p, preference=float(at % 3 != 0))), healthy
    ),
    "one side takes nearly all": Case(
        "side_bias", lambda: pairs(lambda at, p: replace(p, preference=float(at % 30 == 0))), healthy, "error"
    ),
    "one prompt has nearly all": Case(
        "one_prompt", lambda: pairs(lambda at, p: replace(p, prompt="Why?") if at % 30 else p), healthy, "error"
    ),
    "one prompt has most": Case(
        "one_prompt", lambda: pairs(lambda at, p: replace(p, prompt="Why?") if at % 8 else p), healthy
    ),
    "one rater": Case("one_rater", lambda: with_votes(90), lambda: with_votes(50), says="ann cast 90 %"),
    "thumbs up only": Case(
        "label_balance",
        lambda: patient_of([Rating(d.prompt, d.response, at % 50 != 0) for at, d in enumerate(DEMOS)]),
        lambda: patient_of([Rating(d.prompt, d.response, at % 3 != 0) for at, d in enumerate(DEMOS)]),
        "error",
    ),
    "one label": Case(
        "label_balance",
        lambda: patient_of([LabelledText(d.response, at % 8 != 0) for at, d in enumerate(DEMOS)]),
        lambda: patient_of([LabelledText(d.response, at % 2 != 0) for at, d in enumerate(DEMOS)]),
    ),
    "wrong labels": Case("label_noise", lambda: noisy(20), lambda: noisy(0), says="of unseen pairs rightly"),
    "answers cut at a limit": Case(
        "truncation",
        lambda: demos(lambda at, d: replace(d, response=d.response[:200])),
        healthy_demos,
        "error",
        "200 characters long",
    ),
    "a tenth cut at a length that is not the longest": Case(
        "truncation",
        lambda: demos(every(9, lambda d: replace(d, response=d.response[:60]))),
        healthy_demos,
        "error",
        "60",
    ),
    "some long answers cut anywhere": Case(
        "truncation",
        lambda: demos(lambda at, d: replace(d, response=d.response[: -(at % 50) - 9]) if at % 3 == 0 else d),
        lambda: demos(lambda at, d: replace(d, response=d.response[: -(at % 50) - 9]) if at % 20 == 0 else d),
        says="of those of 200 characters and more",
    ),
    "two user turns in a row": Case(
        "chat_structure",
        lambda: chats([("user", "Hello there."), ("user", "Why is it so?")]),
        lambda: chats([("user", "Hello there."), ("assistant", "Hello."), ("user", "Why is it so?")]),
        says="two user turns in a row",
    ),
    "a system message in the middle": Case(
        "chat_structure",
        lambda: chats([("user", "Hello there."), ("system", "Be brief."), ("user", "Why is it so?")]),
        lambda: chats([("system", "Be brief."), ("user", "Why is it so?")]),
        says="a system message in the middle",
    ),
    "the assistant begins": Case(
        "chat_structure",
        lambda: chats([("assistant", "Hello."), ("user", "Why is it so?")]),
        lambda: chats([("user", "Why is it so?")]),
    ),
    "a chat without an answer": Case(
        "chat_structure",
        lambda: demos(lambda at, d: d, refused=(Refused("d.jsonl:3", "no answer", "the chat ends early."),)),
        healthy_demos,
    ),
    "the next turn inside an answer": Case(
        "chat_structure",
        lambda: demos(every(100, lambda d: replace(d, response=f"{d.response}\n\nHuman: And then?"))),
        healthy_demos,
        says="the mark Human: inside an answer",
    ),
    "misread UTF-8": Case(
        "encoding",
        lambda: demos(every(100, lambda d: replace(d, response=f"{d.response} cafÃ© donâ€™t"))),
        lambda: demos(every(100, lambda d: replace(d, response=f"{d.response} café don’t Ästhetik"))),
        says="mojibake",
    ),
    "control characters": Case(
        "encoding",
        lambda: demos(every(100, lambda d: replace(d, response=f"{d.response}\x07"))),
        lambda: demos(every(100, lambda d: replace(d, response=f"{d.response}\t\n"))),
    ),
    "direction marks": Case(
        "encoding",
        lambda: demos(every(10, lambda d: replace(d, prompt=f"{d.prompt} \u202egnp.exe"))),
        lambda: demos(every(10, lambda d: replace(d, prompt=f"{d.prompt} שלום مرحبا"))),
        "error",
    ),
    "another language": Case(
        "languages", lambda: demos(every(20, lambda d: replace(d, response=FRENCH))), healthy_demos, says="French"
    ),
    "another script": Case(
        "languages",
        lambda: demos(every(20, lambda d: replace(d, response="Кошка сидит дома и не хочет выходить."))),
        healthy_demos,
        says="another script than its prompt",
    ),
    "refusals": Case(
        "refusals",
        lambda: pairs(every(4, lambda p: replace(p, a=f"I'm sorry, but I cannot help. {p.a}"))),
        lambda: pairs(every(50, lambda p: replace(p, a=f"I'm sorry, but I cannot help. {p.a}"))),
    ),
    "one opening": Case(
        "boilerplate",
        lambda: demos(every(5, lambda d: replace(d, response=f"Great question, my dear friend! {d.response}"))),
        healthy_demos,
        says="great question, my dear friend!",
    ),
    "prompts from one mould": Case("prompt_diversity", lambda: moulded(3), lambda: moulded(50)),
    "too few pairs": Case("size", healthy, lambda: patient_of(comparisons(5000)), says="wants 5,000 or more"),
    "too few demonstrations": Case("size", healthy_demos, lambda: patient_of(demonstrations(10_000))),
}


@pytest.mark.parametrize("name", CASES)
def test_a_planted_fault_is_found_and_its_healthy_twin_is_not(name):
    case = CASES[name]
    found = RULES[case.rule](case.ill(), Limits())
    assert found is not None
    assert found.severity == case.severity, found.message
    assert case.says in found.message
    assert found.remedy
    twin = RULES[case.rule](case.well(), Limits())
    assert twin is None or twin.severity == "ok", twin.message
    assert twin is None or not (twin.drops or twin.remedy)


def test_every_rule_has_a_planted_fault():
    assert {case.rule for case in CASES.values()} == set(RULES)


def test_examples_say_where_the_fault_stands():
    for name, source in {
        "twins": "pairs.jsonl:1",
        "copies": "copies.jsonl:1",
        "near copies": "copies.jsonl:1",
        "an evaluation set inside": "demos.jsonl:1",
        "misread UTF-8": "demos.jsonl:1",
        "an empty answer": "pairs.jsonl:7",
    }.items():
        found = RULES[CASES[name].rule](CASES[name].ill(), Limits())
        assert found is not None
        assert found.examples[0].source == source, name


@pytest.fixture(scope="module")
def clean():
    return {"pairs": patient_of(comparisons(1000)), "demos": patient_of(demonstrations(1000))}


@pytest.mark.parametrize("name", ["pairs", "demos"])
def test_a_clean_set_gives_no_finding(clean, name):
    examination = examine(clean[name], rules=[rule for rule in RULES if rule != "size"])  # which wants thousands
    assert {f.rule: f.message for f in examination.findings if f.severity != "ok"} == {}
    assert examination.headline == "In good health."
    assert examination.severity == "ok"


def test_the_worst_comes_first():
    examination = examine(repeated(PAIRS, lambda p: replace(p, b=p.a, preference=0.5)))
    order = [SEVERITIES.index(finding.severity) for finding in examination.findings]
    assert order == sorted(order, reverse=True)
    assert examination.to_dict()["counts"]["warn"] == examination.counts["warn"] > 0


def test_votes_of_different_raters_on_one_pair_are_no_copies():
    votes = [replace(PAIRS[0], votes=(Vote(rater, "a"),), source=f"v:{rater}") for rater in ("ann", "bob")]
    found = RULES["duplicates"](patient_of([*votes, *PAIRS[1:]]), Limits())
    assert found is not None
    assert found.severity == "ok"


def test_pairs_that_share_a_long_prompt_and_one_answer_are_no_near_copies():
    rng = random.Random(0)
    prompt, answer = passage(rng, 40), passage(rng, 3)
    records = [Comparison(prompt, answer, passage(rng, 3), 1.0, source=f"r:{n}") for n in range(20)]
    found = RULES["near_duplicates"](patient_of(records), Limits())
    assert found is not None
    assert found.severity == "ok"


def test_a_format_of_chosen_and_rejected_knows_no_sides():
    won = pairs(lambda at, p: replace(p, preference=1.0), sided=False, format="hh")
    found = RULES["side_bias"](won, Limits())
    assert found is not None
    assert found.severity == "ok"
    assert "sides are not known" in found.message


def test_lines_can_be_drawn_elsewhere():
    ill = pairs(lambda at, p: replace(p, preference=float(at % 3 != 0)))
    found = RULES["side_bias"](ill, Limits(side_warn=0.75))
    assert found is not None
    assert found.severity == "ok"
    sized = RULES["size"](patient_of(comparisons(60)), Limits(scope="frontier"))
    assert sized is not None
    assert sized.figures["wanted"] == 100_000
