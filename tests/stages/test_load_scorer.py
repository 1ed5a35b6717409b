"""Reward models that a run has made, as RL and the reports read them back."""

from pathlib import Path

import pytest
from helpers.recipes import Workplace

from keel.models.reward import RewardModel
from keel.models.settings import ModelConfig
from keel.stages.reward import load_scorer
from keel.stages.sections.reward import RewardConfig


@pytest.mark.parametrize("trusted", [False, True])
def test_members_are_read_with_the_recipes_trust(trusted, tmp_path, monkeypatch):
    members = [Workplace(tmp_path).run(only="reward").artifact("reward")]
    seen, load = [], RewardModel.load

    def watched(folder: Path, **settings) -> RewardModel:
        seen.append(settings)
        return load(folder, **settings)

    monkeypatch.setattr(RewardModel, "load", watched)
    load_scorer(RewardConfig(), members, ModelConfig(path="x", device="cpu", trust_remote_code=trusted), 512)
    assert seen == [{"device": "cpu", "trust_remote_code": trusted}]
