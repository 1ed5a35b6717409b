"""Proximal policy optimisation for language models, whole, in one file.

Schulman et al. 2017 (arXiv 1707.06347), as Ziegler et al. 2019 (arXiv 1909.08593) and Ouyang et al. 2022 (arXiv
2203.02155) use it:

    1  sample responses from the policy; score each whole response
    2  note, for every response token, its log-probability under policy and reference, and the critic's value before it
    3  reward_t = -kl_coef (log policy - log reference) + score at the last token
    4  advantage_t = sum over k of (gamma lam)^k delta_{t+k},  delta_t = reward_t + gamma value_{t+1} - value_t
       return_t = advantage_t + value_t; then whiten the advantages
    5  for some epochs:  policy loss  max(-A r, -A clip(r, 1 - c, 1 + c)),  r = policy / policy that sampled
                         value loss   max((v - R)^2, (clip(v, v_old +- c) - R)^2) / 2
                         both averaged over the response tokens; step
    6  repeat from 1

The prompts here have so few possible responses that the best policy, reference * exp(score / kl_coef), can be written
down: the program prints how close PPO comes. Plain torch and transformers; every per-token tensor is [B, T] and stands
at the token it speaks of. Rows are padded with the end token: masks say what counts, never ids.

    python examples/from_scratch/ppo.py
"""

import copy
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

END = 0
LETTERS = range(1, 6)
MAX_NEW_TOKENS = 3


@dataclass
class Critic:
    """The value before each token: a linear head on a trunk (`LlamaModel` and the like), own or the policy's."""

    trunk: nn.Module
    head: nn.Module  # [.., H] -> [.., 1]

    def values(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """[B, T] the return expected before each token is chosen; 0 for the first column."""
        hidden = self.trunk(
            input_ids=tokens, attention_mask=attention_mask.long(), position_ids=positions(attention_mask)
        ).last_hidden_state
        after = self.head(hidden).squeeze(-1)
        return torch.cat([torch.zeros_like(after[:, :1]), after[:, :-1]], dim=1)


@dataclass
class Experience:
    """What a phase of sampling leaves for the updates: all [B, T]."""

    tokens: Tensor
    attention_mask: Tensor  # bool, True on real tokens, padded on either side
    response_mask: Tensor  # bool, True on response tokens, the end token included
    old_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor


def positions(attention_mask: Tensor) -> Tensor:
    return (attention_mask.long().cumsum(1) - 1).clamp(min=0)


def token_logprobs(
    model: nn.Module, tokens: Tensor, attention_mask: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """[B, T] log p of each token given those before it, and the entropy of what could stand there; 0 in column 0."""
    logits = model(
        input_ids=tokens, attention_mask=attention_mask.long(), position_ids=positions(attention_mask)
    ).logits
    logp = (logits[:, :-1] / temperature).log_softmax(-1)
    predicted = logp.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    first = torch.zeros_like(predicted[:, :1])
    return torch.cat([first, predicted], dim=1), torch.cat([first, entropy], dim=1)


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


def token_rewards(
    logprobs: Tensor, ref_logprobs: Tensor, scores: Tensor, response_mask: Tensor, kl_coef: float
) -> Tensor:
    """[B, T] step 3: scores [B] go to each row's last response token."""
    rewards = -kl_coef * (logprobs - ref_logprobs) * response_mask
    last = torch.arange(response_mask.shape[1]).masked_fill(~response_mask, -1).argmax(1)
    rewards[torch.arange(len(rewards)), last] += scores
    return rewards


def gae_reference(
    rewards: Tensor, values: Tensor, response_mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """(advantages, returns), both [B, T] and 0 outside the response: step 4, one number at a time."""
    advantages = torch.zeros_like(rewards)
    for row in range(len(rewards)):
        advantage = next_value = 0.0  # after the last token there is nothing to expect
        for t in reversed(response_mask[row].nonzero().flatten().tolist()):
            delta = rewards[row, t] + gamma * next_value - values[row, t]
            advantage = delta + gamma * lam * advantage
            next_value = values[row, t]
            advantages[row, t] = advantage
    return advantages, (advantages + values) * response_mask


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """`values` brought to mean 0 and variance 1 over the mask, 0 outside it."""
    kept = values[mask]
    return (values - kept.mean()) / (kept.var() + 1e-8).sqrt() * mask


@torch.no_grad()
def make_experience(
    policy: nn.Module,
    ref: nn.Module,
    critic: Critic,
    tokens: Tensor,
    attention_mask: Tensor,
    response_mask: Tensor,
    scores: Tensor,
    *,
    kl_coef: float,
    gamma: float = 1.0,
    lam: float = 0.95,
    temperature: float = 1.0,
) -> Experience:
    """Steps 2 to 4."""
    logprobs, _ = token_logprobs(policy, tokens, attention_mask, temperature)
    ref_logprobs, _ = token_logprobs(ref, tokens, attention_mask, temperature)
    values = critic.values(tokens, attention_mask)
    rewards = token_rewards(logprobs, ref_logprobs, scores, response_mask, kl_coef)
    advantages, returns = gae_reference(rewards, values, response_mask, gamma, lam)
    return Experience(
        tokens=tokens,
        attention_mask=attention_mask,
        response_mask=response_mask,
        old_logprobs=logprobs,
        old_values=values,
        advantages=whiten(advantages, response_mask),
        returns=returns,
    )


def ppo_losses(
    policy: nn.Module,
    critic: Critic,
    batch: Experience,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    value_clip: float = 0.2,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """(policy loss, value loss, entropy), each a mean over the response tokens of the batch: step 5."""
    mask = batch.response_mask
    logprobs, entropy = token_logprobs(policy, batch.tokens, batch.attention_mask, temperature)
    values = critic.values(batch.tokens, batch.attention_mask)

    ratio = torch.exp(logprobs[mask] - batch.old_logprobs[mask])
    advantages = batch.advantages[mask]
    unclipped, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    policy_loss = torch.max(unclipped, clipped).mean()

    values, old_values, returns = values[mask], batch.old_values[mask], batch.returns[mask]
    near = torch.max(torch.min(values, old_values + value_clip), old_values - value_clip)
    value_loss = 0.5 * torch.max((values - returns) ** 2, (near - returns) ** 2).mean()
    return policy_loss, value_loss, entropy[mask].mean()


def score(prompt: list[int], response: list[int]) -> float:
    """1 for each letter of the prompt that the response repeats, -1 when it does not end."""
    return float(len(set(prompt) & set(response))) - (END not in response)


def every_response() -> list[list[int]]:
    """All that can be said in MAX_NEW_TOKENS tokens: 5 letters and an end."""
    stopped = [[*word, END] for n in range(MAX_NEW_TOKENS) for word in itertools.product(LETTERS, repeat=n)]
    return stopped + [list(word) for word in itertools.product(LETTERS, repeat=MAX_NEW_TOKENS)]


@torch.no_grad()
def exact_logprobs(model: nn.Module, prompt: list[int]) -> Tensor:
    """[N] log-probability of every response to a prompt."""
    rows = [prompt + response for response in every_response()]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [END] * (width - len(row)) for row in rows])
    real = torch.arange(width) < torch.tensor([[len(row)] for row in rows])
    logprobs, _ = token_logprobs(model, tokens, real)
    return (logprobs * (real & (torch.arange(width) >= len(prompt)))).sum(1)


def compare_with_the_best(
    policy: nn.Module, ref: nn.Module, prompts: list[list[int]], kl_coef: float
) -> tuple[float, ...]:
    """Means over prompts of score, KL(policy || ref), score - kl_coef KL, the best of that, KL(policy || best)."""
    figures = []
    for prompt in prompts:
        logp, ref_logp = exact_logprobs(policy, prompt), exact_logprobs(ref, prompt)
        value = torch.tensor([score(prompt, response) for response in every_response()])
        best = (ref_logp + value / kl_coef).log_softmax(0)
        p, kl = logp.exp(), (logp.exp() * (logp - ref_logp)).sum()
        limit = kl_coef * (ref_logp + value / kl_coef).logsumexp(0)
        figures.append(torch.stack([p @ value, kl, p @ value - kl_coef * kl, limit, (p * (logp - best)).sum()]))
    return tuple(torch.stack(figures).mean(0).tolist())


def main(iterations: int = 100, kl_coef: float = 0.5) -> float:
    """PPO from a tiny random Llama. Returns KL(policy || best policy) in nats per response."""
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
    critic = Critic(trunk=copy.deepcopy(policy.model), head=nn.Linear(32, 1))
    nn.init.zeros_(critic.head.weight)
    nn.init.zeros_(critic.head.bias)
    prompts = [[1, 2], [3, 4], [5, 1]]
    parameters = [*policy.parameters(), *critic.trunk.parameters(), *critic.head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3, eps=1e-5)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, iterations)
    for iteration in range(iterations):
        asked = torch.tensor(prompts).repeat_interleave(128, 0)
        tokens, real, response = sample(policy, asked, MAX_NEW_TOKENS, generator)
        answers = [row[keep].tolist() for row, keep in zip(tokens, response, strict=True)]
        scored = torch.tensor([score(p, a) for p, a in zip(asked.tolist(), answers, strict=True)])
        batch = make_experience(policy, ref, critic, tokens, real, response, scored, kl_coef=kl_coef)
        for _ in range(4):
            policy_loss, value_loss, _ = ppo_losses(policy, critic, batch)
            optimizer.zero_grad()
            (policy_loss + 0.5 * value_loss).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        schedule.step()
        if iteration % 25 == 0:
            print(f"iteration {iteration:2d}  mean score {scored.mean():5.2f}")
    mean_score, kl, objective, limit, distance = compare_with_the_best(policy, ref, prompts, kl_coef)
    at_start = compare_with_the_best(ref, ref, prompts, kl_coef)
    print(f"score {at_start[0]:.2f} -> {mean_score:.2f}, KL from the reference {kl:.2f} nats per response")
    print(f"score - {kl_coef} KL: {objective:.3f}, the best possible is {limit:.3f}")
    print(f"KL from the best policy: {at_start[4]:.3f} -> {distance:.4f} nats")
    return distance


if __name__ == "__main__":
    main()
