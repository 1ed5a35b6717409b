"""Simple preference optimisation (Meng et al. 2024, arXiv 2405.14734), whole, in one file.

    1  the reward of a response is beta * the mean log-probability of its tokens under the policy: no reference
    2  P(a is better than b) = sigmoid(reward a - reward b - gamma), the better one has to lead by gamma
    3  loss = cross-entropy of that against the share p of raters who preferred a; with shared votes gamma is scaled by
       2p - 1, so that a tie (p = 1/2) asks for no lead
    4  step, repeat

The prompts here have so few possible responses that the optimum without gamma can be written down: mean
log-probabilities equal the raters' reward / beta up to a constant, which makes the probabilities sum to 1. The program
prints how close it comes. Plain torch and transformers, rows padded with the end token: which positions count is told
by masks, never by ids.

    python examples/from_scratch/simpo.py
"""

import itertools

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

END = 0


def mean_logprobs(model: nn.Module, tokens: Tensor, attention_mask: Tensor, response_mask: Tensor) -> Tensor:
    """[B] mean log-probability of the tokens of each row's response, the prompt's left out.

    tokens [B, T]; attention_mask and response_mask [B, T] bool, True on real and on response tokens, padded on either
    side.
    """
    position_ids = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=tokens, attention_mask=attention_mask.long(), position_ids=position_ids).logits
    predicted = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
    return (predicted * response_mask[:, 1:]).sum(1) / response_mask[:, 1:].sum(1)


def simpo_loss(
    mean_a: Tensor,
    mean_b: Tensor,
    preference: Tensor,
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
    weight: Tensor | None = None,
    margin: Tensor | None = None,
    label_noise: float = 0.0,
) -> Tensor:
    """Weighted mean over the pairs of step 3; all are [B], mean log-probabilities.

    preference in [0, 1] is the probability that a is better; `margin` is a further lead that the data ask of the
    preferred side; `label_noise` e corrects for a share e of swapped labels (Chowdhury et al. 2024).
    """
    weight = torch.ones_like(preference) if weight is None else weight

    def loss(p: Tensor) -> Tensor:
        lead = beta * mean_a - beta * mean_b - gamma * (2 * p - 1)
        if margin is not None:
            lead = lead - margin * torch.sign(2 * p - 1)
        return -p * nn.functional.logsigmoid(lead) - (1 - p) * nn.functional.logsigmoid(-lead)

    losses = ((1 - label_noise) * loss(preference) - label_noise * loss(1 - preference)) / (1 - 2 * label_noise)
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


def main(steps: int = 300, beta: float = 2.0, gamma: float = 0.0) -> tuple[float, float]:
    """SimPO from a tiny random Llama. Returns KL(policy || the optimum without gamma) in nats, before and after."""
    torch.set_num_threads(1)  # more threads only slow tensors this small
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    policy = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=5, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            initializer_range=0.1, bos_token_id=None, eos_token_id=END,
        )
    )  # fmt: skip
    prompt, responses = [1, 2], every_response()
    rows = collate(prompt, responses)
    # raters like letters of the prompt, and answers that end
    rewards = torch.tensor([len(set(prompt) & set(r)) - 1.0 * (END not in r) for r in responses])
    lengths = torch.tensor([float(len(response)) for response in responses])
    low, high = -100.0, 100.0  # the constant that makes the optimum's probabilities sum to 1, by halving
    for _ in range(60):
        constant = (low + high) / 2
        too_much = (lengths * (rewards / beta + constant)).logsumexp(0) > 0
        low, high = (low, constant) if too_much else (constant, high)
    best = lengths * (rewards / beta + constant)

    def distance() -> float:
        with torch.no_grad():
            logprobs = lengths * mean_logprobs(policy, *rows)
        return float((logprobs.exp() * (logprobs - best)).sum())

    before = distance()
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3, eps=1e-8)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    for at in range(steps):
        a, b = torch.randint(len(responses), (2, 256), generator=generator)
        preference = torch.sigmoid(rewards[a] - rewards[b])
        means = mean_logprobs(policy, *rows)
        loss = simpo_loss(means[a], means[b], preference, beta=beta, gamma=gamma)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if at % 100 == 0:
            print(f"step {at:3d}  loss {loss.item():.3f} nats per pair")
    after = distance()
    print(f"KL from the optimum: {before:.3f} -> {after:.4f} nats per response")
    return before, after


if __name__ == "__main__":
    main()
