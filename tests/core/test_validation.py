"""Validation functions: valid values are returned, invalid ones raise InputError."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.validation import (
    check_array,
    check_choice,
    check_flag,
    check_inputs,
    check_integer,
    check_number,
    check_text,
)


def test_valid_values_are_returned():
    assert check_integer("n", np.int16(3), 1, 3) == 3
    assert type(check_integer("n", np.int16(3), 1, 3)) is int
    assert type(check_number("x", np.float32(0.5), 0, 1)) is float
    assert check_number("x", 1, 0, 1) == 1.0
    assert check_flag("f", False) is False
    assert check_choice("c", "b", ("a", "b")) == "b"
    assert check_text("t", "é" * 5, 5) == "é" * 5


@pytest.mark.parametrize(
    "call",
    [
        lambda: check_integer("it", 4, 1, 3),
        lambda: check_integer("it", 0, 1, 3),
        lambda: check_integer("it", 1.0, 1, 3),
        lambda: check_integer("it", True, 0, 3),
        lambda: check_integer("it", "2", 1, 3),
        lambda: check_number("it", 1.5, 0, 1),
        lambda: check_number("it", float("nan"), 0, 1),
        lambda: check_number("it", float("inf"), 0, np.inf),
        lambda: check_number("it", False, 0, 1),
        lambda: check_number("it", 1 + 0j, 0, 1),
        lambda: check_number("it", None, 0, 1),
        lambda: check_flag("it", 1),
        lambda: check_flag("it", None),
        lambda: check_choice("it", "c", ("a", "b")),
        lambda: check_choice("it", ["a"], ("a", "b")),
        lambda: check_choice("it", None, ("a", "b")),
        lambda: check_text("it", b"x"),
        lambda: check_text("it", "xxxxxx", 5),
        lambda: check_array("it", [1.0], (None,)),
        lambda: check_array("it", np.ones(2, int), (None,)),
        lambda: check_array("it", np.ones(2, np.uint8), (None,), "i"),
        lambda: check_array("it", np.ones(2), (3,)),
        lambda: check_array("it", np.ones((2, 2)), (2,)),
        lambda: check_array("it", np.array([1.0, np.inf]), (2,)),
        lambda: check_array("it", np.array([object()]), (1,)),
    ],
)
def test_invalid_value_error_names_the_argument(call):
    with pytest.raises(InputError) as caught:
        call()
    text = str(caught.value)
    assert text.startswith("it ") and text.endswith(".") and "\n" not in text


def test_invalid_choice_error_lists_choices():
    with pytest.raises(InputError, match="c is 'x'; choose one of a, b"):
        check_choice("c", "x", ("b", "a"))


@given(st.integers(-(10**400), 10**400))
def test_large_integers_are_rejected(value):
    for check in (check_integer, check_number):
        try:
            assert check("it", value, -5, 5) == value
        except InputError:
            assert not -5 <= value <= 5


def test_checked_array_is_read_only():
    original = np.zeros(3)
    checked = check_array("it", original, (3,))
    with pytest.raises(ValueError, match="read-only"):
        checked[0] = 1.0
    original[0] = 1.0


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, bool, np.float16, np.float64])
def test_inputs_are_converted_to_float64(dtype):
    inputs = np.ones((2, 3, 1), dtype)
    checked = check_inputs(inputs, 1)
    assert checked.dtype == np.float64
    assert checked.tolist() == np.ones((2, 3, 1)).tolist()


def test_empty_inputs_are_rejected():
    with pytest.raises(InputError, match="at least one sample"):
        check_inputs(np.zeros((0, 3, 2)), 2)
    with pytest.raises(InputError, match="at least one step"):
        check_inputs(np.zeros((3, 0, 2)), 2)
    with pytest.raises(InputError):
        check_inputs([[[1.0], [1.0, 2.0]]], 1)


def test_long_values_are_shortened_in_errors():
    huge = "x" * 10_000
    for refuse in (
        lambda: check_choice("mode", huge, ("a", "b")),
        lambda: check_integer("bits", huge, 1, 32),
        lambda: check_number("ridge", huge, 0, 1),
    ):
        with pytest.raises(InputError) as caught:
            refuse()
        assert len(str(caught.value)) < 300
