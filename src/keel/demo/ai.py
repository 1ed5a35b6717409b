"""The demo's AI: a judge and a critic that read tone and focus, and know nothing of facts.

Both look sentences up as the world lists them; neither knows what is true, nor the true utility. The judge misses
what real small judges miss: it reads the tone of nearly every answer, the focus of most, and takes a wrong fact for as
good as a right one. It also leans to whichever answer stands first.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files

from keel.core.errors import DataError
from keel.core.seed import generator
from keel.data.records import Prompt, prompt_text
from keel.demo.phrases import POLITE
from keel.demo.world import Features, Question, World
from keel.stages.feedback.critics import Draft
from keel.stages.feedback.question import Question as Asked
from keel.stages.sections.constitution import Constitution, read_constitution

TONE_READ, FOCUS_READ = 0.99, 0.88
"""Share of answers whose tone and whose focus the judge reads; of the others it sees nothing."""
POSITION_BIAS = 0.35
"""What the judge adds to the log-odds of the answer shown first."""
TEMPERATURE = 0.6
"""Divides the judge's score differences: it is surer than it should be."""

OFFENCES: dict[str, tuple[str, ...]] = {
    "kind": ("rude",),
    "plain": ("flattery", "hedge"),
    "focus": ("off_topic", "filler", "wrong_tip", "garbled"),
    "once": (),
}
"""What each principle of constitution.yaml objects to, as names of features; once objects to whatever is said again."""

_SENTENCE = re.compile(r"[^.!?]*[.!?]|[^.!?]+$")
_SPACE_BEFORE_MARK = re.compile(r"\s+(?=[.,!?])")


def constitution() -> Constitution:
    """The principles that come with the demo."""
    with as_file(files("keel.demo") / "constitution.yaml") as path:
        return read_constitution(path)


@dataclass(frozen=True, slots=True)
class Read:
    """A sentence, and what it does for the question; right and wrong facts are both an answer."""

    text: str
    does: str
    again: bool
    """Whether it was said before."""


class Assistant:
    """A judge and a critic for the world of one seed."""

    def __init__(self, seed: int, *, position_bias: float = POSITION_BIAS) -> None:
        self.world, self.seed, self.position_bias = World(seed), seed, position_bias
        self.questions = {q.text: q for q in (*self.world.train_questions, *self.world.eval_questions)}
        self.principles = {principle.prefer: principle.id for principle in constitution().principles}

    def judge(self, questions: Sequence[Asked]) -> list[float]:
        """Probability that the first answer is better, for each pair."""
        return [self.first(asked) for asked in questions]

    def revise(self, drafts: Sequence[Draft]) -> list[tuple[str, str]]:
        """A critique and a revision of each draft by its principle."""
        return [self.revision(draft) for draft in drafts]

    def first(self, asked: Asked) -> float:
        """Logistic in the difference of the scores, with a pull to the first."""
        by = self.principles.get(asked.guide.strip())
        difference = self.score(asked.prompt, asked.first, by) - self.score(asked.prompt, asked.second, by)
        return 1 / (1 + math.exp(-(difference / TEMPERATURE + self.position_bias)))

    def score(self, prompt: Prompt, answer: str, by: str | None = None) -> float:
        """Tone and focus as the judge reads them; by one principle only what that one is about."""
        f = self.world.features(self.question(prompt), answer)
        tone_read, focus_read = generator(self.seed, "reads", prompt_text(prompt), answer).random(2).tolist()
        friendly = min(f.polite, 1) + 0.5 * min(f.closing, 1) - 2.0 * min(f.rude, 2)
        plain = -0.3 * f.flattery - 0.6 * min(f.hedge, 2)
        served = 1.0 * bool(f.right + f.wrong) + 0.7 * min(f.right_tip, 1)
        clutter = 0.8 * f.off_topic + 0.5 * f.filler + 0.3 * f.wrong_tip + 1.0 * f.garbled
        tone = {"kind": friendly, "plain": plain}
        focus = {"focus": served - clutter, "once": -0.8 * f.repeated}
        seen = (tone if tone_read < TONE_READ else {}) | (focus if focus_read < FOCUS_READ else {})
        return sum(value for name, value in seen.items() if by is None or name == by)

    def revision(self, draft: Draft) -> tuple[str, str]:
        """What is wrong by the principle, and the draft without it; a draft of nothing else stays as it is."""
        question, rule = self.question(draft.prompt), draft.principle.id
        if rule not in OFFENCES:
            raise DataError(f"The demo's critic knows no principle {rule!r}. It knows {', '.join(OFFENCES)}.")
        read = self.sentences(question, draft.text)
        bad = [one.again if rule == "once" else one.does in OFFENCES[rule] for one in read]
        kept = [one.text for one, objected in zip(read, bad, strict=True) if not objected]
        what = {one.text: "repeated" if rule == "once" else one.does.replace("_", " ") for one in read}
        said = [f"{one.text!r} is {what[one.text]}." for one, objected in zip(read, bad, strict=True) if objected]
        if rule == "kind" and not any(one.does == "polite" for one in read):
            said.append("It has no friendly word.")
            kept.insert(0, POLITE[int(generator(self.seed, "friendly", draft.text).integers(len(POLITE)))])
        if not said or not kept:
            return "Nothing to object to.", draft.text
        return " ".join(said), " ".join(kept)

    def sentences(self, question: Question, text: str) -> list[Read]:
        """What each sentence does."""
        tidy = _SPACE_BEFORE_MARK.sub("", " ".join(text.split()))
        found: list[Read] = []
        for piece in _SENTENCE.findall(tidy):
            sentence = piece.strip()
            if sentence:
                again = any(one.text == sentence for one in found)
                found.append(Read(sentence, kind_of(self.world.features(question, sentence)), again))
        return found

    def passes(self, prompt: Prompt, text: str) -> bool:
        """Whether no principle objects to any sentence."""
        bad = {name for names in OFFENCES.values() for name in names}
        return not any(one.again or one.does in bad for one in self.sentences(self.question(prompt), text))

    def question(self, prompt: Prompt) -> Question:
        text = prompt_text(prompt)
        if text not in self.questions:
            raise DataError(f"The demo's AI knows no question {text!r}. Ask one of World.train_questions.")
        return self.questions[text]


def kind_of(features: Features) -> str:
    """What a single sentence does."""
    if features.right or features.wrong:
        return "answer"
    names = ("off_topic", "polite", "neutral", "rude", "flattery", "hedge", "refusal", "right_tip", "wrong_tip")
    return next((name for name in (*names, "filler", "closing") if getattr(features, name)), "garbled")
