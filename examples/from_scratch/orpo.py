"""Odds-ratio preference optimisation (Hong et al. 2024, arXiv 2403.07691), whole, in one file.

    1  m = the mean log-probability of a response's tokens under the policy: no reference
    2  odds = exp(m) / (1 - exp(m));  the log odds ratio of a pair is log odds a - log odds b
    3  loss = - m of the better response (fine-tuning on it) + odds_weight * (- log sigmoid of the log odds ratio)
       with shared votes p: both terms are mixed, p for a and 1 - p for b; a tie imitates both by half
    4  step, repeat

Fine-tuning and preferences in one stage: the policy may start from a base model. The prompts here have so few possible
responses that the optimum of the first term alone can be written down, (how often a response is the better one) / its
length, normalised: the program prints how much likelier the odds term makes what raters like than that. Plain torch and
transformers, rows padded with the end token: which positions count is told by masks, never by ids.

    python examples/from_scratch/orpo.py
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


def orpo_loss(
    mean_a: Tensor,
    mean_b: Tensor,
    preference: Tensor,
    *,
    odds_weight: float = 0.1,
    weight: Tensor | None = None,
) -> Tensor:
    """Weighted mean over the pairs of step 3; all are [B], mean log-probabilities below 0.

    preference in [0, 1] is the probability that a is better.
    """
    weight = torch.ones_like(preference) if weight is None else weight
    odds_a, odds_b = (mean - torch.log(-torch.expm1(mean)) for mean in (mean_a, mean_b))  # 1 - exp(m), exact near m = 0
    ratio = odds_a - odds_b
    a_is_better = -mean_a - odds_weight * nn.functional.logsigmoid(ratio)
    b_is_better = -mean_b - odds_weight * nn.functional.logsigmoid(-ratio)
    losses = preference * a_is_better + (1 - preference) * b_is_better
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


def main(steps: int = 200, odds_weight: float = 1.0) -> tuple[float, float, float]:
    """ORPO from a tiny random Llama. Returns the mean reward before, of pure imitation at its best, and after."""
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
    liked = torch.sigmoid(rewards[:, None] - rewards[None, :]).mean(1)
    imitation = float(((liked / lengths / (liked / lengths).sum()) * rewards).sum())

    def reward() -> float:
        with torch.no_grad():
            return float(((lengths * mean_logprobs(policy, *rows)).exp() * rewards).sum())

    before = reward()
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3, eps=1e-8)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    for at in range(steps):
        a, b = torch.randint(len(responses), (2, 256), generator=generator)
        preference = torch.sigmoid(rewards[a] - rewards[b])
        means = mean_logprobs(policy, *rows)
        loss = orpo_loss(means[a], means[b], preference, odds_weight=odds_weight)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if at % 100 == 0:
            print(f"step {at:3d}  loss {loss.item():.3f} nats per pair")
    after = reward()
    print(f"mean reward: {before:.3f} -> {after:.3f}; pure imitation would end at {imitation:.3f}")
    return before, imitation, after


if __name__ == "__main__":
    main()
