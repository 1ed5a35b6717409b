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
    """The training run on the enumerated world that ends elsewhere: that of an algorithm, with "warm" at temperature 0.7.
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
FRESH, RESAMPLING = "laws/test_online_pairs.py", "train/test_resample.py"
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
    check(
        REFERENCES, "test_reinforce_pp_takes_the_step_of_its_reference", side="right", name="reinforce_pp", away=True
    ),
    check(
        REFERENCES,
        "test_reinforce_pp_takes_the_step_of_its_reference",
        side="right",
        name="reinforce_pp prompt",
        away=True,
    ),
    check(REFERENCES, "test_online_dpo_takes_the_step_of_its_reference", side="right", changes={}, away=True),
    check(
        REFERENCES,
        "test_online_dpo_takes_the_step_of_its_reference",
        side="right",
        changes={"label": "hard"},
        away=True,
    ),
    check(FRESH, "test_the_best_is_paired_with_the_worst_and_equal_scores_still_make_a_pair"),
    check(FRESH, "test_the_coefficient_is_beta_whatever_it_has_become"),
    check(RESAMPLING, "test_a_batch_is_filled_with_prompts_that_teach"),
    check(RESAMPLING, "test_it_asks_for_as_many_as_are_missing_and_never_for_a_prompt_that_the_update_has"),
    check(RESAMPLING, "test_at_its_limit_it_stops_and_fills_up_with_the_first_that_came"),
    check(RESAMPLING, "test_figures_tell_of_the_prompts_as_they_came"),
    check("train/test_judge.py", "test_overlong_responses_are_charged_in_a_straight_line_over_the_buffer"),
    check(REFERENCES, "test_a_method_on_pairs_takes_the_step_of_its_reference", side="right", name="dpo"),
    check(REFERENCES, "test_a_method_on_pairs_takes_the_step_of_its_reference", side="right", name="dpo robust"),
    check(REFERENCES, "test_a_method_on_pairs_takes_the_step_of_its_reference", side="right", name="ipo"),
    check(REFERENCES, "test_a_method_on_pairs_takes_the_step_of_its_reference", side="right", name="simpo"),
    check(REFERENCES, "test_a_method_on_pairs_takes_the_step_of_its_reference", side="right", name="orpo"),
    check(REFERENCES, "test_kto_takes_the_step_of_its_reference", side="right"),
    check("stages/test_ratings.py", "test_every_response_is_unrelated_once_and_never_to_its_own_prompt"),
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
REINFORCE_PP, ONLINE_DPO = "algorithms.reinforce_pp:ReinforcePP.prepare", "algorithms.online_dpo:OnlineDPO.loss"
GRPO_PREPARE, GRPO_WEIGHTS = "algorithms.grpo:GRPO.prepare", "algorithms.grpo:GRPO._weights"
PAIRS_LOSS, PAIRS_TERMS = "algorithms.preference:PairPreference.loss", "algorithms.preference:PairPreference.terms"
COMPARED, LOSSES = "algorithms.preference:what_is_compared", "functional.preference_losses"
KTO_PREPARE, KTO_TERMS = "algorithms.kto:KTO.prepare", "algorithms.kto:KTO.terms"
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
    # REINFORCE++ and online DPO
    mutant("a token is paid for itself alone", "functional.advantages:reward_to_go", "mask, 1.0, 1.0)", "mask, 1.0, 0.0)", "reinforce_pp"),
    mutant("KL left out by REINFORCE++", REINFORCE_PP, "rollout.padded(self.kl.in_reward(rollout))", "0", "reinforce_pp"),
    mutant("advantages of REINFORCE++ not whitened", REINFORCE_PP, "whiten(reward_to_go(rewards, mask), mask)", "reward_to_go(rewards, mask)"),
    mutant("REINFORCE++ without the baseline of its prompts", REINFORCE_PP, '== "prompt"', '== "never"'),
    mutant("REINFORCE++ averages over responses", "algorithms.reinforce_pp:ReinforcePP.loss", "rows.response_mask.sum()", "rows.response_lengths.count_nonzero()"),
    mutant("the worse of a fresh pair preferred", ONLINE_DPO, "rows.scores[a] - rows.scores[b]", "rows.scores[b] - rows.scores[a]", "online_dpo"),
    mutant("fresh pairs without a reference", ONLINE_DPO, "- rows.sum_per_response(rows.ref_logprobs)", "- 0", "online_dpo"),
    mutant("labels of fresh pairs hardened", ONLINE_DPO, 'c.label == "soft"', 'c.label != "soft"', "online_dpo"),
    mutant("fresh pairs across prompts", "algorithms.online_dpo:pairs_within", "rows.prompt_of_response[a] == rows.prompt_of_response[b]", "a < b"),
    mutant("beta of online DPO is the first coefficient", ONLINE_DPO, "self.kl.coefficient", "self.kl.config.initial"),
    mutant("online DPO at temperature 1", ONLINE_DPO, "temperature=self.temperature", "temperature=1.0", "online_dpo warm"),
    mutant("the best paired with the second best", "algorithms.online_dpo:best_and_worst", "order[0]", "order[-2]"),
    # dynamic sampling and overlong responses
    mutant("prompts without signal kept, the others dropped", "train.resample:with_signal", "rollout.rows(~silent)]", "rollout.rows(silent)]"),
    mutant("every try asks the same prompts", "train.resample:with_signal", "others = others[:left], others[left:]", "others = others[:left], others"),
    mutant("figures of the prompts that were picked", "train.resample:with_signal", "            told,\n            seconds", "            more,\n            seconds"),
    mutant("the charge for overlong responses begins at the end", "train.judge:Judge.shape", "self.max_new_tokens - c.overlong_buffer)", "self.max_new_tokens)"),
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
    mutant("log-probabilities averaged over tokens", PAIRS_LOSS, "pack(rows))[0])", "pack(rows))[0]) / rows.response_lengths"),
    mutant("DPO without its reference", COMPARED, "logprobs - rows.sequence_ref_logprobs", "logprobs"),
    mutant("beta on one response only", f"{LOSSES}:dpo", "beta * log_ratio_b", "log_ratio_b"),
    mutant("IPO's distance doubled", f"{LOSSES}:ipo", "1.0 / (2.0 * beta)", "1.0 / beta"),
    mutant("noise corrected the wrong way", f"{LOSSES}:without_noise", "- flipped * loss", "+ flipped * loss"),
    mutant("weights of pairs ignored by DPO", PAIRS_TERMS, "(rows.weight * losses).sum()", "losses.sum()"),
    # SimPO, ORPO, KTO
    mutant("sums over tokens where SimPO and ORPO take means", COMPARED, "return logprobs / rows.sum_per_response(torch.ones_like(rows.response_tokens, dtype=logprobs.dtype)).clamp(min=1)", "return logprobs"),
    mutant("means over tokens that do not count", COMPARED, "rows.sum_per_response(torch.ones_like(rows.response_tokens, dtype=logprobs.dtype)).clamp(min=1)", "rows.response_lengths"),
    mutant("gamma helps the preferred", f"{LOSSES}:simpo", "gamma * (2.0", "-gamma * (2.0"),
    mutant("all of gamma from shared votes", f"{LOSSES}:simpo", "(2.0 * preference - 1.0).abs()", "1.0"),
    mutant("probabilities for odds", f"{LOSSES}:log_odds", "mean - torch.log(-torch.expm1(mean))", "mean"),
    mutant("the worse response imitated", f"{LOSSES}:orpo", "preference * mean_a + opposite * mean_b", "opposite * mean_a + preference * mean_b"),
    mutant("odds ratio upside down", f"{LOSSES}:orpo", "log_odds(mean_a) - log_odds(mean_b)", "log_odds(mean_b) - log_odds(mean_a)"),
    Mutant(
        "gradient through z0",
        (
            Edit(f"keel.{KTO_PREPARE}", "with torch.no_grad():", "with torch.enable_grad():"),
            Edit(f"keel.{LOSSES}:kto", "device=log_ratio.device).detach()", "device=log_ratio.device)"),
        ),
    ),
    mutant("z0 from the rated responses", KTO_PREPARE, "for side in (0, 1)", "for side in (0, 0)"),
    mutant("z0 without the reference", KTO_PREPARE, "- others.sequence_ref_logprobs", ""),
    mutant("z0 summed over the batch", KTO_PREPARE, "moved.mean()", "moved.sum()"),
    mutant("z0 with the wrong sign", KTO_PREPARE, "moved.mean()", "(-moved).mean()"),
    mutant("thumbs down taken for thumbs up", f"{LOSSES}:kto", "undesirable_weight * (1.0 - desirable) * torch.sigmoid(above)", "undesirable_weight * (1.0 - desirable) * torch.sigmoid(-above)"),
    mutant("weights of thumbs exchanged", KTO_TERMS, "c.desirable_weight, c.undesirable_weight", "c.undesirable_weight, c.desirable_weight"),
    mutant("log-ratios of KTO averaged over tokens", KTO_TERMS, "logprobs - rows.sequence_ref_logprobs", "(logprobs - rows.sequence_ref_logprobs) / rows.response_lengths"),
    mutant("a response to the same prompt for an unrelated one", "stages.ratings:unrelated", "(at + count) % total", "(at + 1) % total"),
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
