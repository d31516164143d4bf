"""Augmentation: what each setting does to a sequence, and that training repeats."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("lightning", reason="training needs lightning")
pytest.importorskip("sklearn", reason="scikit-learn bundles the digits")

import torch

from lmu_deploy.core.errors import InputError
from lmu_deploy.tasks.log_mel import LogMel
from lmu_deploy.training import train
from lmu_deploy.training.augmentation import Augmentation
from lmu_deploy.training.config import read_settings


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def sequences(samples=200, steps=30, features=12):
    x = np.random.default_rng(0).uniform(0.5, 1.5, (samples, steps, features))
    return torch.from_numpy(x.astype(np.float32))


def test_nothing_changes_without_settings():
    x = sequences()
    assert torch.equal(Augmentation().apply(x), x)


def test_shifted_sequences_begin_later_by_whole_and_partial_steps():
    x = sequences()
    found = Augmentation(shift=5).apply(x).numpy()
    begins = set()
    for old, new in zip(x.numpy(), found, strict=True):
        silent = int((new == 0).all(axis=1).argmin())  # steps before the first
        share = new[silent] / old[0]
        np.testing.assert_allclose(share, share[0], rtol=1e-4)
        mixed = share[0] * old[1:] + (1 - share[0]) * old[:-1]
        np.testing.assert_allclose(new[silent + 1 :], mixed[: 29 - silent], atol=1e-5)
        begins.add(silent)
    assert begins == {0, 1, 2, 3, 4}


def test_stretching_moves_a_peak_in_proportion():
    x = torch.zeros(400, 60, 40)
    x[:, 30, 20] = 1.0
    found = Augmentation(stretch_time=0.2, stretch_features=0.1).apply(x)
    time = (found.sum(2) * torch.arange(60)).sum(1) / found.sum((1, 2))
    feature = (found.sum(1) * torch.arange(40)).sum(1) / found.sum((1, 2))
    for place, home, limit in ((time, 30, 0.2), (feature, 20, 0.1)):
        factor = (place / home).log()
        assert factor.abs().max() < limit + 0.03
        assert abs(factor.std() - limit / 3**0.5) < 0.15 * limit
        assert abs(factor.mean()) < 0.15 * limit


def test_gain_multiplies_energies_of_bands():
    front = LogMel()
    energies = torch.rand(300, 5, 32) + 0.5
    x = (1 + energies / front.floor).log2() / front.doublings
    changed = Augmentation(gain_db=6.0).apply(x, None, front)
    factor = ((changed * front.doublings).exp2() - 1) * front.floor / energies
    torch.testing.assert_close(factor, factor[:, :1, :1].expand(factor.shape), rtol=2e-3, atol=0)
    decibels = 10 * factor[:, 0, 0].log10()
    assert abs(decibels.std() - 6.0) < 0.8
    assert not Augmentation(gain_db=6.0).apply(torch.zeros(4, 5, 32), None, front).any()


@pytest.mark.parametrize("front", [LogMel(), None])
def test_noise_has_its_share_and_level(front):
    x = torch.full((400, 50, 32), 2.0)
    changed = Augmentation(noise=0.25, noise_db=10.0).apply(x, None, front)
    noisy = (changed - x).abs().amax((1, 2)) > 1e-4
    assert abs(noisy.float().mean() - 0.25) < 0.09
    if front is None:
        below = -20 * ((changed - x)[noisy].square().mean((1, 2)).sqrt() / 2).log10()
        assert 9 < below.min() < 15
        assert 45 < below.max() < 51
    else:
        assert (changed >= x - 1e-5).all()  # energy is added


def test_masks_replace_runs_by_the_mean():
    x = sequences()
    changed = Augmentation(mask_steps=6, mask_features=3).apply(x)
    hidden = (changed != x).numpy()
    mean = x.mean((1, 2))[:, None, None].expand(x.shape).numpy()
    np.testing.assert_allclose(changed.numpy()[hidden], mean[hidden], rtol=1e-5)
    steps, features = hidden.all(axis=2).sum(axis=1), hidden.all(axis=1).sum(axis=1)
    assert (steps.min(), steps.max()) == (0, 6)
    assert (features.min(), features.max()) == (0, 3)
    for rows in (hidden.all(axis=2), hidden.all(axis=1)):
        assert (np.abs(np.diff(rows.astype(int), axis=1)).sum(axis=1) <= 2).all()  # one run


def test_steps_of_padding_are_not_masked():
    x, lengths = sequences(), torch.full((200,), 10)
    changed = Augmentation(mask_steps=8).apply(x, lengths)
    assert torch.equal(changed[:, 10:], x[:, 10:])
    assert not torch.equal(changed, x)
    with pytest.raises(InputError, match="sequences of one length"):
        Augmentation(shift=1).apply(x, lengths)


def test_training_with_augmentation_repeats_and_differs_from_none():
    def weights(augment):
        config = {"epochs": 2, "samples": 200, "augment": augment}
        network = train("digits", "parallel", config=config, progress=False).network
        return network.nodes[-1].operator.kernel

    some = {"mask_features": 2, "noise": 0.5}
    first = weights(some)
    np.testing.assert_array_equal(first, weights(some))
    assert not np.array_equal(first, weights(None))


def test_unknown_settings_are_refused():
    with pytest.raises(InputError, match=r"augment\.speed is not a setting"):
        read_settings({"stack": {}, "augment": {"speed": 0.1}}, "here")
