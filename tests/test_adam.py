import numpy as np
import pytest
import torch

from sklearn_clipsid._adam import Adam, AdamGroups, minimize_minibatch, run_epoch


class Recorder:
    """A loss whose gradient is one, and which remembers the batches."""

    def __init__(self):
        self.batches = []

    def __call__(self, params, batch):
        self.batches.append(batch.copy())
        return float(len(self.batches)), np.ones_like(params)


def curve(values):
    """Return a validation loss that goes through the values."""
    values = iter(values)
    return lambda params: next(values)


def optimiser(params=0.0):
    return Adam(np.array([params]), learning_rate=0.1)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 1.0])
def test_fifty_steps_equal_those_of_torch(weight_decay, rng):
    start, target = rng.standard_normal((2, 30))
    ours = Adam(start.copy(), learning_rate=0.05, weight_decay=weight_decay)
    theirs = torch.tensor(start, requires_grad=True)
    torch_adam = torch.optim.Adam([theirs], lr=0.05, weight_decay=weight_decay)
    for _ in range(50):
        ours.step(4 * (ours.params - target) ** 3)
        torch_adam.zero_grad()
        ((theirs - torch.tensor(target)) ** 4).sum().backward()
        torch_adam.step()
    np.testing.assert_allclose(ours.params, theirs.detach().numpy(), atol=1e-10)


def test_decoupled_decay_in_groups_equals_adamw_of_torch(rng):
    start, target = rng.standard_normal((2, 30))
    settings = {"learning_rate": 0.05, "weight_decay": 0.3, "decoupled": True}
    ours = AdamGroups(
        start.copy(),
        [(slice(10), {"learning_rate": 0.5}), (slice(10, None), settings)],
    )
    theirs = [torch.tensor(part, requires_grad=True) for part in np.split(start, [10])]
    adamw = torch.optim.AdamW(
        [
            {"params": theirs[0], "lr": 0.5, "weight_decay": 0},
            {"params": theirs[1], "lr": 0.05, "weight_decay": 0.3},
        ]
    )
    for _ in range(50):
        ours.step(4 * (ours.params - target) ** 3)
        adamw.zero_grad()
        ((torch.cat(theirs) - torch.tensor(target)) ** 4).sum().backward()
        adamw.step()
    expected = torch.cat(theirs).detach().numpy()
    np.testing.assert_allclose(ours.params, expected, atol=1e-10)


def test_other_betas_and_eps_equal_those_of_torch(rng):
    start, grad = rng.standard_normal((2, 5))
    ours = Adam(start.copy(), learning_rate=0.1, betas=(0.5, 0.6), eps=1e-2)
    theirs = torch.tensor(start)
    theirs.grad = torch.tensor(grad)
    torch_adam = torch.optim.Adam([theirs], lr=0.1, betas=(0.5, 0.6), eps=1e-2)
    for _ in range(5):
        ours.step(grad.copy())
        torch_adam.step()
    np.testing.assert_allclose(ours.params, theirs.numpy(), atol=1e-12)


def test_the_parameters_are_updated_in_place_and_keep_their_dtype():
    params = np.ones(3, dtype=np.float32)
    adam = Adam(params, learning_rate=0.1, weight_decay=0.1)
    adam.step(np.ones(3, dtype=np.float32))
    assert adam.params is params
    assert params.dtype == np.float32
    np.testing.assert_allclose(params, 0.9, rtol=1e-6)


def test_an_epoch_visits_each_row_once_and_the_last_batch_takes_the_rest():
    record = Recorder()
    rows = np.array([3, 5, 8, 9, 11, 20, 21])
    run_epoch(optimiser(), record, rows, 3, np.random.RandomState(0))
    assert [len(batch) for batch in record.batches] == [3, 3, 1]
    visited = np.concatenate(record.batches)
    assert sorted(visited) == rows.tolist()
    assert visited.tolist() != rows.tolist()


def test_the_loss_of_an_epoch_weighs_batches_by_their_size():
    loss = run_epoch(optimiser(), Recorder(), np.arange(5), 4, np.random.RandomState(0))
    assert loss == pytest.approx((4 * 1 + 1 * 2) / 5)


def minimize(validation_loss=None, n_rows=4, **kwargs):
    settings = {"batch_size": 4, "max_iter": 20, "n_iter_no_change": 3} | kwargs
    record = Recorder()
    params, losses, validation = minimize_minibatch(
        optimiser(),
        record,
        np.arange(n_rows),
        random_state=np.random.RandomState(0),
        validation_loss=validation_loss,
        **settings,
    )
    return params, losses, validation, record


def test_the_parameters_of_the_lowest_validation_loss_are_returned():
    params, losses, validation, _ = minimize(curve([5.0, 4.0, 4.5, 3.0, 6, 6, 6]))
    np.testing.assert_allclose(params, [-0.4], rtol=1e-6)  # four steps of 0.1
    assert len(losses) == len(validation) == 7
    assert validation.argmin() == 3


def test_an_equal_validation_loss_is_no_improvement():
    params, losses, _, _ = minimize(curve([1.0] * 20))
    assert len(losses) == 1 + 3
    np.testing.assert_allclose(params, [-0.1], rtol=1e-6)


def test_without_validation_all_epochs_are_run_and_the_last_parameters_returned():
    params, losses, validation, _ = minimize()
    assert len(losses) == 20
    assert validation is None
    np.testing.assert_allclose(params, [-2.0], rtol=1e-6)


@pytest.mark.parametrize(("n_rows", "steps"), [(4, 8), (12, 9), (32, 8), (36, 9)])
def test_an_epoch_takes_at_least_the_minimum_of_steps_in_whole_passes(n_rows, steps):
    *_, record = minimize(n_rows=n_rows, max_iter=1, min_steps=8)
    assert len(record.batches) == steps
