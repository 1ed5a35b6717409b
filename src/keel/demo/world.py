"""A small world with known truth: a help desk, its crowd of writers, and what people really prefer.

Everything follows from a seed and from `keel.demo.phrases`. The true preference is a pure function of the text: each
sentence of an answer is looked up in the list of all sentences the world knows, so nothing is guessed. It exists to
check a training run from outside and is never trained on.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypeVar

import numpy as np

from keel.core.errors import DataError
from keel.core.seed import generator
from keel.data.records import Demonstration, Message
from keel.demo import phrases
from keel.demo.phrases import DOMAINS, Attribute, Domain

Item = TypeVar("Item")
Kind = Literal["polite", "neutral", "rude", "flattery", "hedge", "refusal", "filler", "closing", "tip", "answer"]

MAX_ANSWER_TOKENS = 48
"""Longest answer of the crowd in tokens: words, punctuation marks and the end marker."""

NOTE_PROMPT = "<note>"
"""What stands before an encyclopaedia entry, where a dialogue has a question."""

RIGHT_FACT, WRONG_FACT = 2.5, -2.0
"""Utility of answering the question with a true and with a false value."""

BEST_UTILITY = RIGHT_FACT + 0.8 + 0.5 + 0.7
"""What the best answers reach: right, polite, with a helpful tip and a closing, and nothing else."""

OPENERS = ((phrases.POLITE, 0.30), (phrases.NEUTRAL, 0.50), (phrases.RUDE, 0.62), (phrases.FLATTERY, 0.74))
"""How the crowd opens: kinds of sentence with cumulative probabilities; the rest says nothing first."""

_TOKEN = re.compile(r"\w+|[^\w\s]")
_SENTENCE = re.compile(r"[^.!?]*[.!?]|[^.!?]+$")
_SPACE_BEFORE_MARK = re.compile(r"\s+(?=[.,!?])")


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is so: the `attribute` of `entity` is `value`."""

    domain: str
    entity: str
    attribute: str
    value: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question about one fact, asked in one of the forms of its attribute."""

    text: str
    domain: str
    entity: str
    attribute: str
    form: int  # 0 to 3

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The question as a chat of one turn."""
        return (Message("user", self.text),)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as text, and whether it ended by itself (not cut off by a length limit)."""

    text: str
    finished: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """What an answer holds: counts of sentences by what they do for the question asked."""

    right: int = 0  # answers the question with the true value
    wrong: int = 0  # answers the question with a false value
    off_topic: int = 0  # states something about another entity or attribute
    polite: int = 0
    neutral: int = 0
    rude: int = 0
    flattery: int = 0
    hedge: int = 0
    refusal: int = 0
    right_tip: int = 0  # a tip on the attribute asked about
    wrong_tip: int = 0  # a tip on another attribute
    filler: int = 0
    closing: int = 0
    garbled: int = 0  # not a sentence of this world
    repeated: int = 0  # said before in the same answer
    unfinished: int = 0  # 1 when cut off before the end marker
    tokens: int = 0  # words and punctuation marks, end marker not counted

    def vector(self) -> np.ndarray:
        """All counts as float64, in the order of `FEATURE_NAMES`."""
        return np.array([getattr(self, name) for name in FEATURE_NAMES], dtype=np.float64)


FEATURE_NAMES = tuple(field.name for field in fields(Features))


def utility(features: Features) -> float:
    """How good an answer truly is; at most 4.5. The true preference, as a pure function of the text.

    A right fact earns 2.5; a wrong one costs 2 and spoils a right one beside it; an answer with neither costs 1 unless
    it refuses. Politeness (0.8), a closing (0.5) and a right tip (0.7) count once. Each of these costs, as often as it
    occurs: rude 2 (counted twice at most), hedge 0.6 (twice at most), off-topic 0.8, flattery 0.3, wrong tip 0.3,
    filler 0.5, repetition 0.8, garbled 1; and 1.5 for an answer that does not end.
    """
    if features.wrong:
        fact = WRONG_FACT
    elif features.right:
        fact = RIGHT_FACT
    else:
        fact = 0.0 if features.refusal else -1.0
    earned = 0.8 * min(features.polite, 1) + 0.5 * min(features.closing, 1) + 0.7 * min(features.right_tip, 1)
    manners = 2.0 * min(features.rude, 2) + 0.6 * min(features.hedge, 2) + 0.3 * features.flattery
    clutter = 0.8 * features.off_topic + 0.3 * features.wrong_tip + 0.5 * features.filler + 0.8 * features.repeated
    return fact + earned - manners - clutter - 1.0 * features.garbled - 1.5 * features.unfinished


def true_preference(a: Features, b: Features) -> float:
    """1 if `a` is truly better than `b`, 0 if worse, 0.5 if neither."""
    difference = utility(a) - utility(b)
    if abs(difference) < 1e-9:
        return 0.5
    return 1.0 if difference > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Sentence:
    """What a sentence of this world does. Tips know their attribute, answers all three."""

    kind: Kind
    tokens: int
    attribute: str = ""
    entity: str = ""
    value: str = ""


class World:
    """Facts, questions, a crowd that answers them, and an exact reading of any answer.

    `facts`, `train_questions` and `eval_questions` are fixed by the seed; `vocabulary` is the same for every seed. Each
    attribute deals its values out so that every entity has another one: guessing is right once in eight. One question
    form of every second fact is held out for evaluation, each form of each attribute equally often, so that every fact
    and every form is seen in training, only not together.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.facts: list[Fact] = []
        self.train_questions: list[Question] = []
        self.eval_questions: list[Question] = []
        for domain in DOMAINS:
            for attribute in domain.attributes:
                self._add_facts(domain, attribute)
        self._domains = {domain.name: domain for domain in DOMAINS}
        self._attributes = {(domain.name, a.name): a for domain in DOMAINS for a in domain.attributes}
        self._values = {(fact.entity, fact.attribute): fact.value for fact in self.facts}
        self._sentences = dict(_all_sentences())
        self.vocabulary = tuple(
            sorted({token for text in (*self._sentences, *_all_questions()) for token in _TOKEN.findall(text)})
        )

    def _add_facts(self, domain: Domain, attribute: Attribute) -> None:
        rng = generator(self.seed, "world", domain.name, attribute.name)
        values = rng.permutation(attribute.values).tolist()
        held_out = dict(zip(rng.permutation(domain.entities).tolist(), range(len(attribute.questions)), strict=False))
        for entity, value in zip(domain.entities, values, strict=True):
            self.facts.append(Fact(domain.name, entity, attribute.name, value))
            for form, template in enumerate(attribute.questions):
                question = Question(template.format(entity=entity), domain.name, entity, attribute.name, form)
                (self.eval_questions if held_out.get(entity) == form else self.train_questions).append(question)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Every sentence that is not garbled, as it is written."""
        return tuple(self._sentences)

    def truth(self, question: Question) -> str:
        """The value that answers a question."""
        value = self._values.get((question.entity, question.attribute))
        if value is None:
            raise DataError(
                f"The demo world knows no {question.attribute!r} of {question.entity!r}. Ask one of its "
                f"{len(self.facts)} facts: World.train_questions and World.eval_questions hold all questions."
            )
        return value

    def demonstration(self, question: Question, rng: np.random.Generator) -> str:
        """One answer by a crowd of mixed quality, at most MAX_ANSWER_TOKENS long with its end marker.

        62 % answer rightly, 23 % wrongly, 7 % something else, 8 % not at all. They open politely (30 %), plainly
        (20 %), rudely (12 %), with flattery (12 %) or not; 15 % hedge, 35 % add a tip that helps and 6 % one that does
        not, 35 % close, 4 % say a sentence twice, and filler goes on with probability 0.38.
        """
        domain = self._domains[question.domain]
        attribute = self._attributes[question.domain, question.attribute]
        said: list[str] = []
        opening = rng.random()
        for openers, up_to in OPENERS:
            if opening < up_to:
                said.append(_pick(rng, openers))
                break
        if rng.random() < 0.15:
            said.append(_pick(rng, phrases.HEDGE))
        said.append(self._main_sentence(question, domain, attribute, rng))
        tip = rng.random()
        if tip < 0.35:
            said.append(_pick(rng, attribute.tips))
        elif tip < 0.41:
            said.append(_pick(rng, _pick(rng, [other for other in domain.attributes if other is not attribute]).tips))
        while rng.random() < 0.38:
            said.append(_pick(rng, phrases.FILLER))
        if rng.random() < 0.04:
            said.append(said[-1])
        closing = [_pick(rng, phrases.CLOSING)] if rng.random() < 0.35 else []
        return " ".join(self._fitting([*said, *closing]))

    def _main_sentence(self, question: Question, domain: Domain, attribute: Attribute, rng: np.random.Generator) -> str:
        truth = self.truth(question)
        quality = rng.random()
        if quality < 0.62:
            return _pick(rng, attribute.statements).format(entity=question.entity, value=truth)
        if quality < 0.85:
            value = _pick(rng, [value for value in attribute.values if value != truth])
            return _pick(rng, attribute.statements).format(entity=question.entity, value=value)
        if quality < 0.92:
            other = _pick(rng, domain.attributes)
            entity = _pick(rng, [e for e in domain.entities if e != question.entity or other is not attribute])
            return _pick(rng, other.statements).format(entity=entity, value=self._values[entity, other.name])
        return _pick(rng, phrases.REFUSAL)

    def _fitting(self, said: Sequence[str]) -> Iterator[str]:
        """The sentences that fit into the longest answer, in order."""
        room = MAX_ANSWER_TOKENS - 1
        for text in said:
            room -= self._sentences[text].tokens
            if room < 0:
                return
            yield text

    def demonstrations(self, count: int, seed: int) -> list[Demonstration]:
        """The crowd's answers to `count` training questions, every question as often as any other, give or take one."""
        rng = generator(self.seed, "demonstrations", seed)
        questions: list[Question] = []
        while len(questions) < count:
            questions += [self.train_questions[index] for index in rng.permutation(len(self.train_questions))]
        return [Demonstration(q.prompt, self.demonstration(q, rng)) for q in questions[:count]]

    def encyclopedia_entry(self, rng: np.random.Generator) -> str:
        """True facts about one entity, for pre-training: two to four statements, some with a tip after them."""
        domain = _pick(rng, DOMAINS)
        entity = _pick(rng, domain.entities)
        said = []
        for index in rng.permutation(len(domain.attributes))[: rng.integers(2, 5)]:
            attribute = domain.attributes[index]
            value = self._values[entity, attribute.name]
            said.append(_pick(rng, attribute.statements).format(entity=entity, value=value))
            if rng.random() < 0.3:
                said.append(_pick(rng, attribute.tips))
        return " ".join(self._fitting(said))

    def encyclopedia(self, count: int, seed: int) -> list[Demonstration]:
        """`count` encyclopaedia entries as records whose prompt is NOTE_PROMPT."""
        rng = generator(self.seed, "encyclopedia", seed)
        return [Demonstration(NOTE_PROMPT, self.encyclopedia_entry(rng)) for _ in range(count)]

    def features(self, question: Question, answer_text: str, finished: bool = True) -> Features:
        """What each sentence of an answer does for the question, by looking it up.

        Space before a punctuation mark and repeated space do not count; whatever else is not exactly a sentence of this
        world is garbled, a last piece without a full stop included. `finished` is False for an answer that was cut off.
        """
        counts = dict.fromkeys(FEATURE_NAMES, 0)
        seen: set[str] = set()
        text = _SPACE_BEFORE_MARK.sub("", " ".join(answer_text.split()))
        for piece in _SENTENCE.findall(text):
            sentence = piece.strip()
            if not sentence:
                continue
            counts["repeated"] += sentence in seen
            seen.add(sentence)
            known = self._sentences.get(sentence)
            if known is None:
                counts["garbled"] += 1
                counts["tokens"] += len(_TOKEN.findall(sentence))
                continue
            counts["tokens"] += known.tokens
            counts[self._role(known, question)] += 1
        counts["unfinished"] = int(not finished)
        return Features(**counts)

    def _role(self, sentence: Sentence, question: Question) -> str:
        """Which feature a known sentence counts for, given what was asked."""
        if sentence.kind == "tip":
            return "right_tip" if sentence.attribute == question.attribute else "wrong_tip"
        if sentence.kind == "answer":
            if (sentence.entity, sentence.attribute) != (question.entity, question.attribute):
                return "off_topic"
            return "right" if sentence.value == self.truth(question) else "wrong"
        return sentence.kind


def _all_sentences() -> Iterator[tuple[str, Sentence]]:
    """Every sentence of the world with what it does; no sentence occurs twice."""
    simple: tuple[tuple[Kind, tuple[str, ...]], ...] = (
        ("polite", phrases.POLITE),
        ("neutral", phrases.NEUTRAL),
        ("rude", phrases.RUDE),
        ("flattery", phrases.FLATTERY),
        ("hedge", phrases.HEDGE),
        ("refusal", phrases.REFUSAL),
        ("filler", phrases.FILLER),
        ("closing", phrases.CLOSING),
    )
    for kind, texts in simple:
        for text in texts:
            yield text, Sentence(kind, _length(text))
    for domain in DOMAINS:
        for attribute in domain.attributes:
            for text in attribute.tips:
                yield text, Sentence("tip", _length(text), attribute.name)
            for template in attribute.statements:
                for entity in domain.entities:
                    for value in attribute.values:
                        text = template.format(entity=entity, value=value)
                        yield text, Sentence("answer", _length(text), attribute.name, entity, value)


def _all_questions() -> Iterator[str]:
    for domain in DOMAINS:
        for attribute in domain.attributes:
            for template in attribute.questions:
                for entity in domain.entities:
                    yield template.format(entity=entity)


def _length(text: str) -> int:
    return len(_TOKEN.findall(text))


def _pick(rng: np.random.Generator, choices: Sequence[Item]) -> Item:
    """One of the choices, all equally likely; much faster than Generator.choice on short sequences."""
    return choices[int(rng.random() * len(choices))]
