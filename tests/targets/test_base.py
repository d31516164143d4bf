"""targets/base.py: finding a target by name, and refusing what it cannot run."""

from importlib.metadata import EntryPoint, entry_points, version

import numpy as np
import pytest

from lmu_deploy.core import plugins
from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.graph.network import Network, Node
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from targets import base
from targets.base import (
    Target,
    check_supported,
    forms_of,
    get_target,
    taken_by,
    target_names,
)
from targets.reference import ReferenceTarget

LAYER = LMULayer(np.ones((1, 1)), None, None, None, Memory.legendre(2, 4.0), None)
NETWORK = Network.from_layers(LMUNetwork((LAYER,), Readout(np.ones((2, 1)), None)))


def test_our_targets_are_registered_and_keep_the_interface():
    assert {"reference", "onnxruntime", "integer", "lava", "brian2"} <= set(target_names())
    assert target_names() == sorted(target_names())
    for name in target_names():
        target = get_target(name)
        assert isinstance(target, Target)
        assert target.name == name
        assert all(isinstance(cls, type) for cls in target.accepts)


def test_an_unknown_name_lists_the_known_ones():
    message = r"unknown target 'loihi3'; choose one of brian2, brian2-cpp, c, cortex-m4, integer"
    with pytest.raises(InputError, match=message):
        get_target("loihi3")


def register(monkeypatch, value):
    entries = [*entry_points(group=base.GROUP), EntryPoint("ours", value, base.GROUP)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: entries)


def test_a_target_of_another_package_is_found_by_its_entry_point(monkeypatch):
    register(monkeypatch, "targets.reference:ReferenceTarget")
    assert "ours" in target_names()
    assert isinstance(get_target("ours"), ReferenceTarget)


@pytest.mark.parametrize("value", ["no_such_package:Target"])
def test_a_target_that_cannot_be_imported_is_named(monkeypatch, value):
    register(monkeypatch, value)
    with pytest.raises(MissingDependencyError, match=r"target ours cannot be imported"):
        get_target("ours")


def test_a_plugin_names_its_package(monkeypatch):
    register(monkeypatch, "targets.reference:ReferenceTarget")
    brings = plugins.plugin_version(base.GROUP, "reference")
    assert brings == f"lmu-deploy {version('lmu-deploy')}"
    assert plugins.plugin_version(base.GROUP, "ours") is None  # made here, by no package
    assert plugins.plugin_version(base.GROUP, "absent") is None


class Picky:
    name = "picky"
    accepts: tuple[type, ...] = (Network,)

    def __init__(self, *reasons):
        self.reasons = list(reasons)

    def unsupported(self, network):
        return self.reasons


def test_every_reason_is_given_at_once():
    check_supported(Picky(), NETWORK)
    with pytest.raises(InputError, match="picky cannot run this network: too wide; too deep"):
        check_supported(Picky("too wide", "too deep"), NETWORK)


def test_another_representation_says_how_to_get_the_right_one():
    with pytest.raises(InputError, match="picky runs Network, and the file contains str; give"):
        check_supported(Picky(), "text")
    target = Picky()
    target.accepts = (IntegerNetwork,)
    with pytest.raises(InputError, match="make one with lmu-deploy quantize"):
        check_supported(target, NETWORK)
    target.accepts = (IntegerNetwork, Network)
    with pytest.raises(InputError, match="runs IntegerNetwork or Network"):
        check_supported(target, None)


def test_a_target_written_for_layers_is_given_layers():
    target = Picky()
    assert (forms_of(target), taken_by(target, NETWORK)) == (["float"], NETWORK)
    target.accepts = (LMUNetwork, IntegerNetwork)
    assert forms_of(target) == ["float", "integer"]
    assert isinstance(taken_by(target, NETWORK), LMUNetwork)
    pool = Node("pool", Reduce("mean"), ("layer0",))
    pooled = Network((NETWORK["layer0"], pool), (1,), "pool")
    with pytest.raises(InputError, match="target picky: 1 of 2 nodes has no layer form yet: pool"):
        taken_by(target, pooled)
