"""Seeded faults: the product's own source with one line changed, and the checks that have to notice (SCIENCE T2)."""

import importlib
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Edit:
    """In the source of `where` ("module:Class.method"), `old`, which occurs once, becomes `new`."""

    where: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    name: str
    edits: tuple[Edit, ...]
    run: str = ""
    """The training run on the enumerated world that ends elsewhere: "ppo" or "rloo", with "warm" at temperature 0.7.
    Faults without one still reach the optimum there, or have nothing to do with it, and the other checks notice."""


def mutant(name: str, where: str, old: str, new: str, run: str = "") -> Mutant:
    return Mutant(name, (Edit(f"keel.{where}", old, new),), run)


@contextmanager
def planted(fault: Mutant) -> Iterator[None]:
    """Within it the faulty code runs, whoever imported the function under whatever name."""
    changes = []
    for where in dict.fromkeys(edit.where for edit in fault.edits):
        function = find(where)
        code = mutated(function, [edit for edit in fault.edits if edit.where == where])
        changes.append((function, function.__code__, code))
    for function, _, code in changes:
        function.__code__ = code
    try:
        yield
    finally:
        for function, code, _ in changes:
            function.__code__ = code


def find(where: str) -> FunctionType:
    module, _, path = where.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = vars(found)[name]
    found = found.fget if isinstance(found, property) else found
    return inspect.unwrap(found)


def mutated(function: FunctionType, edits: Sequence[Edit]) -> CodeType:
    """The code of the function with the edits."""
    source = textwrap.dedent(inspect.getsource(function))
    source = source[source.index("def ") :]
    for edit in edits:
        if source.count(edit.old) != 1:
            found = source.count(edit.old)
            raise LookupError(f"{edit.where} holds {edit.old!r} {found} times; bring the mutant up to date")
        source = source.replace(edit.old, edit.new)
    namespace = dict(function.__globals__)
    exec(compile(source, f"<mutant of {function.__qualname__}>", "exec"), namespace)
    return namespace[function.__name__].__code__


def test_module(path: str) -> ModuleType:
    """A file of tests, as a module."""
    name = f"checks_{path.replace('/', '_').removesuffix('.py')}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, TESTS / path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@dataclass(frozen=True)
class Check:
    """One test of the suite with its arguments."""

    file: str
    test: str
    arguments: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        return self.test.removeprefix("test_").replace("_", " ")

    def run(self) -> None:
        function: Callable[..., None] = getattr(test_module(self.file), self.test)
        function(**dict(self.arguments))


def check(file: str, test: str, **arguments: Any) -> Check:
    return Check(file, test, tuple(arguments.items()))


REFERENCES, BATCHES, ONLINE = "laws/test_references.py", "laws/test_algorithms.py", "laws/test_online.py"
CHECKS = (
    check(ONLINE, "test_undiscounted_returns_are_the_score_less_the_kl_still_to_come", name="ppo separate"),
    check(ONLINE, "test_what_a_row_is_worth_does_not_depend_on_its_company", name="ppo separate"),
    check(ONLINE, "test_what_a_row_is_worth_does_not_depend_on_its_company", name="rloo"),
    check(ONLINE, "test_rloo_pays_a_response_by_what_it_earns_over_the_others"),
    check(ONLINE, "test_advantages_are_white_over_the_tokens_that_count_and_returns_are_not", name="ppo separate"),
    check(ONLINE, "test_a_critic_at_its_target_stays", name="ppo separate"),
    check(ONLINE, "test_the_adaptive_coefficient_counts_episodes"),
    check(ONLINE, "test_the_first_ratio_is_one", name="rloo", architecture="llama", temperature=0.7, lora=False),
    check(ONLINE, "test_a_rollout_knows_its_reference_at_the_temperature_of_its_samples"),
    check(
        REFERENCES,
        "test_ppo_takes_the_step_of_its_reference",
        side="right",
        kind="separate",
        temperature=0.7,
        away=True,
    ),
    check(REFERENCES, "test_rloo_takes_the_step_of_its_reference", side="right", temperature=0.7, away=True),
    check(REFERENCES, "test_grpo_takes_the_step_of_its_reference", side="right", preset="none", away=True),
    check(REFERENCES, "test_dpo_takes_the_step_of_its_reference", side="right", name="dpo"),
    check(REFERENCES, "test_dpo_takes_the_step_of_its_reference", side="right", name="dpo robust"),
    check(REFERENCES, "test_dpo_takes_the_step_of_its_reference", side="right", name="dpo ipo"),
    check(REFERENCES, "test_sft_takes_the_step_of_its_reference", side="right"),
    check(REFERENCES, "test_reward_modelling_takes_the_step_of_its_reference", side="right"),
    check(BATCHES, "test_the_gradient_does_not_depend_on_how_the_batch_is_split", name="sft", micro_batch_tokens=40),
    check(BATCHES, "test_a_shared_prompt_is_as_good_as_copies_of_it", name="sft"),
    check(BATCHES, "test_a_score_does_not_depend_on_who_shares_the_prompt", form="hybrid"),
    check(BATCHES, "test_an_implicit_score_is_beta_times_the_log_ratio_of_the_response", form="implicit"),
    check("train/test_optim.py", "test_a_step_moves_by_the_scheduled_rate_and_drops_the_gradient"),
    check(BATCHES, "test_what_does_not_count_may_be_nan", name="ppo separate"),
)

PREPARE, LOSS = "algorithms.ppo:PPO.prepare", "algorithms.ppo:PPO.loss"
RLOO_LOSS = "algorithms.rloo:RLOO.loss"
GROUPED, RETURNS = "algorithms.grouped:clipped_terms", "algorithms.grouped:returns"
GRPO_PREPARE, GRPO_WEIGHTS = "algorithms.grpo:GRPO.prepare", "algorithms.grpo:GRPO._weights"
DPO_LOSS, DPO_TERMS = "algorithms.preference:DPO.loss", "functional.preference_losses:dpo"
IN_REWARD, IN_LOSS = "algorithms.ppo:KLPenalty.in_reward", "algorithms.ppo:KLPenalty.in_loss"
GAE, SURROGATE = "functional.advantages:gae", "functional.policy_losses:clipped_surrogate"
VALUE_LOSS, PAIR_LOSS = "functional.policy_losses:clipped_value_loss", "functional.preference_losses:bradley_terry"
LEAVE_ONE_OUT, STEP = "functional.advantages:leave_one_out", "train.step:optimizer_step"
SCORE, PAIRS = "models.reward:RewardModel.score", "algorithms.reward:RewardModelling.loss"

MUTANTS = (
    # the KL
    mutant("KL with the wrong sign", IN_REWARD, "-self.coefficient", "self.coefficient", "ppo"),
    mutant(
        "KL averaged over the tokens of a response", IN_REWARD, "penalty.masked_fill",
        "(penalty / rollout.response_lengths[rollout.response_of_token]).masked_fill", "rloo",
    ),
    mutant("log-ratio upside down", "functional.kl:kl_k1", "logprobs - ref", "-logprobs + ref", "rloo"),
    Mutant(
        "k1 in the loss instead of the reward",
        (
            Edit(f"keel.{IN_REWARD}", '== "loss"', '== "reward"'),
            Edit(f"keel.{IN_LOSS}", '== "reward"', '== "loss"'),
        ),
        "ppo",
    ),
    mutant("KL in the reward and in the loss", IN_LOSS, '== "reward"', '== "nowhere"'),
    mutant("KL left out of the return", RETURNS, "rollout.scores + rollout.sum", "rollout.scores + 0 * rollout.sum", "rloo"),
    mutant(
        "the policy as its own reference", "train.rollout:RolloutSource.rollout",
        "self.reference.logprobs(batch, c.temperature, c.micro_batch_tokens)", "logprobs", "rloo",
    ),
    mutant(
        "reference at temperature 1", "train.rollout:Reference.logprobs",
        "temperature=temperature", "temperature=1.0",
    ),
    mutant(
        "controller counts tokens for episodes", "algorithms.ppo:KLPenalty.observe",
        "c.horizon, episodes", "c.horizon, 30 * episodes",
    ),
    # rewards, advantages, returns
    mutant("score one token early", "algorithms.ppo:at_last_token", "[:, None] - 1", "[:, None] - 2", "ppo"),
    mutant("score counted twice", PREPARE, "+ at_last_token(", "+ 2 * at_last_token(", "ppo"),
    mutant(
        "GAE leaks between rows", GAE, "torch.where(mask[:, t], values[:, t], next_value)",
        "torch.where(mask[:, t], values[:, t].roll(1), next_value)", "ppo",
    ),
    mutant(
        "GAE bootstraps past the end", GAE, "advantage = next_value = rewards.new_zeros(rewards.shape[0])",
        "advantage, next_value = rewards.new_zeros(rewards.shape[0]), values[:, -1]", "ppo",
    ),
    mutant("GAE without the value of the state itself", GAE, " - values[:, t]\n", "\n", "ppo"),
    mutant("advantages one token late", PREPARE, "rollout.flat(advantages)", "rollout.flat(advantages.roll(1, 1))", "ppo"),
    mutant(
        "whitening counts the padding", "functional.masking:whiten",
        "mean = masked_mean(values, mask)", "mean = values.mean()",
    ),
    mutant(
        "returns taken after whitening", PREPARE, "advantages = whiten(advantages, mask)",
        "advantages = whiten(advantages, mask); returns = advantages + rollout.padded(rollout.values)",
    ),
    mutant("baseline includes the sample itself", LEAVE_ONE_OUT, " * (count / (count - 1))[group]", ""),
    mutant("baseline over all prompts", LEAVE_ONE_OUT, "_group_mean(scores, group, count)", "scores.mean()"),
    mutant(
        "advantages divided by the group's deviation", LEAVE_ONE_OUT, "(count / (count - 1))[group]",
        "_group_mean((scores - _group_mean(scores, group, count)).square(), group, count).rsqrt()",
    ),
    # the policy's loss
    mutant("minimum for maximum in the surrogate", SURROGATE, "torch.maximum", "torch.minimum"),
    mutant("no clipping", SURROGATE, "ratio.clamp(1.0 - clip_low, 1.0 + clip_high)", "ratio"),
    mutant("clip bounds exchanged", SURROGATE, "1.0 - clip_low, 1.0 + clip_high", "1.0 - clip_high, 1.0 + clip_low"),
    mutant("ratio upside down", SURROGATE, "logprobs - old_logprobs)", "old_logprobs - logprobs)", "ppo"),
    mutant("old log-probabilities computed anew", LOSS, "rows.logprobs[kept]", "logprobs.detach()"),
    mutant("loss at temperature 1", LOSS, "temperature=self.temperature", "temperature=1.0", "ppo warm"),
    mutant("RLOO's loss at temperature 1", GROUPED, "temperature=temperature", "temperature=1.0", "rloo warm"),
    mutant("temperature multiplies the logits", "functional.logprobs:_Head.scale", "/ self.t", "* self.t", "rloo warm"),
    mutant("entropy punished", LOSS, "- c.entropy_coef", "+ c.entropy_coef"),
    mutant(
        "loss of a response divided by its length", GROUPED, "(losses if weights is None",
        "(losses / rows.response_lengths[rows.response_of_token][kept] if weights is None",
    ),
    mutant("mean over tokens where responses are meant", RLOO_LOSS, "rows.response_lengths.new_tensor(rows.num_responses, dtype=torch.int64)", "rows.response_mask.sum()"),
    mutant(
        "the end token is not trained", "train.rollout:sample_batch",
        "torch.ones(len(drawn.tokens), dtype=torch.bool)", "drawn.tokens != 0", "ppo",
    ),
    # GRPO
    mutant("deviation left in by Dr. GRPO and out by GRPO", GRPO_PREPARE, '== "std"', '!= "std"'),
    mutant("deviation over all prompts", "functional.advantages:group_normalised", "_group_mean(centred.square(), group, count)", "centred.square().mean()"),
    mutant("a response counts by its length", GRPO_WEIGHTS, "(1 / lengths.clamp(min=1))", "torch.ones_like(lengths)"),
    # the critic
    mutant("critic learns advantages", LOSS, "rows.values[kept], returns,", "rows.values[kept], rows.advantages[kept],"),
    mutant("minimum for maximum in the value loss", VALUE_LOSS, "torch.maximum", "torch.minimum"),
    mutant("values clipped around the return", VALUE_LOSS, "old_values + (values - old_values)", "returns + (values - returns)"),
    mutant("value after the token instead of before", "models.packed:hidden_before", "packed.source.clamp(min=0)", "packed.source + 1"),
    # batches and steps
    Mutant(
        "mean of the means of micro-batches",
        (
            Edit(f"keel.{STEP}", "terms.total.backward()", "(terms.total / terms.count).backward()"),
            Edit(f"keel.{STEP}", "clip(denominator)", "clip(len(list(micro_batches(batch, micro_batch_tokens))))"),
        ),
    ),
    mutant("gradients pile up", "train.optim:Optimizer._step_parts", "part.zero_grad(set_to_none=True)", "pass"),
    mutant(
        "responses begin at position 0", "batch.pack:pack",
        "response_offsets + torch.repeat_interleave(prompt_lengths[owner], response_lengths)", "response_offsets", "rloo",
    ),
    mutant(
        "first token predicted by the response before", "batch.pack:pack",
        "= before[owner]", "= response_starts - 1",
    ),
    mutant("SFT on tokens that do not count", "algorithms.sft:SFT.loss", ".masked_fill(~rows.response_mask, 0)", ""),
    mutant("SFT divides by responses", "algorithms.sft:SFT.loss", "rows.response_mask.sum()", "rows.response_lengths.new_tensor(rows.num_responses)"),
    # DPO
    mutant("log-probabilities averaged over tokens", DPO_LOSS, "pack(rows))[0])", "pack(rows))[0]) / rows.response_lengths"),
    mutant("DPO without its reference", DPO_LOSS, "logprobs - rows.sequence_ref_logprobs", "logprobs"),
    mutant("beta on one response only", DPO_TERMS, "beta * log_ratio_b", "log_ratio_b"),
    mutant("IPO's distance doubled", "functional.preference_losses:ipo", "1.0 / (2.0 * beta)", "1.0 / beta"),
    mutant("noise corrected the wrong way", "functional.preference_losses:without_noise", "- flipped * loss", "+ flipped * loss"),
    mutant("weights of pairs ignored by DPO", DPO_LOSS, "(rows.weight * losses).sum()", "losses.sum()"),
    # the reward model
    mutant("the loser preferred", PAIR_LOSS, "score_a.to(dtype) - score_b.to(dtype)", "score_b.to(dtype) - score_a.to(dtype)"),
    mutant("shared votes hardened", PAIR_LOSS, "preference = preference.to(dtype)", "preference = (preference > 0.5).to(dtype)"),
    mutant("margin helps the preferred", PAIR_LOSS, "- margin *", "+ margin *"),
    mutant("margin always against a", PAIR_LOSS, "margin * torch.sign(2.0 * preference - 1.0)", "margin"),
    mutant("score read one token early", SCORE, "forward_hidden(self.network, packed, packed.last)", "forward_hidden(self.network, packed, packed.last - 1)"),
    mutant("implicit score averaged over tokens", SCORE, "index_add(0, owner, log_ratio)", "index_add(0, owner, log_ratio / lengths[owner])"),
    mutant("weights of pairs ignored", PAIRS, "(rows.weight * losses).sum()", "losses.sum()"),
    mutant("centring on the difference", PAIRS, "(a + b).square()", "(a - b).square()"),
)  # fmt: skip

SURVIVORS: frozenset[str] = frozenset()
"""Faults that no check of this list notices; docs/exactness.md says why."""
