"""A world small enough to enumerate: 3 prompts, 85 possible responses each, so the best policy can be written down.

Five tokens, of which 0 ends a response; responses of up to three tokens; prompts of one token; a table of rewards. The
KL-regularised optimum ref(y|x) · exp(reward(x, y) / kl_coef) / Z(x) (Ziegler et al. 2019, arXiv 1909.08593) is a sum
over 85 terms, and the product's own classes train towards it. What measures the distance shares no code with what
trains: it reads next-token logits and adds up logs.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from keel.algorithms.settings import GRPOConfig, KLConfig, OnlineDPOConfig, PPOConfig, ReinforcePPConfig, RLOOConfig
from keel.core.config import Config
from keel.models.attention import NAME
from keel.models.generate import Sampler, Samples
from keel.train.judge import FunctionScorer, Judge
from keel.train.rollout import EncodedPrompt, Reference, RolloutConfig, RolloutSource
from keel.train.settings import OptimConfig, ShapingConfig
from keel.train.step import Metrics

VOCABULARY, EOS, LONGEST = 5, 0, 3
PROMPTS = (5, 6, 7)
IDS = VOCABULARY + len(PROMPTS)
LETTERS = range(1, VOCABULARY)
PREFIXES: tuple[tuple[int, ...], ...] = tuple(p for n in range(LONGEST) for p in itertools.product(LETTERS, repeat=n))
RESPONSES: tuple[tuple[int, ...], ...] = (*((*p, EOS) for p in PREFIXES), *itertools.product(LETTERS, repeat=LONGEST))
REWARDS = torch.randn(len(PROMPTS), len(RESPONSES), generator=torch.Generator().manual_seed(5))

_REWARD_OF = {
    (str(prompt), " ".join(map(str, response))): REWARDS[i, j].item()
    for i, prompt in enumerate(PROMPTS)
    for j, response in enumerate(RESPONSES)
}
# [85, 3] which prefix each token follows (-1: the response is over), and the token
_PREFIX = torch.tensor([[PREFIXES.index(r[:t]) if t < len(r) else -1 for t in range(LONGEST)] for r in RESPONSES])
_TOKEN = torch.tensor([[*r, 0, 0][:LONGEST] for r in RESPONSES])


class TableConfig(PreTrainedConfig):
    model_type = "table"

    def __init__(self, width: int = VOCABULARY, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden_size = width
        self.vocab_size = VOCABULARY
        self.num_hidden_layers = 1


class Table(PreTrainedModel):
    """A trunk without a network: the hidden state is a row of its own for each prompt and what was said since."""

    config_class = TableConfig
    base_model_prefix = "model"

    def __init__(self, config: TableConfig) -> None:
        super().__init__(config)
        self.rows = nn.Parameter(torch.zeros(IDS**LONGEST * 2, config.hidden_size))
        self.layers = nn.ModuleList([nn.Identity()])  # the last one answers only where it is asked
        config._attn_implementation = NAME

    def forward(self, input_ids: Tensor, position_ids: Tensor, **_: object) -> BaseModelOutput:
        tokens, positions = input_ids[0], position_ids[0]
        here = torch.arange(len(tokens))
        prompt = torch.where(positions == 0, here, 0).cummax(0).values  # a prompt stands once, its responses behind it
        said = positions.clamp(max=LONGEST - 1)
        state = tokens[prompt]
        for back in range(LONGEST - 1):
            token = tokens[(here - said + 1 + back).clamp(0, len(tokens) - 1)]
            state = torch.where(said > back, state * IDS + token, state)
        return BaseModelOutput(last_hidden_state=self.layers[0](self.rows[place(state, said)][None]))


def place(state: Any, said: Any) -> Any:
    """Row of a state: its digits in base 8, behind those of shorter states."""
    return state + (IDS ** (said + 1) - IDS) // (IDS - 1)


class TableLM(PreTrainedModel):
    """Logits straight from the table."""

    config_class = TableConfig
    base_model_prefix = "model"

    def __init__(self, config: TableConfig, seed: int = 0) -> None:
        super().__init__(config)
        self.model = Table(config)
        self.lm_head = nn.Linear(VOCABULARY, VOCABULARY, bias=False).requires_grad_(False)
        with torch.no_grad():
            self.lm_head.weight.copy_(torch.eye(VOCABULARY))
            drawn = torch.randn(self.model.rows.shape, generator=torch.Generator().manual_seed(seed))
            self.model.rows.copy_(drawn * 0.5)

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head


def table_policy() -> TableLM:
    return TableLM(TableConfig())


def llama_policy() -> LlamaForCausalLM:
    """One layer of width 64. A bias keeps it from ever saying a prompt token."""
    config = LlamaConfig(
        vocab_size=IDS, hidden_size=64, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=16, initializer_range=0.1, bos_token_id=None, eos_token_id=EOS, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
        model.lm_head.bias = nn.Parameter(torch.zeros(IDS).index_fill(0, torch.tensor(PROMPTS), -40.0), False)
    return model


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    """[3 prompts, 21 prefixes, 5] what `model` says of the next token, by its plain forward pass."""
    if isinstance(model, TableLM):
        digits = [[int("".join(map(str, (x, *p))), IDS) for p in PREFIXES] for x in PROMPTS]
        return model.model.rows[place(torch.tensor(digits), torch.tensor([len(p) for p in PREFIXES]))]
    rows = torch.tensor([[x, *p, *[0] * (LONGEST - 1 - len(p))] for x in PROMPTS for p in PREFIXES])
    found = model(input_ids=rows).logits.view(len(PROMPTS), len(PREFIXES), LONGEST, IDS)
    return found[:, torch.arange(len(PREFIXES)), torch.tensor([len(p) for p in PREFIXES]), :VOCABULARY]


def token_table(model: nn.Module, temperature: float = 1.0) -> Tensor:
    """[3, 85, 3] log-probability of every token of every response, 0 behind its end."""
    return along((logits(model) / temperature).log_softmax(-1))


def along(steps: Tensor) -> Tensor:
    """[3, 85, 3] what `steps` [3, 21, 5] holds for every token of every response, 0 behind its end."""
    return steps[:, _PREFIX.clamp(min=0), _TOKEN] * (_PREFIX >= 0)


@dataclass
class ExactSampler:
    """Draws whole responses from the enumerated distribution."""

    model: nn.Module

    def sample(
        self,
        prompts: Sequence[Tensor],
        *,
        samples: int,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        keys: Sequence[int],
    ) -> Samples:
        if max_new_tokens != LONGEST:
            raise ValueError(f"responses of this world have up to {LONGEST} tokens, not {max_new_tokens}")
        table = token_table(self.model, temperature)
        which = torch.tensor([PROMPTS.index(int(prompt)) for prompt in prompts])
        chances = table.sum(-1).exp()[which]
        drawn = torch.multinomial(chances, samples, replacement=True, generator=torch.Generator().manual_seed(seed))
        logprobs, inside = table[which[:, None], drawn].flatten(0, 1), _PREFIX[drawn.flatten()] >= 0
        tokens = _TOKEN[drawn.flatten()]
        return Samples(
            tokens=tokens[inside],
            lengths=inside.sum(1),
            logprobs=logprobs[inside],
            finished=((tokens == EOS) & inside).any(1),
        )


class Settings(Config):
    """How one run trains."""

    updates: int
    optim: OptimConfig
    critic_learning_rate: float = 0.15
    samples: int = 64
    temperature: float = 1.0
    kl: KLConfig = KLConfig(controller="fixed", initial=0.5)
    ppo: PPOConfig = PPOConfig(epochs=2, minibatches=1, value_coef=1.0, value_clip=None, stop_at_kl=None)
    rloo: RLOOConfig = RLOOConfig(epochs=1, minibatches=1, stop_at_kl=None)
    grpo: GRPOConfig = GRPOConfig(preset="dr_grpo", epochs=1, minibatches=1, stop_at_kl=None)
    reinforce_pp: ReinforcePPConfig = ReinforcePPConfig(epochs=1, minibatches=1, stop_at_kl=None)
    online_dpo: OnlineDPOConfig = OnlineDPOConfig(epochs=1, minibatches=1, stop_at_kl=None)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Where a run ended, as log-probabilities [3, 85] of all responses; distances in nats per response."""

    policy: Tensor
    reference: Tensor
    best: Tensor
    history: list[Metrics]

    @property
    def kl_to_best(self) -> float:
        return kl(self.policy, self.best)

    @property
    def kl_to_best_at_start(self) -> float:
        return kl(self.reference, self.best)

    @property
    def total_variation(self) -> float:
        """From the best policy, the mean over the prompts; in [0, 1]."""
        return total_variation(self.policy, self.best)

    @property
    def regret(self) -> float:
        """What is missing of the best reward - kl_coef · KL, as a share of what the reference lacks.

        A policy lacks kl_coef · KL(policy || best).
        """
        return self.kl_to_best / self.kl_to_best_at_start


def kl(a: Tensor, b: Tensor) -> float:
    """KL(a || b) in nats of two tables of log-probabilities [3, 85], the mean over the prompts."""
    return float((a.exp() * (a - b)).sum(-1).mean())


def total_variation(a: Tensor, b: Tensor) -> float:
    """Between two tables of log-probabilities [3, 85], the mean over the prompts."""
    return float((a.exp() - b.exp()).abs().sum(-1).mean() / 2)


def expected_reward(policy: Tensor) -> float:
    """Of a table of log-probabilities [3, 85], the mean over the prompts."""
    return float((policy.exp() * REWARDS).sum(-1).mean())


def outcome(policy: nn.Module, reference: nn.Module, settings: Settings, history: list[Metrics]) -> Outcome:
    logp, ref = (token_table(model, settings.temperature).double().sum(-1) for model in (policy, reference))
    best = (ref + REWARDS.double() / settings.kl.initial).log_softmax(-1)
    return Outcome(policy=logp, reference=ref, best=best, history=history)


def short_sighted_best(kl_coef: float) -> Tensor:
    """[3, 85] where a penalty leads that charges each token its own KL and never what it leads to, from the table.

    pi(t | s) = ref(t | s) exp(Q(s, t) / kl_coef) / Z, with Q the expected reward alone, from the last token backwards.
    """
    ref = logits(table_policy()).log_softmax(-1)
    policy, worth = torch.empty_like(ref), {}
    for i, prefix in reversed(list(enumerate(PREFIXES))):
        after = [(*prefix, token) for token in range(VOCABULARY)]
        q = torch.stack([REWARDS[:, RESPONSES.index(r)] if r in RESPONSES else worth[r] for r in after], dim=-1)
        policy[:, i] = (ref[:, i] + q / kl_coef).log_softmax(-1)
        worth[prefix] = (policy[:, i].exp() * q).sum(-1)
    return along(policy).sum(-1).double()


def reward_function(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """The table of rewards, as a user's function would give it."""
    return [_REWARD_OF[pair] for pair in zip(prompts, responses, strict=True)]


def source(
    policy: nn.Module, reference: nn.Module, sampler: Sampler, samples: int, temperature: float
) -> RolloutSource:
    """The product's own source of rollouts, all three prompts in each, twice."""
    shaping = ShapingConfig(normalise="none", clip=None, missing_eos_ceiling=None)
    scorer = FunctionScorer(function=reward_function, name="table")
    return RolloutSource(
        policy=policy,
        sampler=sampler,
        reference=Reference(model=reference),
        judge=Judge(scorers={"table": (1.0, scorer)}, shaping=shaping, max_new_tokens=LONGEST),
        prompts=[EncodedPrompt(prompt=str(x), tokens=(x,), key=x) for x in PROMPTS],
        decode=lambda tokens: " ".join(map(str, tokens)),
        config=RolloutConfig(
            prompts=2 * len(PROMPTS),
            samples=samples,
            max_new_tokens=LONGEST,
            temperature=temperature,
            micro_batch_tokens=100_000,
            seed=1,
        ),
    )


def adam(learning_rate: float) -> OptimConfig:
    return OptimConfig(
        learning_rate=learning_rate, beta2=0.99, warmup_share=0, final_share=0.02, max_grad_norm=100, eps=1e-8
    )


def muon(learning_rate: float) -> OptimConfig:
    return adam(learning_rate).model_copy(update={"name": "muon", "muon_learning_rate": learning_rate})
