"""What a response is worth: scorers, their weighted sum, and the way from scores to rewards."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from statistics import fmean
from typing import Any, Protocol

import torch
from torch import Tensor

from keel.batch.pack import pack
from keel.batch.types import TokenBatch
from keel.core.errors import TrainingError
from keel.data.prompt_records import PromptRecord
from keel.models.reward import RewardModel
from keel.stats.arrays import Floats
from keel.stats.correction import Correction
from keel.stats.coverage import Coverage
from keel.train.form import form
from keel.train.settings import ShapingConfig
from keel.train.step import micro_batches

SMALLEST_SPREAD = 1e-6
"""Scores that all say the same are divided by this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Responses:
    """Responses as the scorers see them."""

    batch: TokenBatch
    prompt_texts: Sequence[str]  # [S], the prompt of each response
    response_texts: Sequence[str]  # [S]
    finished: Tensor  # [S] bool
    trunk_scores: Tensor | None = None  # [K, S] of reward models that share the policy's trunk
    records: Sequence[PromptRecord] = ()  # [S], what stands beside the prompt of each response; empty where unknown
    ref_logprobs: Tensor | None = None  # [R] of the reference, at the sampling temperature


class Scorer(Protocol):
    """Anything that says how good responses are; higher is better."""

    mean: float
    std: float

    def score(self, responses: Responses) -> Tensor:
        """[S] float32 scores in the scorer's own unit."""
        ...


def normalised(scorer: Scorer, scores: Tensor) -> Tensor:
    """Scores at mean 0 and spread 1, by the scorer's statistics; rounding noise of a constant one stays noise."""
    return (scores - scorer.mean) / max(scorer.std, SMALLEST_SPREAD)


@dataclass
class RewardModelScorer:
    """A reward model; `mean` and `std` are the statistics stored with it."""

    model: RewardModel
    mean: float
    std: float
    micro_batch_tokens: int = 2048

    @torch.no_grad()
    def score(self, responses: Responses) -> Tensor:
        device = next(self.model.parameters()).device
        parts = micro_batches(responses.batch, self.micro_batch_tokens)
        return torch.cat([self.model.score(pack(rows.to(device))).float().cpu() for rows in parts])


@dataclass
class TrunkScorer:
    """A reward model that is a role of the policy's own trunk: `OneTrunk.look` has scored already."""

    place: int
    mean: float
    std: float

    def score(self, responses: Responses) -> Tensor:
        if responses.trunk_scores is None:
            raise ValueError("these responses were not looked at by the policy's trunk")
        return responses.trunk_scores[self.place]


@dataclass
class EnsembleScorer:
    """Several scorers of the same thing, each normalised first; conservative aggregates resist over-optimisation.

    mean, min (worst case) or mean - std_weight·std (Coste et al. 2023). `disagreement` holds the last call's mean
    standard deviation over the members, in normalised units.
    """

    members: Sequence[Scorer]
    aggregate: str = "mean"
    std_weight: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    disagreement: float = field(default=0.0, init=False)

    def score(self, responses: Responses) -> Tensor:
        scores = torch.stack([normalised(m, m.score(responses)) for m in self.members])
        spread = scores.std(0, unbiased=False)
        self.disagreement = float(spread.mean())
        if self.aggregate == "min":
            return scores.min(0).values
        if self.aggregate == "mean_minus_std":
            return scores.mean(0) - self.std_weight * spread
        return scores.mean(0)


@dataclass
class FunctionScorer:
    """Any Python function of (prompts, responses) that returns one number each."""

    function: Callable[..., Any]
    name: str
    mean: float = 0.0
    std: float = 1.0
    takes_records: bool = False
    """Whether its third argument is what stands beside each prompt."""

    def score(self, responses: Responses) -> Tensor:
        beside = [list(responses.records)] if self.takes_records else []
        answer = self.function(list(responses.prompt_texts), list(responses.response_texts), *beside)
        return torch.tensor(
            numbers(answer, len(responses.response_texts), f"The reward function {self.name}"), dtype=torch.float32
        )


def numbers(answer: Any, count: int, who: str) -> list[float]:
    """The answer of a user's function as one number a response; TrainingError says what else it was."""
    wanted = f"Return a list of exactly one number a response, in order ({count} here)."
    if (not isinstance(answer, Sequence | Tensor) and not hasattr(answer, "__array__")) or isinstance(answer, str):
        raise TrainingError(f"{who} returned {answer!r:.80}. {wanted}")
    if len(answer) != count:
        raise TrainingError(f"{who} returned {len(answer)} numbers for {count} responses. {wanted}")
    try:
        return [float(value) for value in answer]
    except (TypeError, ValueError) as error:
        wrong = next(value for value in answer if not isinstance(value, int | float))
        raise TrainingError(f"{who} returned {wrong!r:.80} where a number was expected. {wanted}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """What the judge found."""

    raw: Tensor  # [S] weighted sum of the parts in their own units
    normalised: Tensor  # [S] weighted sum of the parts, each brought to mean 0 and spread 1 by its stored statistics
    parts: Mapping[str, Tensor]  # [S] each, unweighted, in its own unit
    disagreement: float = nan
    """Mean spread over the members of an ensemble, in normalised units; of several ensembles the mean, nan of none."""
    corrected: Tensor | None = None  # [S] the reward that judges' verdicts have made of it, where they have


@dataclass
class Judge:
    """A weighted sum of scorers, and from its scores to rewards."""

    scorers: Mapping[str, tuple[float, Scorer]]  # name -> (weight, scorer)
    shaping: ShapingConfig
    max_new_tokens: int
    running_count: int = 0
    running_mean: float = 0.0
    running_m2: float = 0.0
    anchor: tuple[float, float] | None = None
    """Mean and spread of the first held-out scores; only with running normalisation."""

    clipped_share: float = 0.0
    """Share of the last scores that `shape` clipped."""

    coverage: Coverage | None = None
    """What the reward models were trained on; None where that is not known of each, or there is none."""

    correction: Correction | None = None
    """What judges' verdicts have made of the score; it takes the place of the normalised score."""

    def scores(self, responses: Responses) -> Scores:
        """Raises TrainingError when a scorer answers with something that is not a finite number."""
        parts = {name: scorer.score(responses) for name, (_, scorer) in self.scorers.items()}
        for name, values in parts.items():
            if not torch.isfinite(values).all():
                bad = int((~torch.isfinite(values)).nonzero()[0, 0])
                raise TrainingError(
                    f"Reward `{name}` is {float(values[bad])} for the response {responses.response_texts[bad][:80]!r}. "
                    "A reward must be a finite number for every response."
                )
        zero = torch.zeros(responses.batch.num_responses)
        spreads = [scorer.disagreement for _, scorer in self.scorers.values() if isinstance(scorer, EnsembleScorer)]
        raw = sum((self.scorers[n][0] * v for n, v in parts.items()), zero)
        return Scores(
            raw=raw,
            normalised=sum(
                (weight * normalised(scorer, parts[n]) for n, (weight, scorer) in self.scorers.items()),
                zero,
            ),
            parts=parts,
            disagreement=fmean(spreads) if spreads else nan,
            corrected=None if self.correction is None else self._corrected(self.correction, raw, responses),
        )

    def form(self, responses: Responses) -> Floats:
        """[S, len(FORM)] the features of the responses that a correction prices."""
        if responses.ref_logprobs is None:
            raise ValueError("these responses were not looked at by the reference")
        return form(responses.batch, responses.ref_logprobs, responses.finished, self.coverage)

    def _corrected(self, correction: Correction, raw: Tensor, responses: Responses) -> Tensor:
        return torch.from_numpy(correction.rewards(raw.double().numpy(), self.form(responses))).float()

    def shape(self, scores: Scores, responses: Responses, *, observe: bool = True) -> Tensor:
        """[S] what the policy is paid on the last token of each response.

        Normalise, clip, then the missing-EOS rules, then the charges for length (rm - penalty·tokens/max, source A; and
        over the last tokens of the overlong buffer).
        `observe` False is held-out evaluation: running statistics stay as they are, and rewards are on the scale of the
        first such scores, so that later ones can be compared with them.
        """
        c = self.shaping
        if c.normalise == "running":
            mean, std = self._observe(scores.raw) if observe else self._anchor(scores.raw)
            shaped = (scores.raw - mean) / std
        else:
            shaped = scores.normalised if c.normalise == "model" else scores.raw
        if scores.corrected is not None:
            shaped = scores.corrected  # what judges' verdicts have made of it
        if c.clip is not None:
            self.clipped_share = float((shaped.abs() > c.clip).float().mean())
            shaped = shaped.clamp(-c.clip, c.clip)
        if c.missing_eos_ceiling is not None:
            shaped = torch.where(responses.finished, shaped, shaped.clamp(max=c.missing_eos_ceiling))
        shaped = shaped - c.missing_eos_penalty * (~responses.finished).float()
        lengths = responses.batch.response_lengths.float()
        if c.overlong_buffer:
            over = (lengths - (self.max_new_tokens - c.overlong_buffer)).clamp(min=0) / c.overlong_buffer
            shaped = shaped - c.overlong_penalty * over
        return shaped - c.length_penalty * lengths / self.max_new_tokens

    def _anchor(self, values: Tensor) -> tuple[float, float]:
        """Mean and spread of the first held-out scores."""
        if self.anchor is None:
            self.anchor = (float(values.mean()), max(float(values.std(unbiased=False)), SMALLEST_SPREAD))
        return self.anchor

    def _observe(self, values: Tensor) -> tuple[float, float]:
        """Welford's running mean and spread over all raw scores so far, these included."""
        for value in values.tolist():
            self.running_count += 1
            delta = value - self.running_mean
            self.running_mean += delta / self.running_count
            self.running_m2 += delta * (value - self.running_mean)
        std = (self.running_m2 / max(1, self.running_count - 1)) ** 0.5
        return self.running_mean, max(std, SMALLEST_SPREAD)

    def state(self) -> dict[str, Any]:
        """Plain JSON values, for checkpoints."""
        return {"count": self.running_count, "mean": self.running_mean, "m2": self.running_m2, "anchor": self.anchor}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.running_count, self.running_mean = int(state["count"]), state["mean"]
        self.running_m2 = state["m2"]
        self.anchor = None if state["anchor"] is None else tuple(state["anchor"])
