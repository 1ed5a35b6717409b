"""Who says how good a response is, or which of two is better: the recipe's rewards, and the judges of fresh pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from keel.batch.collate import EncodedResponse, token_batch
from keel.core.config import digest
from keel.core.errors import ConfigError, TrainingError
from keel.data.chat import encode_response
from keel.data.records import Comparison, prompt_text
from keel.stages.coverage import joined
from keel.stages.functions import function_identity, load_function
from keel.stages.labels import JudgeOfPairs, Pair
from keel.stages.reward import aggregation
from keel.stages.rewards import Around, coverage_of, known_of, scorer_of
from keel.stages.roads.work import Work
from keel.stages.sections.rewards import RewardPart
from keel.stages.sections.rounds import RoundsConfig
from keel.stages.sections.sampling import Sampling
from keel.stats.coverage import Coverage
from keel.train.judge import Judge, Responses, Scorer
from keel.train.one_trunk import OneTrunk
from keel.train.settings import ShapingConfig


def weighted_sum(
    work: Work,
    section: str,
    parts: Sequence[RewardPart],
    sampling: Sampling,
    shaping: ShapingConfig | None = None,
    trunk: OneTrunk | None = None,
) -> Judge:
    """What `section`.rewards asks for; the recipe's reward model takes its place on `trunk` if there is one."""
    scorers: dict[str, tuple[float, Scorer]] = {}
    coverages: list[Coverage | None] = []
    around = Around(
        folder=work.context.recipe_folder,
        model=work.recipe.model,
        tokenizer=work.tokenizer,
        micro_batch_tokens=sampling.micro_batch_tokens,
        thresholds=work.context.thresholds,
    )
    for part in parts:
        if part.model != "stage":
            scorer = scorer_of(part, f"{section}.rewards.{part.name}", around)
            coverages += coverage_of(part)
        elif work.rewards is not None:
            scorer = work.rewards.scorer() if trunk is None else work.rewards.on(trunk)
            coverages.append(work.rewards.coverage())
        else:
            raise ConfigError(f"{section}.rewards.{part.name} names the recipe's reward model, but there is none.")
        scorers[part.name] = (part.weight, scorer)
    return Judge(
        scorers=scorers,
        shaping=shaping or ShapingConfig(),
        max_new_tokens=sampling.max_new_tokens,
        coverage=joined(coverages),
    )


def known_by(work: Work, parts: Sequence[RewardPart]) -> dict[str, Any]:
    """What a stage's hash sees of the rewards, besides the recipe's own reward models: those are its parents."""
    return {
        "reward": aggregation(work.rewards.config) if work.rewards else None,
        **known_of(parts, work.context.recipe_folder),
    }


def pair_judge(work: Work, rounds: RoundsConfig) -> JudgeOfPairs:
    """The one that `rounds.judge` names."""
    if rounds.judge == "labeller":
        return labeller_of(work, rounds)
    known = known_by(work, rounds.rewards)
    said = {"rewards": [part.model_dump(mode="json") for part in rounds.rewards], "verdicts": rounds.verdicts, **known}
    members = [member.id for member in work.rewards.members] if work.rewards else []
    return JudgeOfPairs(judge=RewardLabeller(work, rounds), identity=digest({**said, "members": members}))


def labeller_of(work: Work, rounds: RoundsConfig) -> JudgeOfPairs:
    """The function that rounds.labeller names."""
    spec, folder = rounds.labeller, work.context.recipe_folder
    if spec is None:
        raise ConfigError("rounds.labeller is missing: nobody could judge the fresh samples.")
    return JudgeOfPairs(judge=load_function(spec, "rounds.labeller", folder), identity=function_identity(spec, folder))


@dataclass
class RewardLabeller:
    """The rewards as a judge of pairs."""

    work: Work
    rounds: RoundsConfig

    def __call__(self, pairs: Sequence[Pair]) -> list[Comparison]:
        """A comparison a pair: sigmoid of the scores' difference, or the choice alone."""
        _, sampling = self.work.sampling
        judge = weighted_sum(self.work, "rounds", self.rounds.rewards, sampling)
        scores = judge.scores(self.responses(pairs)).raw.double()
        lead = scores[0::2] - scores[1::2]
        if not lead.any():
            raise TrainingError(
                f"the rewards give both responses of each of {len(pairs)} fresh pairs the same score, so nothing would "
                "be learned. Look at rounds.rewards."
            )
        preferences = lead.sigmoid() if self.rounds.verdicts == "probability" else (lead.sign() + 1) / 2
        return [
            Comparison(pair.prompt, pair.a, pair.b, preference)
            for pair, preference in zip(pairs, preferences.tolist(), strict=True)
        ]

    def responses(self, pairs: Sequence[Pair]) -> Responses:
        """Both responses of each pair, a first; what was cut off does not end."""
        tokenizer = self.work.tokenizer
        sides = [((pair.a, pair.a_finished), (pair.b, pair.b_finished)) for pair in pairs]

        def encoded(pair: Pair, text: str, finished: bool) -> EncodedResponse:
            tokens = encode_response(tokenizer, pair.prompt, text)
            return EncodedResponse(tokens=tokens if finished or len(tokens) < 2 else tokens[:-1])

        prompts = {prompt.prompt: prompt.tokens for prompt in self.work.prompts.train}  # cut to fit, as sampled
        batch = token_batch(
            [prompts[pair.prompt] for pair in pairs],
            [[encoded(pair, *side) for side in both] for pair, both in zip(pairs, sides, strict=True)],
        )
        return Responses(
            batch=batch,
            prompt_texts=[prompt_text(pair.prompt) for pair in pairs for _ in range(2)],
            response_texts=[text for both in sides for text, _ in both],
            finished=torch.tensor([finished for both in sides for _, finished in both]),
            records=[self.work.prompt_record(pair.prompt) for pair in pairs for _ in range(2)],
        )
