"""Critique and revision by principles (Bai et al. 2022, arXiv 2212.08073, sec. 3.1): drafts in, demonstrations out."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from keel.core.artifacts import Artifact
from keel.core.config import digest, to_dict
from keel.core.errors import EndpointError, TrainingError
from keel.core.files import atomic_write_json, atomic_write_text
from keel.core.progress import Progress
from keel.core.seed import derive
from keel.data.formats import to_values
from keel.data.records import Demonstration, Prompt, prompt_key
from keel.data.split import split
from keel.stages.context import Run, StageContext, StageResult
from keel.stages.feedback.answers import Answers, Estimate, Purse
from keel.stages.feedback.critics import Critic, Draft, Revised
from keel.stages.inputs import write_sides
from keel.stages.sections.constitution import Constitution, ConstitutionConfig, Principle

REVISIONS, CONSTITUTION = "revisions.jsonl", "constitution.json"
MOST_EMPTY = 0.5
"""Share of empty revisions in a round beyond which a critic is taken to answer nonsense."""


@dataclass
class Revision:
    """Drafts revised round by round; nothing is asked twice, and every step is kept with its principle."""

    config: ConstitutionConfig
    constitution: Constitution
    critic: Critic
    answers: Answers
    seed: int
    progress: Progress
    purse: Purse | None = None
    steps: list[dict[str, Any]] = field(default_factory=list, init=False)
    usd: float = field(default=0.0, init=False)
    empty: int = field(default=0, init=False)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the revisions, for the hash of a stage."""
        return {
            "constitution": to_dict(self.constitution),
            "critic": self.critic.identity,
            "rounds": self.config.rounds,
            "seed": self.seed,
        }

    def principle(self, prompt: Prompt, round: int) -> Principle:
        """The principle of a round: another one in each as long as there are some, in an order that the seed draws."""
        order = sorted(
            self.constitution.principles,
            key=lambda principle: derive(self.seed, "principle", prompt_key(prompt), round // self.count, principle.id),
        )
        return order[round % self.count]

    @property
    def count(self) -> int:
        return len(self.constitution.principles)

    def revised(self, drafts: Sequence[tuple[Prompt, str]]) -> list[Demonstration]:
        """The last revision of each draft; an empty one counts as none, and the text before it stays.

        EndpointError or TrainingError for a critic that mostly writes nothing.
        """
        texts = [text for _, text in drafts]
        self.steps = []
        for round in range(self.config.rounds):
            asked = [
                Draft(prompt=prompt, text=text, principle=self.principle(prompt, round))
                for (prompt, _), text in zip(drafts, texts, strict=True)
            ]
            revised = self.asked(asked, round)
            self.refuse_silence(asked, revised)
            for number, (draft, said) in enumerate(zip(asked, revised, strict=True)):
                empty = not said.revision.strip()
                self.empty += empty
                texts[number] = draft.text if empty else said.revision
                self.usd += said.usd
                self.steps.append(
                    {
                        **to_values(draft.prompt),
                        "round": round + 1,
                        "principle": draft.principle.name,
                        "draft": draft.text,
                        "critique": said.critique,
                        "revision": texts[number],
                    }
                )
        return [Demonstration(prompt, text) for (prompt, _), text in zip(drafts, texts, strict=True)]

    def refuse_silence(self, drafts: Sequence[Draft], revised: Sequence[Revised]) -> None:
        """Say that the critic mostly wrote nothing, and forget that, so that a critic put right is asked again."""
        empty = [draft for draft, said in zip(drafts, revised, strict=True) if not said.revision.strip()]
        if len(empty) <= MOST_EMPTY * len(drafts):
            return
        self.answers.forget([self.key(draft) for draft in empty])
        kind = EndpointError if self.purse is not None else TrainingError
        raise kind(
            f"constitution: {len(empty)} of {len(drafts)} revisions are empty, so the policy would learn its own "
            "drafts. A critic that finds nothing wrong must return the draft as it is. Take another critic, or raise "
            "constitution.critic_tokens; the other revisions are kept, these are asked for again."
        )

    def asked(self, drafts: Sequence[Draft], round: int) -> list[Revised]:
        """Critique and revision of each draft, asked for where they are not known."""
        keys = [self.key(draft) for draft in drafts]
        by_key = dict(zip(keys, drafts, strict=True))
        known = self.answers.known(list(by_key))
        missing = [key for key in by_key if key not in known]
        self.tell(known, [by_key[key] for key in missing])
        self.progress.start(f"constitution, round {round + 1}", len(by_key), "revisions")
        self.progress.advance(len(known))

        def keep(said: Mapping[int, Revised]) -> None:
            values = {missing[number]: asdict(one) for number, one in said.items()}
            self.answers.keep(values)
            if self.purse is not None:
                self.purse.counted |= values.keys()
            known.update(values)
            self.progress.advance(len(values))

        self.critic.revise([by_key[key] for key in missing], keep)
        self.progress.finish(f"{len(missing)} revised, {len(by_key) - len(missing)} were there")
        return [Revised(**known[key]) for key in keys]

    def tell(self, known: dict[str, dict[str, Any]], missing: Sequence[Draft]) -> None:
        """Say what is to be asked and what it may cost; ConfigError where that is beyond the budget."""
        estimate = Estimate.of([self.critic.size(draft) for draft in missing], len(known), self.purse)
        if missing:
            self.progress.say(f"constitution: {estimate}")
        if self.purse is not None:
            self.purse.count(known, shared=self.answers.shared)
            if missing:
                estimate.refuse_beyond(self.purse.budget_usd, self.purse.spent_usd, "constitution")

    def key(self, draft: Draft) -> str:
        """Hash of critic, principle, prompt and draft."""
        return digest(
            {
                "critic": self.critic.identity,
                "principle": to_dict(draft.principle),
                "prompt": to_values(draft.prompt),
                "draft": draft.text,
            }
        )


def revise(
    run: Run,
    revision: Revision,
    settings: dict[str, Any],
    parents: Sequence[Artifact],
    drafts: Callable[[], Sequence[tuple[Prompt, str]]],
    replayed: Sequence[Demonstration],
    outside: float,
) -> Artifact:
    """The revisions as a demonstration set, with every step and the constitution in it.

    `outside` is the share of prompts that were held out before: they never came here, so holdout is taken of what lies
    above it. `replayed` demonstrations are learned beside the revisions.
    """
    config = revision.config

    def body(context: StageContext) -> StageResult:
        first = list(drafts())
        if not first:
            raise TrainingError(
                "none of the policy's drafts has any text, so there is nothing to revise. Raise "
                "constitution.max_new_tokens, or train SFT more."
            )
        records = revision.revised(first)
        train, held_out = split(records, outside + config.holdout * (1 - outside))
        if not train:
            raise TrainingError(f"all {len(records)} revised prompts were held out; lower constitution.holdout.")
        changed = sum(record.response != text for record, (_, text) in zip(records, first, strict=True))
        metrics = {
            "prompts": len(records),
            "revisions": len(revision.steps),
            "changed": changed / len(records),
            "empty": revision.empty,
            "train": len(train) + len(replayed),
            "held_out": len(held_out),
            "replayed": len(replayed),
            "principles": dict(Counter(step["principle"] for step in revision.steps)),
            "usd": revision.usd,
        }

        def write(folder: Path) -> None:
            write_sides(folder, [*train, *replayed], held_out)
            lines = "".join(json.dumps(step, ensure_ascii=False) + "\n" for step in revision.steps)
            atomic_write_text(folder / REVISIONS, lines)
            atomic_write_json(folder / CONSTITUTION, to_dict(revision.constitution))

        return StageResult(metrics=metrics, write=write)

    settings = {**revision.settings, **settings, "holdout": config.holdout, "replayed": len(replayed)}
    return run.stage("revisions", settings, parents, body, kind="demonstration_set")
