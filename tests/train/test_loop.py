import pytest
import torch
from torch import nn

from keel.batch.collate import EncodedResponse, token_batch
from keel.train.loop import LoopConfig, fit, mean_metrics, moved_past, never, shuffled
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.settings import OptimConfig
from keel.train.step import LossTerms


class Recorder(nn.Module):
    """An algorithm that notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))
        self.prepared: list[list[int]] = []
        self.seen: list[list[int]] = []

    def prepare(self, batch):
        self.prepared.append(batch.response_tokens.tolist())
        return batch

    def loss(self, rows) -> LossTerms:
        self.seen.append(rows.response_tokens.tolist())
        return LossTerms(
            total=self.w.sum() * len(self.seen),
            count=torch.tensor(1),
            sums={"clip_fraction": torch.tensor(float(len(self.seen)))},
        )


def batch_of(first: int, size: int = 6):
    return token_batch([[1]] * size, [[EncodedResponse(tokens=[first + i])] for i in range(size)])


def run(algorithm, batches, start=0, stop=None, enough=None, **settings) -> list[dict]:
    optimizer = Optimizer([ParameterGroup(parameters=trainable(algorithm))], OptimConfig(), 100)
    extra = {} if enough is None else {"enough": enough}
    return list(fit(batches[start:stop], algorithm, optimizer, LoopConfig(**settings), start=start, **extra))


def test_every_batch_is_prepared_once_and_spent_epochs_times_minibatches():
    algorithm = Recorder()
    reports = run(algorithm, [batch_of(0), batch_of(10)], epochs=2, minibatches=3)
    assert algorithm.prepared == [list(range(6)), list(range(10, 16))]
    assert len(algorithm.seen) == 2 * 2 * 3
    for epoch in range(4):
        rows = [row for part in algorithm.seen[3 * epoch : 3 * epoch + 3] for row in part]
        assert sorted(rows) == (list(range(6)) if epoch < 2 else list(range(10, 16)))
    assert [report["optimizer_steps"] for report in reports] == [6, 6]


def test_the_order_of_an_update_depends_on_seed_and_number_alone():
    whole, resumed, other = Recorder(), Recorder(), Recorder()
    batches = [batch_of(0), batch_of(10), batch_of(20)]
    run(whole, batches, epochs=2, minibatches=2, seed=5)
    run(resumed, batches, start=1, epochs=2, minibatches=2, seed=5)
    run(other, batches, epochs=2, minibatches=2, seed=6)
    assert resumed.seen == whole.seen[4:]
    assert other.seen != whole.seen
    assert whole.seen[:2] != whole.seen[2:4], "each epoch has its own order"


def test_a_batch_is_left_when_the_algorithm_has_enough_and_the_next_is_begun():
    algorithm = Recorder()
    reports = run(
        algorithm,
        [batch_of(0), batch_of(10)],
        enough=lambda metrics: metrics["clip_fraction"] in (2.0, 5.0),
        epochs=3,
        minibatches=2,
    )
    assert [report["optimizer_steps"] for report in reports] == [2, 3]
    assert len(algorithm.prepared) == 2


def test_an_update_of_rl_ends_beyond_its_limit_and_without_one_never():
    assert moved_past(None) is never
    assert [moved_past(0.05)({"approx_kl": found}) for found in (0.0, 0.05, 0.051)] == [False, False, True]


def test_the_caller_stops_by_leaving():
    algorithm = Recorder()
    optimizer = Optimizer([ParameterGroup(parameters=trainable(algorithm))], OptimConfig(), 100)
    for _ in fit(iter([batch_of(0), batch_of(10)]), algorithm, optimizer, LoopConfig()):
        break
    assert len(algorithm.prepared) == 1


def test_a_report_is_the_mean_over_steps_beside_the_first_step():
    steps = [{"loss": 1.0, "clip_fraction": 0.0}, {"loss": 3.0, "clip_fraction": 0.5}]
    assert mean_metrics(steps) == {"loss": 2.0, "clip_fraction": 0.25, "first_clip_fraction": 0.0}


@pytest.mark.parametrize(("rows", "parts", "sizes"), [(7, 3, [3, 2, 2]), (2, 5, [1, 1]), (4, 0, [4])])
def test_pieces_are_nearly_equal_and_never_empty(rows, parts, sizes):
    pieces = shuffled(rows, parts, seed=1)
    assert [len(piece) for piece in pieces] == sizes
    assert sorted(torch.cat(pieces).tolist()) == list(range(rows))
