"""Compare options of `quantize`: the effect of slices and message widths on the results.

The digits network of this repository is quantized in several ways and each is run on its test set.
Run: python examples/quantize_options.py
"""

from __future__ import annotations

from pathlib import Path

import lmu_deploy

NETWORK = Path(__file__).parent / "models" / "digits.safetensors"
OPTIONS = {
    "default options": {},
    "one slice": {"slices": 1},
    "messages of 8 bits": {"message_bits": 8},
    "both": {"slices": 1, "message_bits": 8},
    "messages of 5 bits": {"message_bits": 5},
}


def main() -> None:
    """Print accuracy, agreement with the float network, and distance of the outputs from it."""
    for name, options in OPTIONS.items():
        network = lmu_deploy.quantize(NETWORK, **options)
        found = lmu_deploy.run(network, target="integer").summary()
        against = found["reference"]
        print(
            f"{name:<20} accuracy {found['metric']['value']:.4f}  "
            f"agreement {against['agreement']:.4f}  deviation {against['deviation']:.4f}"
        )


if __name__ == "__main__":
    main()
