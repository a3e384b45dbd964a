"""The loop's plan: what every batch holds, how the learning rate runs, and which batches a process gets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from train.stages.loop import BatchPlan, Loop, Objective, batches, learning_rate
from train.stages.training_state import StateError, load_state, save_state

FRAMES = 3200

# Batches ----------------------------------------------------------------------------------------------------------


LENGTHS = [int(n) for n in np.random.default_rng(0).integers(15, 700, 1500)]


def epochs(seed: int, count: int) -> list[list[list[int]]]:
    endless, found = batches(LENGTHS, FRAMES, seed), []
    for _ in range(count):
        epoch: list[list[int]] = []
        while sum(map(len, epoch)) < len(LENGTHS):
            epoch.append(next(endless))
        found.append(epoch)
    return found


def test_every_epoch_has_every_utterance_once_within_the_budget() -> None:
    for epoch in epochs(1, 3):
        assert sorted(index for batch in epoch for index in batch) == list(range(len(LENGTHS)))
        sizes = [max(LENGTHS[index] for index in batch) * len(batch) for batch in epoch]
        assert max(sizes) <= FRAMES
        assert np.mean(sizes) > 0.8 * FRAMES
        assert sum(LENGTHS) > 0.9 * sum(sizes)  # little padding


def test_an_utterance_beyond_the_budget_comes_alone() -> None:
    endless = batches([100, 5000, 100], FRAMES, 1)
    assert sorted(sorted(next(endless)) for _ in range(2)) == [[0, 2], [1]]


def test_order_is_decided_by_the_seed_and_changes_every_epoch() -> None:
    first, again, other = epochs(1, 2), epochs(1, 2), epochs(2, 2)
    assert first == again
    assert first != other
    assert first[0] != first[1]


# Learning rate ----------------------------------------------------------------------------------------------------


def test_learning_rate_warms_up_stays_and_falls() -> None:
    rates = [learning_rate(step, Loop(6000)) for step in range(6000)]
    assert rates[0] == pytest.approx(1 / 200)
    assert rates[99] == pytest.approx(0.5)
    assert set(rates[200:3900]) == {1.0}
    assert rates[4950] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-3
    assert rates[3900:] == sorted(rates[3900:], reverse=True)


def test_learning_rate_before_the_fall_does_not_depend_on_the_number_of_steps() -> None:
    for step in range(0, 3900, 100):
        assert learning_rate(step, Loop(6000)) == learning_rate(step, Loop(12_000))


# Which batches a process gets -------------------------------------------------------------------------------------


class Numbers(Objective):
    """Samples that are their own index."""

    model = nn.Linear(1, 1)

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters()), "lr": 0.1}]

    def lengths(self) -> list[int]:
        return LENGTHS

    def batch(self, indices: list[int], rng: np.random.Generator) -> dict[str, Any]:
        return {"indices": indices, "drawn": rng.random()}

    def evaluate(self) -> dict[str, float]:
        return {}

    def export(self, folder: Path) -> None:
        pass


def plan(loop: Loop, *more: int) -> list[dict[str, Any]]:
    return list(BatchPlan(Numbers(), loop, *more))


def test_processes_share_what_one_process_would_accumulate() -> None:
    alone = plan(Loop(10, accumulate=2), 0)
    first, second = (plan(Loop(10), 0, process, 2) for process in (0, 1))
    assert [batch for pair in zip(first, second, strict=True) for batch in pair] == alone


def test_a_run_that_goes_on_gets_the_batches_it_has_not_seen() -> None:
    whole = plan(Loop(30), 0)
    assert len(whole) == 30
    assert plan(Loop(30), 12) == whole[12:]
    assert plan(Loop(50), 12)[:18] == whole[12:]  # also when it is made longer


# State ------------------------------------------------------------------------------------------------------------


def small_model(width: int = 4) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width), nn.Linear(width, 2))
    model[1].requires_grad_(False)
    groups = [{"params": list(model[0].parameters()), "lr": 0.1}, {"params": list(model[2].parameters()), "lr": 0.01}]
    return model, torch.optim.AdamW(groups)


def learn(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.arange(15.0).reshape(5, 3)).pow(2).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_state_restores_parameters_and_moments_and_leaves_out_the_frozen(tmp_path: Path) -> None:
    path, (model, optimizer) = tmp_path / "state.safetensors", small_model()
    for _ in range(3):
        learn(model, optimizer)
    save_state(path, model, optimizer, 3)
    other, its_optimizer = small_model()
    assert load_state(path, other, its_optimizer) == 3
    assert [group["lr"] for group in its_optimizer.param_groups] == [0.1, 0.01]
    for _ in range(3):
        learn(model, optimizer)
        learn(other, its_optimizer)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    model[1].weight.data.fill_(7.0)
    load_state(path, model, optimizer)
    assert model[1].weight.eq(7.0).all()  # frozen: the base model's, not the run's


def test_the_state_of_another_model_is_refused_in_words(tmp_path: Path) -> None:
    path, (model, optimizer) = tmp_path / "state.safetensors", small_model()
    learn(model, optimizer)
    save_state(path, model, optimizer, 1)
    with pytest.raises(StateError, match=r"another model.*Give another --out"):
        load_state(path, *small_model(5))
