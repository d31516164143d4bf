"""The layers of an integer network that stay on the host, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass

from lmu_deploy.integer_parts import Format, check_type
from lmu_deploy.network import LSTMLayer


@dataclass(frozen=True)
class HostLayer:
    """An LSTM layer that the host computes in float64 between layers on the chip.

    It takes real numbers: the inputs as they are, what the messages of the layer before stand for,
    or the output of a host layer before.

    Attributes
    ----------
    lstm : LSTMLayer
    message : Format or None
        Of what it sends to a layer on the chip, ``sat(rint(real / scale))``, ties to even; None
        where the host goes on with its output.
    """

    lstm: LSTMLayer
    message: Format | None

    def __post_init__(self) -> None:
        check_type("host layer", self.lstm, LSTMLayer)
        if self.message is not None:
            check_type("host layer", self.message, Format)

    @property
    def n_in(self) -> int:
        """Number of features that it takes."""
        return self.lstm.n_in

    @property
    def n_out(self) -> int:
        """Number of units, each of which gives a feature."""
        return self.lstm.n_out

    @property
    def n_features(self) -> int:
        """The same."""
        return self.lstm.n_out
