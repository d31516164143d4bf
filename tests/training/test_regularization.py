"""Regularization: dropout and adversarial input perturbation."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("lightning", reason="training needs lightning")
pytest.importorskip("sklearn", reason="scikit-learn bundles the digits")

import torch

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.nn.model import SequenceModel
from lmu_deploy.tasks.base import get_task
from lmu_deploy.training import train
from lmu_deploy.training.config import preset
from lmu_deploy.training.module import TrainingModule, add_dropout, perturb_inputs, task_loss

TASK = get_task("digits")


def _model(seed=0):
    torch.manual_seed(seed)
    return SequenceModel(preset(TASK, "parallel").network_for(TASK))


def _batch(n=200):
    inputs, targets = TASK.load().train.batch(slice(n))
    return torch.from_numpy(inputs), torch.from_numpy(targets)


def test_dropout_rate_and_mean():
    model, seen = _model(), []
    add_dropout(model, 0.25)
    model.readout.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    inputs, _ = _batch()
    for training in (False, True):
        model.train(training)
        model(inputs)
    kept = seen[1] != 0
    assert abs(1.0 - kept.float().mean().item() - 0.25) < 0.02  # 20,000 draws: 6 deviations
    torch.testing.assert_close(seen[1][kept], seen[0][kept] / 0.75)


@pytest.mark.parametrize("distance", [0.01, 1.0])
def test_perturbation_has_the_given_norm_and_raises_the_loss(distance):
    model = _model()
    inputs, targets = _batch()
    inputs.requires_grad_()
    loss = task_loss(TASK, model(inputs), targets)
    perturbed = perturb_inputs(loss, inputs, distance)
    lengths = (perturbed - inputs).detach().flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, distance))
    assert not perturbed.requires_grad
    other = torch.randn_like(inputs).flatten(1)
    other = (distance * other / other.norm(dim=1, keepdim=True)).view_as(inputs)
    rise = task_loss(TASK, model(perturbed), targets) - loss
    assert rise > 3 * (task_loss(TASK, model(inputs + other), targets) - loss).abs()
    if distance < 0.1:  # as far as the loss is straight, it rises by distance times its slope
        (slope,) = torch.autograd.grad(loss, inputs)
        expected = distance * slope.flatten(1).norm(dim=1).sum()
        torch.testing.assert_close(rise, expected, rtol=0.05, atol=0.0)


def test_step_uses_original_and_perturbed_batch():
    config = preset(TASK, "parallel").changed({"adversary": 0.5}, "t")
    model = _model()
    module = TrainingModule(model, TASK, TASK.load(), config, seed=0)
    inputs, targets = _batch()
    loss = module.training_step((inputs.clone(), targets, None), 0)
    at = inputs.clone().requires_grad_()
    clean = task_loss(TASK, model(at), targets)
    perturbed = perturb_inputs(clean, at, 0.5)
    expected = (clean + task_loss(TASK, model(perturbed), targets)) / 2
    torch.testing.assert_close(loss, expected)
    weights = list(model.parameters())
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    for one, other in zip(found, torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(one, other)


def test_adversarial_training_improves_robustness():
    settings = {"epochs": 15, "patience": None}
    plain = preset(TASK, "parallel").changed(settings, "t")
    hard = plain.changed({"adversary": 0.5, "dropout": 0.2}, "t")
    assert _under_attack(hard) > _under_attack(plain) + 0.1


def _under_attack(config):
    """Share of test digits still named when each is perturbed by 0.7 against the network."""
    from lmu_deploy.nn.convert import to_torch

    result = train("digits", "parallel", config=config, progress=False)
    assert result.figures["test_accuracy"] > 0.9
    model = to_torch(result.network).eval()
    test = TASK.load().test
    inputs = torch.from_numpy(test.inputs.copy()).requires_grad_()
    loss = task_loss(TASK, model(inputs), torch.from_numpy(test.targets))
    perturbed = perturb_inputs(loss, inputs, 0.7)
    return TASK.score(model(perturbed).detach().numpy(), test.targets)


def test_resumed_training_with_dropout_equals_uninterrupted(tmp_path):
    config = preset(TASK, "lmu").changed({"dropout": 0.3, "schedule": "constant"}, "t")

    def weights(epochs, checkpoint=None):
        short = config.changed({"epochs": epochs}, "t")
        result = train("digits", config=short, progress=False, checkpoint=checkpoint)
        return as_layers(result.network, "test").layers[0].hidden.memory_kernel, result.history

    whole, history = weights(4)
    weights(2, tmp_path / "at")
    resumed, resumed_history = weights(4, tmp_path / "at")
    np.testing.assert_array_equal(whole, resumed)
    assert history == resumed_history
    plain = config.changed({"dropout": 0.0, "epochs": 4}, "t")
    assert train("digits", config=plain, progress=False).history != history


@pytest.mark.parametrize("wrong", [{"dropout": 1.0}, {"dropout": -0.1}, {"adversary": -1.0}])
def test_invalid_settings_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        preset(TASK, "lmu").changed(wrong, "t")
