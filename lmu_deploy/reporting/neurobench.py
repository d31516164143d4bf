"""NeuroBench's metrics as a table, under its names."""

from __future__ import annotations

from lmu_deploy.fidelity.schema import Fidelity
from lmu_deploy.fidelity.schema_costs import NeuroBench
from lmu_deploy.reporting.tables import Table, with_variants
from lmu_deploy.reporting.wording import NOTHING, count, share, size


def neurobench(fidelity: Fidelity) -> Table | None:
    """List what NeuroBench defines, of each target whose network has widths of its own."""
    rows = [
        _row(name, found.neurobench)
        for name, found in with_variants(fidelity)
        if found.neurobench is not None
    ]
    columns = ["target", "footprint", "connection sparsity", "activation sparsity"]
    columns += ["effective MACs", "effective ACs", "dense"]
    return Table("NeuroBench's metrics, of a mean sample", columns, rows) if rows else None


def _row(name: str, found: NeuroBench) -> list[str]:
    row = [name, size(found.footprint), share(found.connection_sparsity)]
    row += [share(found.activation_sparsity)]
    operations = found.synaptic_operations
    if operations is None:
        return [*row, *[NOTHING] * 3]
    figures = operations.effective_macs, operations.effective_acs, operations.dense
    return [*row, *(count(figure) for figure in figures)]
