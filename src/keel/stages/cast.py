"""The networks of one RL stage: policy, reference, critic, judge, and which of them share weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from torch import nn

from keel.core.artifacts import Artifact
from keel.models.adapters import add_lora, reference_mode
from keel.models.critic import Critic
from keel.models.generate import InProcessSampler
from keel.models.heads import ValueHead
from keel.models.layers import share_layers
from keel.models.load import eos_ids, hidden_size
from keel.models.packed import transformer
from keel.models.roles import set_role
from keel.stages.policy import PolicyFiles, frozen, load_policy, read_tokenizer
from keel.stages.roles import read_role
from keel.stages.sections.rl import RLConfig
from keel.train.judge import Judge
from keel.train.one_trunk import OneTrunk
from keel.train.resume import load_tensors, restore_module
from keel.train.rollout import EncodedPrompt, Reference

CRITIC = "critic.safetensors"


@dataclass(frozen=True, kw_only=True)
class AlignTask:
    """What one RL stage works on."""

    start: PolicyFiles
    """The policy to improve: the SFT policy, or the policy of the round before."""
    reference: PolicyFiles
    """The policy that the KL is measured against."""
    prompts: Sequence[EncodedPrompt]
    held_out: Sequence[EncodedPrompt]
    round: int = 0
    step_offset: int = 0
    """Updates of earlier rounds, so that steps count through."""
    earlier: Artifact | None = None
    """The round before: its critic and KL coefficient are carried on."""


class Cast:
    """Everyone who plays a part in one RL stage."""

    def __init__(self, config: RLConfig, task: AlignTask, judge_for: Callable[[OneTrunk | None], Judge]) -> None:
        """`judge_for` makes the judge; a reward model may take its place on the trunk that it is given."""
        self.tokenizer: Any = read_tokenizer(task.start)
        self.policy = starting_policy(config, task).eval()  # dropout off: the ratio of the first step must be 1
        self.trunk: OneTrunk | None = None
        if config.layout == "one_trunk" and isinstance(self.policy, PeftModel):
            self.trunk = OneTrunk(self.policy)
        self.judge = judge_for(self.trunk)
        if self.trunk is not None:
            share_layers(transformer(self.policy).base_model)
        self.reference = reference_of(config, task, self.policy)
        self.critic = critic_of(config, task, self.policy) if config.algorithm == "ppo" else None

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What is trained."""
        return {"policy": self.policy} | ({"critic": self.critic} if self.critic is not None else {})

    def sampler(self) -> InProcessSampler:
        """Samples with the policy as it is, and reads values where the critic is a head on it."""
        head = self.critic.value_head if self.critic is not None and self.critic.trunk is None else None
        return InProcessSampler(self.policy, eos_ids(self.policy, self.tokenizer), value_head=head)

    def reference_sampler(self) -> InProcessSampler:
        """Samples with the reference; within `reference.mode()`."""
        return InProcessSampler(self.reference.model, eos_ids(self.policy, self.tokenizer))


def starting_policy(config: RLConfig, task: AlignTask) -> nn.Module:
    """The policy that is trained, with its adapters where there are any."""
    lora, earlier = config.lora, task.earlier
    if lora is None:
        return load_policy(task.start)
    if config.layout == "separate":
        return add_lora(load_policy(task.start), lora)
    policy = add_lora(load_policy(task.reference), lora)
    if earlier is not None:
        set_role(policy, read_role(earlier, task.reference.identity).tensors)
    return policy


def reference_of(config: RLConfig, task: AlignTask, policy: nn.Module) -> Reference:
    """The policy itself with adapters off where that is the reference, else a frozen copy."""
    own = config.layout == "one_trunk" or task.start.identity == task.reference.identity
    if config.lora is not None and own:
        return Reference(model=policy, mode=lambda: reference_mode(policy))
    return Reference(model=frozen(load_policy(task.reference)))


def critic_of(config: RLConfig, task: AlignTask, policy: nn.Module) -> Critic:
    """A head on the policy's trunk or a network of its own; carried on from the round before."""
    head = ValueHead(hidden_size(policy)).to(next(policy.parameters()).device)
    if config.critic_on_trunk:
        critic = Critic(head, None)
    else:
        trunk = load_policy(task.reference)  # in every round, for adapters that are carried on belong to it
        critic = Critic(head, add_lora(trunk, config.lora) if config.lora else trunk)
        for parameter in output_only_parameters(critic):
            parameter.requires_grad_(False)
    carried = task.earlier.path / CRITIC if task.earlier else None
    if carried is not None and carried.is_file():
        restore_module(critic, load_tensors(carried))
    return critic.eval()


def output_only_parameters(critic: Critic) -> list[nn.Parameter]:
    """Parameters of the critic's trunk that only the language-model head uses: they never get a gradient."""
    if critic.trunk is None:
        return []
    used = {id(p) for p in transformer(critic.trunk).base_model.parameters()}
    return [p for p in critic.trunk.parameters() if id(p) not in used]
