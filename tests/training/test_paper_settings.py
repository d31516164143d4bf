"""Built-in networks have the sizes of those in the papers."""

import pytest

pytest.importorskip("torch", reason="training needs torch")

from lmu_deploy.nn.model import SequenceModel
from lmu_deploy.tasks.base import get_task
from lmu_deploy.training.config import preset


def _parameters(name, model):
    task = get_task(name)
    network = SequenceModel(preset(task, model).network_for(task))
    return sum(weight.numel() for weight in network.parameters() if weight.requires_grad)


@pytest.mark.parametrize(("model", "limit"), [("lmu", 102_027), ("parallel", 165_744)])
def test_psmnist_networks_are_no_larger_than_the_papers(model, limit):
    assert 0.99 * limit < _parameters("psmnist-nru", model) <= limit


def test_mackey_glass_networks_have_about_equal_numbers_of_parameters():
    found = [_parameters("mackey-glass", model) for model in ("lmu", "lstm", "hybrid")]
    assert max(found) < 1.02 * min(found)
    assert preset(get_task("mackey-glass"), "hybrid").epochs == 500


def test_regularized_training_learns_permuted_pixels():
    from lmu_deploy.training import train

    task = get_task("psdigits")
    pytest.importorskip("sklearn", reason="scikit-learn bundles the digits")
    pytest.importorskip("lightning", reason="training needs lightning")
    psmnist = preset(get_task("psmnist-nru"), "parallel")
    recipe = {"dropout": psmnist.dropout, "adversary": psmnist.adversary}
    assert min(recipe.values()) > 0
    config = preset(task, "parallel").changed({**recipe, "epochs": 15}, "t")
    result = train(task, "parallel", config=config, progress=False)
    assert result.figures["test_accuracy"] > 0.85  # chance is 0.1
    losses = [row["train_loss"] for row in result.history]
    assert losses[-1] < 0.6 * losses[0]
