"""Supervised fine-tuning (Ouyang et al. 2022, arXiv 2203.02155, section 3.5), whole, in one file.

    1  join every prompt with its ideal response and an end token; pad the rows to one length
    2  the logits at position t - 1 give the probability of the token at position t
    3  loss = - sum of log p over response tokens / number of response tokens, in the whole batch
    4  step, repeat

Plain torch and transformers, rows padded with the end token: which positions count is told by masks, never by ids.

    python examples/from_scratch/sft.py
"""

import itertools

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

END = 0


def token_logprobs(model: nn.Module, tokens: Tensor, attention_mask: Tensor, temperature: float = 1.0) -> Tensor:
    """[B, T] log p of each token given those before it; 0 for the first column, which nothing predicts.

    tokens [B, T]; attention_mask [B, T] bool, True on real tokens, padded on either side.
    """
    position_ids = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=tokens, attention_mask=attention_mask.long(), position_ids=position_ids).logits
    logp = (logits[:, :-1] / temperature).log_softmax(-1)
    predicted = logp.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    return torch.cat([torch.zeros_like(predicted[:, :1]), predicted], dim=1)


def sft_loss(model: nn.Module, tokens: Tensor, attention_mask: Tensor, response_mask: Tensor) -> Tensor:
    """Mean of -log p over the response tokens of the whole batch: steps 2 and 3.

    response_mask [B, T] bool is True on response tokens, the end token included: a model that never sees its end token
    trained never stops.
    """
    return -token_logprobs(model, tokens, attention_mask)[response_mask].mean()


def collate(pairs: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor, Tensor]:
    """(tokens, attention_mask, response_mask), each [B, T], of (prompt, response) ids, padded on the right: step 1."""
    rows = [[*prompt, *response, END] for prompt, response in pairs]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [END] * (width - len(row)) for row in rows])
    column = torch.arange(width)
    attention_mask = column < torch.tensor([[len(row)] for row in rows])
    response_mask = attention_mask & (column >= torch.tensor([[len(prompt)] for prompt, _ in pairs]))
    return tokens, attention_mask, response_mask


@torch.no_grad()
def greedy(model: nn.Module, prompt: list[int], max_new_tokens: int) -> list[int]:
    """The likeliest continuation, without its end token."""
    tokens = torch.tensor([prompt])
    for _ in range(max_new_tokens):
        token = model(input_ids=tokens).logits[0, -1].argmax()
        if token == END:
            break
        tokens = torch.cat([tokens, token.view(1, 1)], dim=1)
    return tokens[0, len(prompt) :].tolist()


def main(steps: int = 150) -> float:
    """Teach a tiny random Llama to say a word backwards. Returns the share of unseen words that it gets right."""
    torch.set_num_threads(1)  # more threads only slow tensors this small
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=9, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            bos_token_id=None, eos_token_id=END,
        )
    )  # fmt: skip
    words = [list(word) for length in (2, 3) for word in itertools.product(range(1, 8), repeat=length)]
    # the prompt is the word and the sign 8, the response is the word backwards
    data = [([*words[i], 8], words[i][::-1]) for i in torch.randperm(len(words)).tolist()]
    train, unseen = data[:-60], data[-60:]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        rows = torch.randint(len(train), (64,), generator=generator).tolist()
        loss = sft_loss(model, *collate([train[i] for i in rows]))
        optimizer.zero_grad()
        loss.backward()  # step 4
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step:3d}  loss {loss.item():.3f} nats per response token")
    right = sum(greedy(model, prompt, 5) == response for prompt, response in unseen) / len(unseen)
    prompt, _ = unseen[0]
    print(f"after {steps} steps it says {prompt[:-1]} backwards as {greedy(model, prompt, 5)}")
    print(f"unseen words said backwards and stopped in time: {right:.0%} of {len(unseen)}")
    return right


if __name__ == "__main__":
    main()
