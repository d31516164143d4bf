"""`lmu-deploy deploy`: one target, one result.

`lmu-deploy validate`: several targets, one report.

`lmu-deploy report`: the report, written anew.

`lmu-deploy targets`: what can run here.

`lmu-deploy check`: whether a network fits a chip.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lmu_deploy.cli.options import File, Limit, Profile, Seed, TaskName


def deploy(
    file: File,
    target: Annotated[str, typer.Option(help="Where to run; see lmu-deploy targets.")],
    task: TaskName = None,
    limit: Limit = None,
    record: Annotated[Path | None, typer.Option(help="Write m, h, y of every step (.npz).")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the result as JSON here.")] = None,
    seed: Seed = 0,
) -> None:
    """Run a network on a target with its task's test data.

    Example: lmu-deploy deploy digits-int.safetensors --target lava --limit 8
    """
    from lmu_deploy.api.run import run

    result = run(
        file, task, target=target, limit=limit, record=record or False, json=json, seed=seed
    )
    print(result_line(result.summary()))
    for note in result.notes:
        print(note, file=sys.stderr)


def result_line(summary: dict[str, Any]) -> str:
    """Return one line with a run's metric and its distance from the float reference.

    Parameters
    ----------
    summary : dict
        See :meth:`lmu_deploy.api.run.RunResult.summary`.
    """
    metric, reference = summary["metric"], summary["reference"]
    low, high = metric["ci95"]
    line = (
        f"{summary['target']}: {metric['name']} {metric['value']:.4f} ({low:.4f} to {high:.4f}) "
        f"on {summary['n_samples']} samples"
    )
    if reference["value"] is None:
        return f"{line}; no float reference in the file"
    line += f"; reference {reference['value']:.4f}"
    if reference["agreement"] is not None:
        return f"{line}, agreement {reference['agreement']:.4f}"
    return f"{line}, outputs {reference['deviation']:.4f} apart (relative rms)"


def validate(
    file: File,
    out: Annotated[Path, typer.Option("--out", help="Folder of the report.", show_default=False)],
    targets: Annotated[
        str,
        typer.Option(
            help="Names, each with a form of the network and a limit if wanted: "
            "integer,lava:8,onnxruntime/integer."
        ),
    ] = "onnxruntime,integer",
    task: TaskName = None,
    limit: Limit = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Of each test sample only so many steps, where every step is answered."),
    ] = None,
    use: Annotated[
        list[Path] | None,
        typer.Option(
            help="A file that quantize or spike made of this network, to run in place of what "
            "their defaults would make; may be given several times.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    attribution: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Samples on which each source of an integer network's error is switched on by "
            "itself; 0 for none. By default as many as take a minute or two.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a float network on several targets and write fidelity.json and report.html.

    Example: lmu-deploy validate digits.safetensors --targets integer,lava:8 --out report
    """
    from lmu_deploy.api.validate import validate

    print(
        validate(
            file,
            task,
            targets=targets,
            limit=limit,
            steps=steps,
            use=use or (),
            out=out,
            seed=seed,
            attribution=attribution,
        ).path
    )


def report(
    folder: Annotated[
        Path, typer.Argument(help="Folder with a fidelity.json.", show_default=False)
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an earlier report: what changed since is written to comparison.html "
            "and comparison.md."
        ),
    ] = None,
    yields: Annotated[
        list[Path] | None,
        typer.Option(
            "--yield",
            help="What lmu-deploy yield wrote: show how many chips would do; repeatable.",
            show_default=False,
        ),
    ] = None,
    sweeps: Annotated[
        list[Path] | None,
        typer.Option(
            "--sweep",
            help="Folder that lmu-deploy sweep wrote: show its trials; repeatable.",
            show_default=False,
        ),
    ] = None,
    fail_below: Annotated[
        float | None, typer.Option(help="Exit code 1 when a target's accuracy is below this.")
    ] = None,
    fail_above: Annotated[
        float | None, typer.Option(help="Exit code 1 when a target's NRMSE is above this.")
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            help="Exit code 1 when a target loses more than this against float: 0.002 is 0.2 "
            "points of accuracy, or 0.2 % of the NRMSE."
        ),
    ] = None,
    must_fit: Annotated[
        bool,
        typer.Option(
            "--must-fit", help="Exit code 1 when a network does not fit the chip it was made for."
        ),
    ] = False,
    junit: Annotated[
        Path | None, typer.Option(help="Write these checks as JUnit XML, for a pipeline.")
    ] = None,
) -> None:
    """Write report.html and report.md anew from a folder's fidelity.json, and hold it to limits.

    Example: lmu-deploy report demo-report --fail-below 0.97 --junit fidelity.xml
    """
    from lmu_deploy.api.report import write_report

    print(
        write_report(
            folder,
            against=against,
            yields=yields or (),
            sweeps=sweeps or (),
            fail_below=fail_below,
            fail_above=fail_above,
            max_loss=max_loss,
            must_fit=must_fit,
            junit=junit,
        )
    )


def targets() -> None:
    """List the targets that are installed, and what each runs."""
    from lmu_deploy.api.run import targets

    for info in targets():
        print(f"{info.name:<14}{info.runs}{info.missing}")


def check(file: File, profile: Profile = "loihi2") -> None:
    """List every way in which a network does not fit a digital chip; exit code 1 if any.

    The network is one that `quantize` made, or `spike` for Loihi.

    Then shows where its neurons would sit and how full each core gets, and says which layers are
    on the host and which memories would grow in a stream without end.

    Example: lmu-deploy check digits-int.safetensors --profile loihi2
    """
    from lmu_deploy.api.check import check, placement, remarks

    violations = check(file, profile=profile)
    for violation in violations:
        print(violation)
    if not violations:
        print(f"{file} fits {profile}.")
    print(placement(file, profile=profile))
    for remark in remarks(file):
        print(remark, file=sys.stderr)
    if violations:
        raise typer.Exit(1)
