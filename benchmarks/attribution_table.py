"""What each source of error costs, of several validations: Markdown tables for a results page.

python benchmarks/attribution_table.py docs/reports/psmnist docs/reports/psmnist-narrow
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from lmu_deploy.fidelity.store import read_fidelity
from lmu_deploy.reporting.loss_tables import causes, sources
from lmu_deploy.reporting.losses import REMEDIES
from lmu_deploy.reporting.markdown import table
from lmu_deploy.reporting.tables import with_variants
from lmu_deploy.reporting.wording import sentence


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables of every target that was taken apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="with a fidelity.json")
    for folder in parser.parse_args(arguments).folders:
        fidelity = read_fidelity(folder)
        accuracy = fidelity.reference.metric.name == "accuracy"
        print(f"## {folder}\n\n    {fidelity.command}\n")
        for name, found in with_variants(fidelity):
            if found.attribution is None:
                continue
            print(sentence(name, found), f"Taken apart on {found.attribution.samples} samples.\n")
            print(table(sources(found.attribution, accuracy)), end="\n\n")
            print(table(causes(found.attribution, REMEDIES)), end="\n\n")


if __name__ == "__main__":
    main()
