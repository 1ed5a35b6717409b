"""REINFORCE++ (Hu et al. 2025, arXiv 2501.03262), whole, in one file.

    1  sample a response to each prompt, one is enough; score each whole response
    2  reward of a token = -kl_coef * (log policy - log reference), and on the last one the score besides
    3  return of a token = sum of the rewards from it on
    4  advantage = (return - mean) / standard deviation, both over all response tokens of the batch
    5  loss = mean over all response tokens of max(-A r, -A clip(r, 1 - c, 1 + c)), r = policy / policy that sampled
    6  step, repeat from 1

No critic and no groups: what a response is worth is told by all others of the batch. REINFORCE++-baseline samples
several responses a prompt and first takes the mean score of the prompt's responses off each score. Plain torch and
transformers; every per-token tensor is [B, T] and stands at the token it speaks of. Rows are padded with the end token:
masks say what counts, never ids.

    python examples/from_scratch/reinforce_pp.py
"""

import copy

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

END = 0


def token_logprobs(model: nn.Module, tokens: Tensor, attention_mask: Tensor, temperature: float = 1.0) -> Tensor:
    """[B, T] log p of each token given those before it; 0 for the first column, which nothing predicts."""
    position_ids = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=tokens, attention_mask=attention_mask.long(), position_ids=position_ids).logits
    logp = (logits[:, :-1] / temperature).log_softmax(-1)
    predicted = logp.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    return torch.cat([torch.zeros_like(predicted[:, :1]), predicted], dim=1)


@torch.no_grad()
def sample(
    policy: nn.Module, prompts: Tensor, max_new_tokens: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """(tokens, attention_mask, response_mask), each [B, T], for prompts [B, P] of one length: step 1."""
    tokens, running = prompts, torch.ones(len(prompts), dtype=torch.bool)
    real = torch.ones_like(prompts, dtype=torch.bool)
    for _ in range(max_new_tokens):
        probabilities = policy(input_ids=tokens).logits[:, -1].softmax(-1)
        token = torch.multinomial(probabilities, 1, generator=generator).squeeze(1)
        tokens = torch.cat([tokens, torch.where(running, token, END)[:, None]], dim=1)
        real = torch.cat([real, running[:, None]], dim=1)
        running = running & (token != END)
    return tokens, real, real & (torch.arange(tokens.shape[1]) >= prompts.shape[1])


def reinforce_pp_advantages(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    scores: Tensor,
    response_mask: Tensor,
    kl_coef: float,
    group_size: int | None = None,
) -> Tensor:
    """[B, T] steps 2 to 4, from log-probabilities [B, T] and scores [B]; 0 outside the response.

    `group_size` responses to a prompt stand side by side where the mean of their scores is taken off; None for none.
    """
    if group_size is not None:
        scores = torch.cat([group - group.mean() for group in scores.split(group_size)])
    rewards = -kl_coef * (logprobs - ref_logprobs) * response_mask
    returns = torch.zeros_like(rewards)
    for row, mask in enumerate(response_mask):
        places = mask.nonzero().flatten().tolist()
        to_come = scores[row]
        for t in reversed(places):
            to_come = to_come + rewards[row, t]
            returns[row, t] = to_come
    counted = returns[response_mask]
    return torch.where(response_mask, (returns - counted.mean()) / counted.std(), 0.0)


def reinforce_pp_loss(
    policy: nn.Module,
    tokens: Tensor,
    attention_mask: Tensor,
    response_mask: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    temperature: float = 1.0,
) -> Tensor:
    """Step 5: advantages and old_logprobs [B, T], the latter under the policy that sampled."""
    logprobs = token_logprobs(policy, tokens, attention_mask, temperature)
    ratio = torch.exp((logprobs - old_logprobs) * response_mask)
    terms = torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - clip_low, 1 + clip_high))
    return (terms * response_mask).sum() / response_mask.sum()


def score(prompt: list[int], response: list[int]) -> float:
    """1 for each letter of the prompt that the response repeats, -1 when it does not end."""
    return float(len(set(prompt) & set(response))) - (END not in response)


def main(iterations: int = 100, kl_coef: float = 0.1) -> tuple[float, float]:
    """REINFORCE++ from a tiny random Llama. Returns the mean score before and after."""
    torch.set_num_threads(1)  # more threads only slow tensors this small
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    policy = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=6, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            initializer_range=0.1, bos_token_id=None, eos_token_id=END,
        )
    )  # fmt: skip
    ref = copy.deepcopy(policy).requires_grad_(False)
    prompts = torch.tensor([[1, 2], [3, 4], [5, 1]])
    optimizer = torch.optim.Adam(policy.parameters(), lr=2e-3, eps=1e-5)
    means = []
    for iteration in range(iterations):
        asked = prompts.repeat_interleave(64, 0)
        tokens, real, response = sample(policy, asked, 3, generator)
        answers = [row[keep].tolist() for row, keep in zip(tokens, response, strict=True)]
        scores = torch.tensor([score(p, a) for p, a in zip(asked.tolist(), answers, strict=True)])
        with torch.no_grad():
            logprobs, ref_logprobs = (token_logprobs(model, tokens, real) for model in (policy, ref))
        advantages = reinforce_pp_advantages(logprobs, ref_logprobs, scores, response, kl_coef)
        loss = reinforce_pp_loss(policy, tokens, real, response, logprobs, advantages)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        means.append(scores.mean().item())
        if iteration % 50 == 0:
            kl = ((logprobs - ref_logprobs) * response).sum(1).mean()
            print(f"iteration {iteration:3d}  mean score {means[-1]:5.2f}  KL {kl:.2f} nats per response")
    before, after = means[0], sum(means[-10:]) / 10
    print(f"mean score {before:.2f} -> {after:.2f} of at most 2; asked {asked[0].tolist()} it says {answers[0]}")
    return before, after


if __name__ == "__main__":
    main()
