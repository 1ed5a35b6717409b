"""Reward modelling (Stiennon et al. 2020, arXiv 2009.01325; Bradley and Terry 1952), whole, in one file.

    1  a classifier with one output reads prompt and response; its output at the last real token is the score
    2  P(a is better than b) = sigmoid(score_a - score_b - margin)
    3  loss = cross-entropy of that against the share of raters who preferred a; a tie is 1/2
    4  step, repeat; then count on unseen pairs how often the better response scores higher

Plain torch and transformers, rows padded. The last token is found by the mask: looking for the first padding id reads
the wrong token when padding and end share an id.

    python examples/from_scratch/reward.py
"""

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForSequenceClassification

END = 0


def scores(model: nn.Module, tokens: Tensor, attention_mask: Tensor) -> Tensor:
    """[B] the score of each row, read where its last real token is: step 1.

    `model` is any ...ForSequenceClassification of transformers with num_labels=1 and a linear `score`; tokens [B, T],
    attention_mask [B, T] bool, padded on either side.
    """
    position_ids = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
    hidden = model.base_model(
        input_ids=tokens, attention_mask=attention_mask.long(), position_ids=position_ids
    ).last_hidden_state
    columns = torch.arange(tokens.shape[1])
    last = columns.masked_fill(~attention_mask, -1).argmax(1)
    return model.score(hidden[torch.arange(len(tokens)), last]).squeeze(-1)


def reward_loss(
    model: nn.Module,
    tokens_a: Tensor,
    attention_mask_a: Tensor,
    tokens_b: Tensor,
    attention_mask_b: Tensor,
    preference: Tensor,
    *,
    weight: Tensor | None = None,
    margin: Tensor | None = None,
    label_smoothing: float = 0.0,
    centering: float = 0.0,
) -> Tensor:
    """Weighted mean over the pairs of the Bradley-Terry cross-entropy: steps 2 and 3.

    preference [B] in [0, 1] is the probability that a is better. weight [B] is 1 if not given, margin [B] 0: by how
    much the preferred score should lead. `centering` adds centering * (score_a + score_b)^2, which keeps scores near
    zero.
    """
    score_a, score_b = scores(model, tokens_a, attention_mask_a), scores(model, tokens_b, attention_mask_b)
    weight = torch.ones_like(preference) if weight is None else weight
    lead = score_a - score_b
    if margin is not None:
        lead = torch.where(preference > 0.5, lead - margin, torch.where(preference < 0.5, lead + margin, lead))
    target = (1 - label_smoothing) * preference + label_smoothing * (1 - preference)
    losses = -target * nn.functional.logsigmoid(lead) - (1 - target) * nn.functional.logsigmoid(-lead)
    losses = losses + centering * (score_a + score_b) ** 2
    return (weight * losses).sum() / weight.sum()


def collate(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """(tokens, attention_mask), both [B, T], padded on the right with the end token."""
    width = max(map(len, rows))
    tokens = torch.tensor([row + [END] * (width - len(row)) for row in rows])
    return tokens, torch.arange(width) < torch.tensor([[len(row)] for row in rows])


def make_pairs(count: int, generator: torch.Generator) -> tuple[list[list[int]], list[list[int]], Tensor, Tensor]:
    """Responses a and b to random prompts, the vote shares of 5 raters [count], and which is truly better [count] bool.

    The prompt is a letter; the more often a response holds it, the better. Raters see that through logistic noise.
    """

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    pairs, leads = [], []
    while len(pairs) < count:
        letter = draw(1, 7)
        a, b = ([draw(1, 7) for _ in range(draw(2, 7))] for _ in range(2))
        if lead := a.count(letter) - b.count(letter):
            pairs.append(([letter, *a, END], [letter, *b, END]))
            leads.append(float(lead))
    better = torch.tensor(leads)
    votes = torch.rand(count, 5, generator=generator) < torch.sigmoid(2 * better)[:, None]
    return [a for a, _ in pairs], [b for _, b in pairs], votes.float().mean(1), better > 0


def main(steps: int = 150) -> float:
    """Train a tiny random Llama to score responses. Returns its accuracy on unseen pairs."""
    torch.set_num_threads(1)  # more threads only slow tensors this small
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=7, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            num_labels=1, initializer_range=0.1, bos_token_id=None, eos_token_id=END, pad_token_id=END,
        )
    )  # fmt: skip
    nn.init.zeros_(model.score.weight)  # before it has seen a vote, every response scores 0
    rows_a, rows_b, shares, _ = make_pairs(2000, generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for step in range(steps):
        rows = torch.randint(len(rows_a), (64,), generator=generator).tolist()
        a, b = collate([rows_a[i] for i in rows]), collate([rows_b[i] for i in rows])
        loss = reward_loss(model, *a, *b, shares[rows], centering=0.01)
        optimizer.zero_grad()
        loss.backward()  # step 4
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step:3d}  loss {loss.item():.3f} nats per pair")
    unseen_a, unseen_b, _, a_is_better = make_pairs(500, generator)
    with torch.no_grad():
        score_a, score_b = scores(model, *collate(unseen_a)), scores(model, *collate(unseen_b))
    accuracy = ((score_a > score_b) == a_is_better).float().mean().item()
    longer = torch.tensor([len(a) - len(b) for a, b in zip(unseen_a, unseen_b, strict=True)])
    longer_wins = torch.where(longer == 0, 0.5, ((longer > 0) == a_is_better).float()).mean().item()
    print(f"unseen pairs ranked right: {accuracy:.0%} (the longer response wins: {longer_wins:.0%})")
    return accuracy


if __name__ == "__main__":
    main()
