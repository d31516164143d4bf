"""Networks of several layers: configuration, streaming, lengths."""

import pytest
import torch

from lmu_deploy.core.errors import InputError
from lmu_deploy.nn import LMUConfig, LSTMConfig, ModelConfig, SequenceModel, read_model_config

HYBRID = ModelConfig(
    n_in=2,
    n_out=3,
    return_sequences=True,
    layers=(
        LMUConfig(units=5, order=4, theta=6, hidden_to_memory=True),
        LSTMConfig(units=4),
        LMUConfig(units=6, order=3, theta=5, hidden="feedforward", channels=2),
        LMUConfig(units=0, order=3, theta=5, hidden="none"),
    ),
)


def make(config=HYBRID):
    torch.manual_seed(1)
    return SequenceModel(config).double()


def test_streaming_in_chunks_equals_one_pass():
    model = make()
    x = torch.randn(3, 11, 2, dtype=torch.float64)
    whole = model(x)
    states, parts = None, []
    for chunk in x.split(4, dim=1):
        y, states = model.run(chunk, states)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-12, atol=1e-12)
    states, parts = None, []
    for x_t in x.unbind(1):
        y, states = model.step(x_t, states)
        parts.append(y)
    torch.testing.assert_close(torch.stack(parts, 1), whole, rtol=1e-12, atol=1e-12)


def test_padding_after_the_end_has_no_effect():
    model = make(HYBRID.model_copy(update={"return_sequences": False}))
    x = torch.randn(3, 9, 2, dtype=torch.float64)
    lengths = torch.tensor([9, 1, 4])
    alone = torch.cat([model(x[i : i + 1, :n]) for i, n in enumerate(lengths)])
    x[1, 1:] = float("nan")
    x[2, 4:] = 1e30
    torch.testing.assert_close(model(x, lengths), alone, rtol=1e-12, atol=1e-12)


def test_wrong_number_of_states_is_rejected():
    with pytest.raises(InputError, match="1 states are given and the network has 4 layers"):
        make().run(torch.zeros(1, 2, 2, dtype=torch.float64), [None])


def test_configuration_from_mapping_equals_python():
    assert read_model_config(HYBRID.model_dump()) == HYBRID


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_in": 0}, "n_in: Input should be greater than or equal to 1"),
        ({"layers": []}, "layers: .*at least 1 item"),
        ({"color": "red"}, "color: Extra inputs are not permitted"),
        ({"layers": [{"kind": "gru"}]}, "layers.0: .*'gru'"),
        ({"layers": [{"kind": "lmu", "units": 0, "order": 2, "theta": 3}]}, "units is 0"),
        ({"layers": [{"kind": "lmu", "units": 3, "order": 2, "theta": 0.5}]}, "theta"),
    ],
)
def test_invalid_configuration_is_rejected(change, message):
    with pytest.raises(InputError, match=message):
        read_model_config({**HYBRID.model_dump(), **change})


def test_earlier_name_of_the_initialization_is_accepted():
    layer = {"kind": "lmu", "units": 3, "order": 4, "theta": 9.0}
    now, earlier = ({**layer, name: "memory"} for name in ("init", "start"))
    configs = [
        read_model_config({"n_in": 1, "n_out": 2, "layers": [each]}) for each in (now, earlier)
    ]
    assert configs[0] == configs[1]
    assert configs[0].layers[0].init == "memory"
