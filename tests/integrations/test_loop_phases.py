"""Phases of any loop, however it calls its model: ``loop.watch`` around plain torch."""

from dataclasses import dataclass

import pytest
import torch

from zero_sizer.integrations.loop import watch

pytestmark = pytest.mark.slow

STEP = [("forward", 0), ("backward", 0), ("step", 0)]


@dataclass
class Output:
    """What a model returns whose loss is computed outside, as trl's do."""

    log_probs: torch.Tensor
    count: int = 1


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(32, 8)

    def forward(self, input_ids):
        return Output(self.embedding(input_ids).sum(-1))


class Loop:
    """A model, its optimizer, and the ways in which loops use them."""

    def __init__(self):
        self.model = Net()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.ids = torch.arange(12).reshape(3, 4)

    def loss(self):
        return self.model(self.ids).log_probs.mean()

    def step(self):
        self.optimizer.step()
        self.optimizer.zero_grad()

    def hooks(self):
        model, optimizer = self.model, self.optimizer
        of_model = (model._forward_hooks, model._forward_pre_hooks)
        of_optimizer = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
        return [len(hooks) for hooks in (*of_model, *of_optimizer)]


@pytest.fixture
def loop():
    return Loop()


def recorded(monitor):
    (rank,) = monitor.recording().ranks
    return rank


def names(rank, step):
    return [(p.name, p.micro_step) for p in rank.phases if p.step == step and p.name != "init"]


def test_a_loss_that_is_computed_outside_has_its_backward(loop):
    with watch(loop.model, loop.optimizer) as monitor:
        for _ in range(2):
            loop.loss().backward()
            loop.step()
    rank = recorded(monitor)
    assert names(rank, 0) == names(rank, 1) == STEP
    assert [step.tokens for step in rank.steps] == [12, 12]


def test_several_forwards_before_a_backward_are_one_phase(loop):
    with watch(loop.model, loop.optimizer) as monitor:
        (loop.loss() - loop.loss()).backward()
        loop.step()
    rank = recorded(monitor)
    assert names(rank, 0) == STEP
    assert [step.tokens for step in rank.steps] == [24]


def test_what_computes_no_gradient_is_no_forward_of_training(loop):
    with watch(loop.model, loop.optimizer) as monitor:
        for _ in range(2):
            with torch.no_grad():
                loop.loss()
            loop.model.eval()
            loop.loss()
            loop.model.train()
            loop.loss().backward()
            loop.step()
    assert names(recorded(monitor), 1) == STEP


def test_of_many_micro_steps_the_later_ones_are_one(loop):
    with watch(loop.model, loop.optimizer) as monitor:
        for _ in range(6):
            loop.loss().backward()
        loop.step()
    rank = recorded(monitor)
    kept = [("forward", 0), ("backward", 0), ("forward", 1), ("backward", 1)]
    assert names(rank, 0) == [*kept, ("forward", 5), ("backward", 5), ("step", 5)]
    assert [step.tokens for step in rank.steps] == [72]


def test_a_long_run_has_a_small_recording(loop):
    with watch(loop.model, loop.optimizer) as monitor:
        for _ in range(200):
            loop.loss().backward()
            loop.step()
    rank = recorded(monitor)
    steps = {phase.step for phase in rank.phases}
    assert {0, 1, 199} <= steps
    assert len(steps) <= 5
    assert [step.step for step in rank.steps] == list(range(136, 200))


def test_nothing_is_left_on_the_model(loop):
    before = loop.hooks()
    with watch(loop.model, loop.optimizer):
        loop.loss().backward()
        loop.step()
        assert loop.hooks() != before
    assert loop.hooks() == before


def test_a_loop_without_deepspeed_is_recorded_all_the_same(loop, monkeypatch):
    from importlib import metadata

    version = metadata.version

    def missing(name):
        if name == "deepspeed":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", missing)
    with watch(loop.model, loop.optimizer) as monitor:
        loop.loss().backward()
        loop.step()
    assert "deepspeed" not in monitor.recording().versions
    assert names(recorded(monitor), 0) == STEP


def test_gradients_are_what_they_are_without(loop):
    loop.loss().backward()
    alone = loop.model.embedding.weight.grad.clone()
    loop.optimizer.zero_grad()
    with watch(loop.model, loop.optimizer):
        loop.loss().backward()
    assert torch.equal(loop.model.embedding.weight.grad, alone)


def test_an_error_of_the_loop_passes_through(loop):
    seen = []

    def run():
        with watch(loop.model, loop.optimizer) as monitor:
            seen.append(monitor)
            loop.loss().backward()
            raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        run()
    (note,) = recorded(seen[0]).notes
    assert note.startswith("ended by KeyError in backward of step 0, micro step 0")
