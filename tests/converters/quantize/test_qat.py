"""Quantization-aware training improves coarse networks and deploys what it trained."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from layered import layered

from converters.options import QuantizeOptions
from converters.quantize import calibrate
from converters.quantize.ptq import lower
from converters.quantize.qat import qat_config, rounding_model, train_quantized
from converters.quantize.settings import settings_for
from lmu_deploy.api.quantize import quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.graph import edges
from lmu_deploy.core.integer.network import INTEGER_CLASSES, IntegerNetwork
from lmu_deploy.core.network import (
    FLOAT_CLASSES,
)
from lmu_deploy.nn.model import SequenceModel
from lmu_deploy.tasks.base import get_task
from lmu_deploy.training.module import predict
from targets.integer import IntegerTarget

DIGITS = Path(__file__).parents[3] / "examples" / "models" / "digits.safetensors"
TASK = get_task("digits")


@pytest.fixture(scope="module")
def network():
    return load(DIGITS, FLOAT_CLASSES)


@pytest.fixture(scope="module")
def signals(network):
    return calibrate(network, TASK.load().train.inputs[:512])


@pytest.fixture(scope="module")
def two_bits(network, signals):
    """Settings with which rounding without training fails, and the result of a training."""
    settings = settings_for(
        network, "loihi2", QuantizeOptions(slices=1, kernel_bits=2, scales="free")
    )
    config = qat_config(network, {"epochs": 12, "learning_rate": 1e-3})
    result = train_quantized(network, TASK, TASK.load(), signals, settings, config, show=False)
    return settings, config, result


def accuracy(integer):
    test = TASK.load().test
    return TASK.score(IntegerTarget().run(integer, test.inputs).outputs, test.targets)


def same(a, b):
    """Whether two integer networks have the same connections."""
    return all(
        np.array_equal(getattr(one.connection, name), getattr(other.connection, name))
        for one, other in zip(edges(a), edges(b), strict=True)
        for name in ("slices", "multiplier", "shift")
    )


def test_training_improves_a_network_of_two_bits(network, signals, two_bits):
    settings, _, result = two_bits
    before = accuracy(lower(network, signals, settings).result)
    after = accuracy(result.integer)
    assert before < 0.85
    assert after > 0.93
    found = result.figures
    assert found["validation_accuracy_before"] < found["validation_accuracy"]
    assert 1 <= found["best_epoch"] <= found["epochs"] == len(result.history) == 12


def test_trained_weights_are_deployed_weights(network, signals, two_bits):
    settings, _, result = two_bits
    lowering = lower(network, signals, settings)
    model = SequenceModel(qat_config(network).network_for(TASK))
    rounding_model(result.network, lowering)(model)
    test = TASK.load().test
    rounded = predict(model.eval(), test, 100)
    run = IntegerTarget().run(result.integer, test.inputs)
    integer = run.outputs
    # What is left between them is the rounding of messages and the lines of the activation.
    assert np.mean(rounded.argmax(1) == integer.argmax(1)) > 0.98
    assert np.abs(rounded - integer).mean() < 0.02 * np.abs(rounded).mean()
    assert sum(run.saturations.values()) == 0


def test_memory_and_encoders_stay_unchanged(network, two_bits):
    after = two_bits[2].network
    for old, new in zip(layered(network).layers, layered(after).layers, strict=True):
        assert new.memory is old.memory
        for name in ("input_encoders", "hidden_encoders", "memory_encoders", "memory_bias"):
            assert np.array_equal(getattr(new, name), getattr(old, name))
        assert not np.array_equal(new.hidden.memory_kernel, old.hidden.memory_kernel)
    assert two_bits[2].integer.source is after
    recorded = json.loads(after.provenance["trained on while rounded"])
    assert recorded["epochs"] == 12
    assert recorded["seed"] == 0
    assert set(network.provenance) < set(after.provenance)


def test_training_is_reproducible(network, signals, two_bits, tmp_path):
    settings, _, _ = two_bits
    config = qat_config(network, {"epochs": 2, "samples": 300})
    data = TASK.load().shortened(None, 300)

    def trained(**options):
        options = {"show": False, **options}
        return train_quantized(network, TASK, data, signals, settings, config, **options).integer

    first = trained(seed=3)
    assert same(first, trained(seed=3, checkpoint=tmp_path / "state"))
    assert same(first, trained(seed=3, checkpoint=tmp_path / "state"))  # goes on from the end
    assert not same(first, trained(seed=4))


def test_the_initial_network_is_kept_if_training_does_not_improve_it(network, signals):
    settings = settings_for(network, "loihi2", QuantizeOptions(slices=2, kernel_slices=2))
    config = qat_config(network, {"epochs": 1, "learning_rate": 5.0, "schedule": "constant"})
    graph = Network.from_layers(network)
    result = train_quantized(graph, TASK, TASK.load(), signals, settings, config, show=False)
    assert result.network is graph
    assert same(result.integer, lower(network, signals, settings).result)
    assert result.figures["best_epoch"] == 0
    assert result.figures["validation_accuracy"] == result.figures["validation_accuracy_before"]


def test_the_command_writes_a_file_of_one_slice(tmp_path, caplog):
    caplog.set_level(logging.INFO, "lmu_deploy")
    settings = tmp_path / "qat.toml"
    settings.write_text("samples = 200\nlearning_rate = 0.001\n")
    out = tmp_path / "qat.safetensors"
    made = quantize(DIGITS, method="qat", config=settings, epochs=1, kernel_bits=3, out=out)
    stored = load(out, INTEGER_CLASSES)
    assert isinstance(stored, IntegerNetwork)
    assert same(stored, made)
    assert len(layered(stored).layers[0].memory.recurrent.slices) == 1
    assert layered(stored).layers[0].hidden.memory.weight_bits == 3
    assert any("validation_accuracy_before: " in message for message in caplog.messages)


def test_wrong_use_is_refused(network, signals, tmp_path):
    for values, sentence in (
        ({"layers": []}, "layers is the network's own"),
        ({"lr": 1}, "lr is not a setting"),
        ({"epochs": 0}, "epochs"),
    ):
        with pytest.raises(InputError, match=sentence):
            qat_config(network, values)
    settings = settings_for(network, "loihi2", QuantizeOptions(realization="auto"))
    with pytest.raises(InputError, match="auto does not name one"):
        train_quantized(network, TASK, TASK.load(), signals, settings, qat_config(network))
    with pytest.raises(InputError, match="trains nothing"):
        quantize(DIGITS, epochs=2)
    with pytest.raises(InputError, match="method"):
        quantize(DIGITS, method="fine-tune")
    with pytest.raises(InputError, match="seed"):
        quantize(DIGITS, method="qat", seed=-1)
