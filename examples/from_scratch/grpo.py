"""Group-relative policy optimisation (Shao et al. 2024, arXiv 2402.03300), whole, in one file.

    1  sample k responses to each prompt; score each whole response
    2  advantage = (score - mean score of the prompt's responses) / their standard deviation
    3  per token  max(-A r, -A clip(r, 1 - c, 1 + c)) + kl_coef * (ref/policy - 1 - log(ref/policy)),
       r = policy / policy that sampled
    4  loss = mean over a response's tokens, then mean over responses
    5  step, repeat from 1

What later papers change: Dr. GRPO (Liu et al. 2025, arXiv 2503.20783) does not divide by the deviation, and divides the
sum over a response by a constant instead of its length; DAPO (Yu et al. 2025, arXiv 2503.14476) takes the mean over all
tokens and clips at 1.28 above.

Plain torch and transformers; every per-token tensor is [B, T] and stands at the token it speaks of. Rows are padded
with the end token: masks say what counts, never ids.

    python examples/from_scratch/grpo.py
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


def group_advantages(scores: Tensor, group_size: int, scale: str = "std") -> Tensor:
    """[B] step 2, one group at a time; a prompt's samples are adjacent. `scale` "none" is Dr. GRPO."""
    advantages = []
    for group in scores.split(group_size):
        centred = group - group.mean()
        advantages.append(centred / (group.std() + 1e-4) if scale == "std" else centred)
    return torch.cat(advantages)


def grpo_loss(
    policy: nn.Module,
    tokens: Tensor,
    attention_mask: Tensor,
    response_mask: Tensor,
    old_logprobs: Tensor,
    ref_logprobs: Tensor,
    advantages: Tensor,
    *,
    kl_coef: float,
    average: str = "responses",
    max_new_tokens: int = 0,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    temperature: float = 1.0,
) -> Tensor:
    """Steps 3 and 4: advantages [B]; old_logprobs under the policy that sampled and ref_logprobs, both [B, T].

    `average` "tokens" is DAPO; "constant" is Dr. GRPO and divides by `max_new_tokens`.
    """
    logprobs = token_logprobs(policy, tokens, attention_mask, temperature)
    ratio = torch.exp((logprobs - old_logprobs) * response_mask)
    advantages = advantages[:, None]
    surrogate = torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - clip_low, 1 + clip_high))
    log_ratio = (ref_logprobs - logprobs) * response_mask
    terms = (surrogate + kl_coef * (torch.exp(log_ratio) - 1 - log_ratio)) * response_mask
    if average == "tokens":
        return terms.sum() / response_mask.sum()
    lengths = response_mask.sum(1) if average == "responses" else max_new_tokens
    return (terms.sum(1) / lengths).mean()


def score(prompt: list[int], response: list[int]) -> float:
    """1 for each letter of the prompt that the response repeats, -1 when it does not end."""
    return float(len(set(prompt) & set(response))) - (END not in response)


def main(iterations: int = 60, group_size: int = 8, kl_coef: float = 0.04) -> tuple[float, float]:
    """GRPO from a tiny random Llama. Returns the mean score before and after."""
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
        asked = prompts.repeat_interleave(8 * group_size, 0)
        tokens, real, response = sample(policy, asked, 3, generator)
        answers = [row[keep].tolist() for row, keep in zip(tokens, response, strict=True)]
        scores = torch.tensor([score(p, a) for p, a in zip(asked.tolist(), answers, strict=True)])
        with torch.no_grad():
            logprobs, ref_logprobs = (token_logprobs(model, tokens, real) for model in (policy, ref))
        advantages = group_advantages(scores, group_size)
        loss = grpo_loss(policy, tokens, real, response, logprobs, ref_logprobs, advantages, kl_coef=kl_coef)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        means.append(scores.mean().item())
        if iteration % 20 == 0:
            kl = ((logprobs - ref_logprobs) * response).sum(1).mean()
            print(f"iteration {iteration:3d}  mean score {means[-1]:5.2f}  KL {kl:.2f} nats per response")
    before, after = means[0], sum(means[-10:]) / 10
    print(f"mean score {before:.2f} -> {after:.2f} of at most 2; asked {asked[0].tolist()} it says {answers[0]}")
    return before, after


if __name__ == "__main__":
    main()
