"""Online DPO (Guo et al. 2024, arXiv 2402.04792), whole, in one file.

    1  sample k responses to each prompt; score each whole response
    2  each two responses to a prompt are a pair; the judge says that a is better with the chance
       sigmoid(score a - score b) (soft labels), or that the better score wins (hard labels)
    3  the policy implies a reward for every response, beta * (log policy - log reference), summed over its tokens
    4  loss = cross-entropy of sigmoid(reward a - reward b) against what the judge says, mean over pairs
    5  step, repeat from 1

DPO on pairs that are always fresh: no advantages, no clipping, no ratio. With soft labels the loss is least for the
policy reference * exp(score / beta), which PPO and RLOO lead to. Plain torch and transformers; every per-token tensor
is [B, T] and stands at the token it speaks of. Rows are padded with the end token: masks say what counts, never ids.

    python examples/from_scratch/online_dpo.py
"""

import copy
import itertools

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
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


def online_dpo_loss(
    policy: nn.Module,
    tokens: Tensor,
    attention_mask: Tensor,
    response_mask: Tensor,
    ref_logprobs: Tensor,
    scores: Tensor,
    group_size: int,
    *,
    beta: float,
    label: str = "soft",
    squared: bool = False,
    temperature: float = 1.0,
) -> Tensor:
    """Steps 2 to 4, pair by pair: ref_logprobs [B, T], scores [B]; a prompt's responses are adjacent.

    `squared` is the loss of IPO (Azar et al. 2023): the log-ratios should be 1 / (2 beta) apart, whoever wins.
    """
    logprobs = token_logprobs(policy, tokens, attention_mask, temperature)
    log_ratios = ((logprobs - ref_logprobs) * response_mask).sum(1)
    losses = []
    for group in torch.arange(len(scores)).split(group_size):
        for a, b in itertools.combinations(group.tolist(), 2):
            lead = scores[a] - scores[b]
            p = torch.sigmoid(lead) if label == "soft" else (torch.sign(lead) + 1) / 2
            h = log_ratios[a] - log_ratios[b]
            if squared:
                losses.append(p * (h - 1 / (2 * beta)) ** 2 + (1 - p) * (h + 1 / (2 * beta)) ** 2)
            else:
                losses.append(-p * logsigmoid(beta * h) - (1 - p) * logsigmoid(-beta * h))
    return torch.stack(losses).mean()


def score(prompt: list[int], response: list[int]) -> float:
    """1 for each letter of the prompt that the response repeats, -1 when it does not end."""
    return float(len(set(prompt) & set(response))) - (END not in response)


def main(iterations: int = 100, group_size: int = 4, beta: float = 0.1) -> tuple[float, float]:
    """Online DPO from a tiny random Llama. Returns the mean score before and after."""
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
        loss = online_dpo_loss(policy, tokens, real, response, ref_logprobs, scores, group_size, beta=beta)
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
