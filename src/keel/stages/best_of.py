"""The best of n samples: for the gate before RL, for comparisons with SFT, and for rejection sampling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from keel.core.errors import TrainingError
from keel.data.chat import decode_response
from keel.models.generate import InProcessSampler
from keel.models.load import eos_ids
from keel.stages.policy import PolicyFiles, frozen, load_policy, read_tokenizer
from keel.train.judge import Responses
from keel.train.rollout import EncodedPrompt, as_responses, sample_batch


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Samples of some prompts, n each, and their scores."""

    responses: Responses
    logprobs: Tensor  # [R] under the policy that sampled them
    scores: Tensor  # [P, n]

    @property
    def n(self) -> int:
        return self.scores.shape[1]

    def best(self, allowed: Tensor | None = None) -> Tensor:
        """[P] which sample of each prompt has the highest score, the first of equal ones; `allowed` [P, n] may leave
        some out.
        """
        scores = self.scores if allowed is None else self.scores.masked_fill(~allowed, -torch.inf)
        return scores.argmax(1)

    def places(self, which: Tensor) -> Tensor:
        """[P] where the samples `which` [P] stand among all responses."""
        return torch.arange(len(which)) * self.n + which


def draw(
    policy: PolicyFiles,
    prompts: Sequence[EncodedPrompt],
    n: int,
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    score: Callable[[Responses], Tensor],
) -> Drawn:
    """Sample `policy` n times for each prompt, and score."""
    model, tokenizer = frozen(load_policy(policy)), read_tokenizer(policy)
    batch, drawn = sample_batch(
        InProcessSampler(model, eos_ids(model, tokenizer)),
        prompts,
        samples=n,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
    )
    responses = as_responses(batch, drawn.finished, prompts, partial(decode_response, tokenizer))
    scores = score(responses).view(-1, n)
    if not scores.isfinite().all():
        raise TrainingError("a score is not a finite number, so no response is the best. Look at what judges.")
    return Drawn(responses=responses, logprobs=drawn.logprobs, scores=scores)


def picked(responses: Responses, places: Tensor) -> Responses:
    """Only these of the responses, given in ascending order."""
    chosen = places.tolist()
    return Responses(
        batch=responses.batch.only(places),
        prompt_texts=[responses.prompt_texts[i] for i in chosen],
        response_texts=[responses.response_texts[i] for i in chosen],
        finished=responses.finished[places],
        records=[responses.records[i] for i in chosen] if responses.records else (),
    )
