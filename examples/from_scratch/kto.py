"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306), whole, in one file.

    1  before training, sum the log-probabilities of every rated response under the reference, and those of a response
       to another prompt behind each prompt: they never change
    2  z0 = max(0, the batch's mean of log policy - log reference of the responses to other prompts), without gradient:
       how far the policy has moved altogether
    3  r = log policy - log reference of the rated response
       thumbs up: loss = up_weight * (1 - sigmoid(beta * (r - z0)));  down: down_weight * (1 - sigmoid(beta * (z0 - r)))
    4  step, repeat

No pairs: a thumb for each response is enough. Those that raters would rather not see sink without end, and what is left
shares their probability: the program prints how much the unwanted ones have before and after. Plain torch and
transformers, rows padded with the end token: which positions count is told by masks, never by ids.

    python examples/from_scratch/kto.py
"""

import copy
import itertools

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

END = 0


def sequence_logprobs(model: nn.Module, tokens: Tensor, attention_mask: Tensor, response_mask: Tensor) -> Tensor:
    """[B] log p of each row's response: the sum over its tokens, the prompt's left out.

    tokens [B, T]; attention_mask and response_mask [B, T] bool, True on real and on response tokens, padded on either
    side.
    """
    position_ids = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=tokens, attention_mask=attention_mask.long(), position_ids=position_ids).logits
    predicted = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
    return (predicted * response_mask[:, 1:]).sum(1)


def reference_point(unrelated_logprobs: Tensor, unrelated_ref_logprobs: Tensor) -> Tensor:
    """Step 2; both are [B], log-probabilities of whole responses to other prompts."""
    return (unrelated_logprobs - unrelated_ref_logprobs).mean().clamp(min=0).detach()


def kto_loss(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    desirable: Tensor,
    z0: Tensor,
    *,
    beta: float = 0.1,
    up_weight: float = 1.0,
    down_weight: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Weighted mean over the ratings of step 3; all are [B], log-probabilities of whole responses.

    desirable in [0, 1] is the probability that the response is a good one.
    """
    weight = torch.ones_like(desirable) if weight is None else weight
    rewards = logprobs - ref_logprobs
    up = up_weight * (1 - torch.sigmoid(beta * (rewards - z0)))
    down = down_weight * (1 - torch.sigmoid(beta * (z0 - rewards)))
    losses = desirable * up + (1 - desirable) * down
    return (weight * losses).sum() / weight.sum()


def collate(prompt: list[int], responses: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """(tokens, attention_mask, response_mask), each [B, T], of one prompt with its responses, padded on the right."""
    rows = [prompt + response for response in responses]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [END] * (width - len(row)) for row in rows])
    real = torch.arange(width) < torch.tensor([[len(row)] for row in rows])
    return tokens, real, real & (torch.arange(width) >= len(prompt))


def every_response() -> list[list[int]]:
    """All that can be said in 3 tokens: 4 letters and an end."""
    stopped = [[*word, END] for n in range(3) for word in itertools.product(range(1, 5), repeat=n)]
    return stopped + [list(word) for word in itertools.product(range(1, 5), repeat=3)]


def main(steps: int = 150, beta: float = 0.5) -> tuple[float, float]:
    """KTO from a tiny random Llama. Returns the probability of unwanted responses before and after."""
    torch.set_num_threads(1)  # more threads only slow tensors this small
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    policy = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=5, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            initializer_range=0.1, bos_token_id=None, eos_token_id=END,
        )
    )  # fmt: skip
    ref = copy.deepcopy(policy).requires_grad_(False)
    prompts, responses = ([1, 2], [3, 4]), every_response()
    rows = [collate(prompt, responses) for prompt in prompts]
    # raters like letters of the prompt, and answers that end
    rewards = torch.tensor([[len(set(p) & set(r)) - 0.5 - 1.0 * (END not in r) for r in responses] for p in prompts])
    with torch.no_grad():
        ref_logprobs = torch.stack([sequence_logprobs(ref, *batch) for batch in rows])  # step 1

    def unwanted() -> float:
        with torch.no_grad():
            logprobs = torch.stack([sequence_logprobs(policy, *batch) for batch in rows])
        return float((logprobs.exp() * (rewards < 0)).sum(1).mean())

    before = unwanted()
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3, eps=1e-8)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    for at in range(steps):
        logprobs = torch.stack([sequence_logprobs(policy, *batch) for batch in rows])
        rated, other = torch.randint(len(responses), (2, len(prompts), 128), generator=generator)
        thumbs = torch.bernoulli(torch.sigmoid(rewards.gather(1, rated)), generator=generator)
        z0 = reference_point(logprobs.gather(1, other), ref_logprobs.gather(1, other))
        loss = kto_loss(logprobs.gather(1, rated), ref_logprobs.gather(1, rated), thumbs, z0, beta=beta)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if at % 50 == 0:
            print(f"step {at:3d}  loss {loss.item():.3f}  z0 {z0.item():.2f} nats")
    after = unwanted()
    print(f"probability of unwanted responses: {before:.3f} -> {after:.3f}")
    return before, after


if __name__ == "__main__":
    main()
