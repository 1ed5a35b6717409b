"""Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036), whole, in one file.

    1  before training, sum the log-probabilities of both responses of every pair under the reference: they never change
    2  h = (log policy - log reference) of response a - the same of b, each summed over the response's tokens
    3  loss = p * (h - 1 / (2 beta))^2 + (1 - p) * (h + 1 / (2 beta))^2, p the share of raters who preferred a
    4  step, repeat

Where DPO pushes a pair on which all raters agree apart without end, this stops at a distance of 1 / (2 beta). The
prompts here have so few possible responses that the optimum, reference * exp(how often the response is preferred /
beta), can be written down: the program prints how close it comes. Plain torch and transformers, rows padded with the
end token: which positions count is told by masks, never by ids.

    python examples/from_scratch/ipo.py
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


def ipo_loss(
    logprobs_a: Tensor,
    logprobs_b: Tensor,
    ref_logprobs_a: Tensor,
    ref_logprobs_b: Tensor,
    preference: Tensor,
    *,
    beta: float = 0.1,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Weighted mean over the pairs of step 3; all are [B], log-probabilities of whole responses.

    preference in [0, 1] is the probability that a is better; `label_smoothing` e moves it by a share e to the other
    side.
    """
    weight = torch.ones_like(preference) if weight is None else weight
    p = (1 - label_smoothing) * preference + label_smoothing * (1 - preference)
    lead = (logprobs_a - ref_logprobs_a) - (logprobs_b - ref_logprobs_b)
    losses = p * (lead - 1 / (2 * beta)) ** 2 + (1 - p) * (lead + 1 / (2 * beta)) ** 2
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


def main(steps: int = 300, beta: float = 0.2) -> tuple[float, float]:
    """IPO from a tiny random Llama. Returns KL(policy || its optimum) in nats per response before and after."""
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
    prompt, responses = [1, 2], every_response()
    rows = collate(prompt, responses)
    # raters like letters of the prompt, and answers that end
    rewards = torch.tensor([len(set(prompt) & set(r)) - 1.0 * (END not in r) for r in responses])
    with torch.no_grad():
        ref_logprobs = sequence_logprobs(ref, *rows)  # step 1
    liked = torch.sigmoid(rewards[:, None] - rewards[None, :]).mean(1)
    best = (ref_logprobs + liked / beta).log_softmax(0)

    def distance() -> float:
        with torch.no_grad():
            logprobs = sequence_logprobs(policy, *rows)
        return float((logprobs.exp() * (logprobs - best)).sum())

    before = distance()
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3, eps=1e-8)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    for at in range(steps):
        a, b = torch.randint(len(responses), (2, 256), generator=generator)
        preference = torch.sigmoid(rewards[a] - rewards[b])
        logprobs = sequence_logprobs(policy, *rows)
        loss = ipo_loss(logprobs[a], logprobs[b], ref_logprobs[a], ref_logprobs[b], preference, beta=beta)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if at % 100 == 0:
            print(f"step {at:3d}  loss {loss.item():.3f} square nats per pair")
    after = distance()
    print(f"KL from the optimum: {before:.3f} -> {after:.4f} nats per response")
    return before, after


if __name__ == "__main__":
    main()
