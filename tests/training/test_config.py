import pytest

from lmu_deploy.core.errors import InputError
from lmu_deploy.tasks.base import Task, get_task, task_names
from lmu_deploy.training.config import MODELS, TrainConfig, preset, read_settings, read_toml

LAYERED = [model for model in MODELS if model != "stack"]


@pytest.mark.parametrize("model", LAYERED)
@pytest.mark.parametrize("task", task_names())
def test_every_task_has_every_kind_of_network(task, model):
    network = preset(get_task(task), model).network_for(get_task(task))
    kinds = {layer.kind for layer in network.layers}
    expected = {"lstm": {"lstm"}, "hybrid": {"lmu", "lstm"}}.get(model, {"lmu"})
    assert kinds == expected
    assert network.n_in == get_task(task).n_in
    assert network.return_sequences == get_task(task).every_step


@pytest.mark.parametrize("model", LAYERED)
def test_user_data_gets_a_network_of_its_shape(model):
    task = Task("own.npz", "regression", n_in=3, n_out=2, steps=20, load=lambda: None)
    network = preset(task, model).network_for(task)
    assert (network.n_in, network.n_out) == (3, 2)


def test_parallel_network_has_no_feedback():
    for name in task_names():
        for layer in preset(get_task(name), "parallel").layers:
            assert not (layer.hidden_to_memory or layer.memory_to_memory)
            assert layer.hidden != "recurrent"


def test_settings_file_replaces_named_settings(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("learning_rate = 0.5\nepochs = 3\n")
    base = preset(get_task("digits"), "lmu")
    changed = base.changed(read_toml(file), str(file))
    assert changed.learning_rate == 0.5
    assert changed.epochs == 3
    assert changed.layers == base.layers
    assert changed.batch_size == base.batch_size


def test_layers_can_be_replaced_from_a_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[[layers]]\nkind = "lstm"\nunits = 7\n')
    changed = preset(get_task("digits"), "lmu").changed(read_toml(file), str(file))
    assert [layer.n_out for layer in changed.layers] == [7]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("lerning_rate = 0.1", "lerning_rate is not a setting; known are layers"),
        ("learning_rate = -1", "learning_rate"),
        ('schedule = "steps"', "schedule"),
        ("layers = []", "layers"),
        ('[[layers]]\nkind = "gru"\nunits = 3', "layers.0"),
        ('[[layers]]\nkind = "lstm"\nunits = 3\ntheta = 4', "layers.0.lstm.theta"),
    ],
)
def test_invalid_settings_are_named(tmp_path, text, named):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=named) as caught:
        preset(get_task("digits"), "lmu").changed(read_toml(file), str(file))
    assert str(file) in str(caught.value)


def test_invalid_toml_is_rejected(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("epochs: 3")
    with pytest.raises(InputError, match=r"mine\.toml is not TOML"):
        read_toml(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"mine\.toml is not a text file"):
        read_toml(file)


def test_settings_round_trip_through_json():
    for model in MODELS:
        config = preset(get_task("digits"), model)
        assert TrainConfig.model_validate_json(config.model_dump_json()) == config


def test_settings_without_layers_are_rejected():
    with pytest.raises(InputError, match="layers"):
        read_settings({"epochs": 3}, "here")


def test_settings_are_read_without_torch():
    import subprocess
    import sys

    code = (
        "import sys; from lmu_deploy.training import train; "
        "from lmu_deploy.training.config import preset; "
        "from lmu_deploy.tasks.base import get_task; preset(get_task('digits'), 'lmu'); "
        "sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
