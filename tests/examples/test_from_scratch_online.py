"""The one-file references of REINFORCE++ and online DPO: right by independent means."""

import ast
import math

import pytest
import torch
from helpers.from_scratch import FOLDER, reference
from torch import nn

from keel.functional.advantages import reward_to_go
from keel.functional.masking import whiten

reinforce_pp, online_dpo = reference("reinforce_pp"), reference("online_dpo")


@pytest.mark.parametrize("name", ["reinforce_pp", "online_dpo"])
def test_they_import_nothing_of_keel(name):
    assert "keel" not in {
        module.split(".")[0]
        for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text()))
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }


def test_advantages_of_reinforce_pp_by_hand():
    """Two responses of two tokens and of one, kl_coef 1: returns (-1 + 1 + 2, 1 + 2) and 1, whitened over the three."""
    response = torch.tensor([[False, True, True], [False, True, False]])
    logprobs = torch.tensor([[9.0, 1.0, -1.0], [9.0, 1.0, 9.0]])
    found = reinforce_pp.reinforce_pp_advantages(
        logprobs, torch.zeros(2, 3), torch.tensor([2.0, 2.0]), response, kl_coef=1.0
    )
    # returns 2, 3 and 1: mean 2, deviation 1
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]))


def test_advantages_of_reinforce_pp_agree_with_the_library():
    generator = torch.Generator().manual_seed(0)
    logprobs, ref = (torch.randn(6, 8, generator=generator) for _ in range(2))
    mask = torch.rand(6, 8, generator=generator) < 0.7
    mask[:, -1] = True
    scores = torch.randn(6, generator=generator)
    rewards = -0.3 * (logprobs - ref)
    rewards[:, -1] += scores
    expected = whiten(reward_to_go(rewards, mask), mask)
    found = reinforce_pp.reinforce_pp_advantages(logprobs, ref, scores, mask, 0.3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


class Fixed(nn.Module):
    """Logits of which every token is as likely as its id says, whatever came before."""

    def __init__(self, logprobs: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logprobs)

    def forward(self, input_ids, **_):
        logits = self.logits.expand(*input_ids.shape, -1)
        return type("Output", (), {"logits": logits})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # log-ratios log .5, log .3 and log .2 against a reference of 0; scores 2, 1 and 1, so leads 1, 1 and 0
        ({"beta": 1.0}, lambda h, p: -p * math.log(1 / (1 + math.exp(-h))) - (1 - p) * math.log(1 / (1 + math.exp(h)))),
        ({"beta": 1.0, "squared": True}, lambda h, p: p * (h - 0.5) ** 2 + (1 - p) * (h + 0.5) ** 2),
    ],
    ids=["dpo", "ipo"],
)
@pytest.mark.parametrize("label", ["soft", "hard"])
def test_the_loss_of_online_dpo_by_hand(options, expected, label):
    chances = [math.log(0.5), math.log(0.3), math.log(0.2)]
    tokens = torch.tensor([[0, 0], [0, 1], [0, 2]])
    real, response = torch.ones(3, 2).bool(), torch.tensor([[False, True]] * 3)
    found = online_dpo.online_dpo_loss(
        Fixed(chances), tokens, real, response, torch.zeros(3, 2), torch.tensor([2.0, 1.0, 1.0]), 3,
        label=label, **options,
    )  # fmt: skip
    sure = 1 / (1 + math.exp(-1)) if label == "soft" else 1.0
    pairs = [(chances[0] - chances[1], sure), (chances[0] - chances[2], sure), (chances[1] - chances[2], 0.5)]
    assert found.item() == pytest.approx(sum(expected(h, p) for h, p in pairs) / 3, abs=1e-5)


@pytest.mark.parametrize("program", [reinforce_pp, online_dpo], ids=["reinforce_pp", "online_dpo"])
def test_each_program_learns_its_toy_task(program, capsys):
    before, after = program.main(iterations=40)
    assert after > before + 0.8
    assert capsys.readouterr().out
