"""Reference and reward model as roles of the policy's own weights: what they say of a rollout, in one forward pass."""

from dataclasses import dataclass, field

import torch
from peft import PeftModel
from torch import Tensor

from keel.batch.pack import pack, repeated
from keel.batch.types import TokenBatch
from keel.models.adapters import add_role
from keel.models.packed import device_of, forward_hidden, token_logprobs
from keel.models.roles import role
from keel.models.settings import LoraConfig
from keel.train.step import micro_batches


@dataclass
class OneTrunk:
    """A policy with adapters, and the heads of the reward models that are adapters beside its own."""

    policy: PeftModel
    heads: list[Tensor] = field(default_factory=list)  # [H] float32 each

    def add_reward(self, lora: LoraConfig, tensors: dict[str, Tensor], head: Tensor) -> int:
        """A reward model: its adapter as `role_tensors` gives it, and its head [H]. Returns its place in `look`."""
        add_role(self.policy, self._name(len(self.heads)), lora, tensors)
        self.heads.append(head.to(device_of(self.policy), torch.float32))
        return len(self.heads) - 1

    @torch.no_grad()
    def look(self, batch: TokenBatch, temperature: float, micro_batch_tokens: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities [R] of the reference at `temperature`, and scores [K, S] of the K reward models."""
        names = [None, *map(self._name, range(len(self.heads)))]
        device = device_of(self.policy)
        logprobs, scores = [], []
        for rows in micro_batches(batch, max(1, micro_batch_tokens // len(names))):
            packed = pack(rows.to(device))
            ends = [packed.last + place * len(packed.tokens) for place in range(1, len(names))]
            at = torch.cat([packed.source.clamp(min=0), *ends])
            whole = [len(packed.tokens)] * len(names)
            read = [len(packed.source.clamp(min=0).unique()), *(len(end) for end in ends)]
            with role(self.policy, *names, stretches=(whole, read)):
                hidden = forward_hidden(self.policy, repeated(packed, len(names)), at)
            before, *lasts = hidden.split([len(packed.source), *(len(end) for end in ends)])
            logprobs.append(token_logprobs(self.policy, packed, temperature=temperature, hidden=before)[0].cpu())
            found = [last.float() @ head for last, head in zip(lasts, self.heads, strict=True)]
            scores.append(torch.stack(found).cpu() if found else torch.zeros(0, len(packed.last)))
        return torch.cat(logprobs), torch.cat(scores, 1)

    @staticmethod
    def _name(place: int) -> str:
        return f"reward{place}"
