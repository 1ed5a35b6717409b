import pytest
import torch
from torch import nn

from keel.batch.collate import EncodedResponse, token_batch
from keel.core.errors import TrainingError
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.settings import OptimConfig
from keel.train.step import LossTerms, micro_batches, optimizer_step

LENGTHS = (3, 1, 4, 1, 5)


def batch_of(lengths=LENGTHS):
    """One prompt of one token and one response a row; token ids count through."""
    responses = [[EncodedResponse(tokens=list(range(10 * n, 10 * n + size)))] for n, size in enumerate(lengths)]
    return token_batch([[7]] * len(lengths), responses)


class Slope(nn.Module):
    """loss = w · token, so that the gradient is the mean token id."""

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([value]))

    def loss(self, rows) -> LossTerms:
        tokens = rows.response_tokens.float()
        return LossTerms(
            total=(self.w * tokens).sum(),
            count=torch.tensor(rows.num_responses),
            figure_count=torch.tensor(len(tokens)),
            sums={"token": tokens.sum()},
            maxima={"largest": tokens.max()},
        )


def optimizer_of(module: nn.Module, **settings) -> Optimizer:
    config = OptimConfig(**{"learning_rate": 0.1, "warmup_share": 0.0, "max_grad_norm": 1e9, **settings})
    return Optimizer([ParameterGroup(parameters=trainable(module))], config, 10)


def test_prompts_go_together_while_their_tokens_fit():
    sizes = [micro.tokens_per_prompt().tolist() for micro in micro_batches(batch_of(), 7)]
    assert sizes == [[4, 2], [5, 2], [6]]


def test_a_prompt_longer_than_the_limit_goes_alone_and_none_is_lost():
    parts = list(micro_batches(batch_of(), 1))
    assert [len(part) for part in parts] == [1] * 5
    assert torch.cat([part.response_tokens for part in parts]).tolist() == batch_of().response_tokens.tolist()


def test_an_empty_batch_has_no_parts():
    assert list(micro_batches(batch_of().rows(slice(0, 0)), 8)) == []


@pytest.mark.parametrize("micro_batch_tokens", [1, 6, 9, 10_000])
def test_the_loss_is_divided_once_by_the_terms_of_the_whole_batch(micro_batch_tokens):
    module = Slope()
    metrics = optimizer_step(batch_of(), module.loss, optimizer_of(module), micro_batch_tokens)
    tokens = batch_of().response_tokens
    assert metrics["loss"] == pytest.approx(float(tokens.sum()) / 5)  # five responses are five terms
    assert metrics["grad_norm"] == pytest.approx(float(tokens.sum()) / 5)
    assert metrics["token"] == pytest.approx(float(tokens.float().mean()))  # the figure counts tokens
    assert metrics["largest"] == 44
    assert metrics["tokens"] == sum(LENGTHS) + 5
    assert metrics["learning_rate"] == pytest.approx(0.1)


def test_gradients_are_scaled_down_to_the_wanted_norm():
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))

        def loss(self, rows) -> LossTerms:
            return LossTerms(total=(self.w * torch.tensor([30.0, 40.0])).sum(), count=torch.tensor(1))

    module, seen = Wide(), []
    optimizer = optimizer_of(module, max_grad_norm=1.0)
    optimizer.parts[0].register_step_pre_hook(lambda *_: seen.append(module.w.grad.clone()))
    metrics = optimizer_step(batch_of(), module.loss, optimizer, 10_000)
    assert metrics["grad_norm"] == pytest.approx(50.0)
    torch.testing.assert_close(seen[0], torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_leaves_weights_and_state_as_they_were(poison):
    module = Slope()
    optimizer = optimizer_of(module)
    optimizer_step(batch_of(), module.loss, optimizer, 10_000)
    weight, state = module.w.detach().clone(), {k: v.clone() for k, v in optimizer.tensors().items()}

    def poisoned(rows) -> LossTerms:
        terms = module.loss(rows)
        return LossTerms(total=terms.total * poison, count=terms.count)

    with pytest.raises(TrainingError) as stop:
        optimizer_step(batch_of(), poisoned, optimizer, 6)
    assert "optimiser step 2" in str(stop.value)
    assert "learning_rate" in str(stop.value)
    assert torch.equal(module.w, weight)
    assert module.w.grad is None
    assert all(torch.equal(v, state[k]) for k, v in optimizer.tensors().items())


def test_a_gradient_that_is_no_number_under_a_finite_loss_stops_as_well():
    module = Slope(0.0)

    def root(rows) -> LossTerms:
        return LossTerms(total=module.w.abs().sqrt().sum(), count=torch.tensor(1))  # slope inf · sign(0) = nan at 0

    with pytest.raises(TrainingError, match="gradient norm nan"):
        optimizer_step(batch_of(), root, optimizer_of(module), 10_000)
    assert module.w.item() == 0.0


def test_rows_whose_loss_needs_no_gradient_count_and_change_nothing():
    module = Slope()

    def first_row_only(rows) -> LossTerms:
        terms = module.loss(rows)
        return terms if 0 in rows.response_tokens else LossTerms(total=terms.total.detach() * 0, count=terms.count)

    metrics = optimizer_step(batch_of(), first_row_only, optimizer_of(module), 1)
    assert metrics["loss"] == pytest.approx((0 + 1 + 2) / 5)
    assert metrics["grad_norm"] == pytest.approx((0 + 1 + 2) / 5)
