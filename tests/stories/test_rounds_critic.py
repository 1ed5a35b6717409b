"""What PPO carries from one round to the next."""

from unittest.mock import patch

import pytest
import torch
from helpers.recipes import Workplace
from torch import Tensor, nn

from keel.models.critic import Critic
from keel.models.packed import transformer
from keel.stages import cast
from keel.stages.cast import AlignTask, critic_of
from keel.stages.sections.rl import RLConfig
from keel.train.resume import load_tensors

RATERS = """
from keel.data.records import Comparison

def judge(pairs):
    return [Comparison(prompt=p.prompt, a=p.a, b=p.b, preference=float(len(p.a) > len(p.b))) for p in pairs]
"""


@pytest.mark.parametrize("lora", [None, {"rank": 2}], ids=["full", "lora"])
def test_the_second_round_begins_with_the_critic_that_the_first_one_ended_with(lora, tmp_path):
    """Its own tensors, and below adapters the very weights that they were trained on."""
    place = Workplace(tmp_path)
    place.write("raters.py", RATERS)
    begun: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def noting(config: RLConfig, task: AlignTask, policy: nn.Module) -> Critic:
        critic = critic_of(config, task, policy)
        assert critic.trunk is not None
        frozen = {n: p.clone() for n, p in transformer(critic.trunk).named_parameters() if not p.requires_grad}
        begun.append(({n: p.detach().clone() for n, p in critic.named_parameters() if p.requires_grad}, frozen))
        return critic

    with patch.object(cast, "critic_of", noting):
        ran = place.run(
            sft=None,
            evaluate=None,
            reward={"best_of": 0},
            ppo={"updates": 1, "keep": "last", "lora": lora, "optim": {"learning_rate": 1e-2}},
            rounds={"count": 2, "comparisons": 8, "labeller": "raters.py:judge"},
        )
    (first, base), (second, same_base) = begun
    saved = [load_tensors(path) for path in sorted((ran.directory / "artifacts").glob("ppo-*/critic.safetensors"))]
    assert any(equal(tensors, second) for tensors in saved)
    assert not equal(first, second)
    assert equal(base, same_base)


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
