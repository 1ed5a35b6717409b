"""Which moments of a run are kept to go back to."""

from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.resume import Snapshots
from keel.train.settings import OptimConfig


def kept(folder: Path, most: int, steps: range) -> list[int]:
    module = nn.Linear(2, 2)
    optimizer = Optimizer([ParameterGroup(parameters=trainable(module))], OptimConfig(), 10)
    snapshots = Snapshots(folder, most)
    for step in steps:
        with torch.no_grad():
            module.weight.fill_(float(step))
        snapshots.save(step, modules={"policy": module}, optimizer=optimizer, state={})
    for step in snapshots.steps:
        snapshots.load(step).restore({"policy": module}, optimizer)
        assert module.weight[0, 0] == step
    return snapshots.steps


def test_the_beginning_and_the_newest_stay_and_the_rest_lie_denser_towards_the_present(tmp_path):
    steps = kept(tmp_path, 5, range(0, 62, 2))
    assert steps[0] == 0
    assert steps[-1] == 60
    gaps = [after - before for before, after in pairwise(steps)]
    assert gaps == sorted(gaps, reverse=True)


def test_as_many_are_kept_as_were_asked_for_and_one_is_the_newest(tmp_path):
    assert kept(tmp_path / "one", 1, range(4)) == [3]
    assert kept(tmp_path / "two", 2, range(4)) == [0, 3]
    assert kept(tmp_path / "all", 9, range(4)) == [0, 1, 2, 3]
