"""Commands that run or check networks: `deploy`, `validate`, `report`, `targets` and `check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lmu_deploy.cli.options import File, First, Limit, Seed, TaskName

MustEqual = Annotated[
    bool,
    typer.Option(
        "--must-equal",
        help="Exit with code 1 if a recorded integer differs from the specification, or a "
        "recorded analog chip does not follow its file.",
    ),
]


def deploy(
    file: File,
    target: Annotated[str, typer.Option(help="Target; lmu-deploy targets lists them.")],
    task: TaskName = None,
    limit: Limit = None,
    first: First = None,
    record: Annotated[
        Path | None, typer.Option(help="File (.npz) to write m, h and y of every step to.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="JSON file to write the result to.")] = None,
    seed: Seed = 0,
) -> None:
    """Run a network on a target with its task's test data.

    Example: lmu-deploy deploy digits-int.safetensors --target lava --limit 8
    """
    from lmu_deploy.api.run import run

    result = run(
        file,
        task,
        target=target,
        limit=limit,
        first=first,
        record=record or False,
        json=json,
        seed=seed,
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
    from lmu_deploy.core.representation import counted

    metric, reference = summary["metric"], summary["reference"]
    interval = " ({:.4f} to {:.4f})".format(*metric["ci95"]) if metric["ci95"] else ""
    line = (
        f"{summary['target']}: {metric['name']} {metric['value']:.4f}{interval} "
        f"on {counted(summary['n_samples'], 'sample')}"
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
            help="Names of targets, each with a form of the network (onnxruntime/integer) and a "
            "number of samples (lava:8) if needed, separated by commas. Slow targets (lava, "
            "brian2) without a number run as many samples as take about 20 s."
        ),
    ] = "onnxruntime,integer",
    task: TaskName = None,
    limit: Limit = None,
    first: First = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Number of steps of each test sample, for a network that answers at every step."
        ),
    ] = None,
    use: Annotated[
        list[Path] | None,
        typer.Option(
            help="File that quantize or spike made from this network, to run instead of one made "
            "with the default options; repeatable.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    attribution: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Number of samples for the attribution of the error to its sources; 0 for none. "
            "By default as many as take a minute or two.",
            show_default=False,
        ),
    ] = None,
    attribution_budget: Annotated[
        float,
        typer.Option(
            min=0,
            help="Time on one core for the Shapley values of each network's sources of error, in "
            "seconds. A shorter time allows fewer samples, orders or analog chips; 0 computes "
            "none.",
        ),
    ] = 60.0,
    recording: Annotated[
        list[str] | None,
        typer.Option(
            help="Recording (.npz) of what a board or another program computed, to judge like a "
            "target: of the network given by --use, otherwise of the integer one. With several "
            "networks, spiking=board.npz says which. Repeatable.",
            show_default=False,
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            help="Margin of equivalence, 0.01 for one point of accuracy or 1 % of float's NRMSE; "
            "exit with code 1 unless every target is equivalent to float, or better.",
            show_default="0.01 for accuracy, 0.02 for NRMSE, and no requirement",
        ),
    ] = None,
    must_equal: MustEqual = False,
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
            first=first,
            steps=steps,
            use=use or (),
            out=out,
            seed=seed,
            attribution=attribution,
            attribution_budget=attribution_budget,
            recordings=recording or (),
            margin=margin,
            must_equal=must_equal,
        ).path
    )


def report(
    folder: Annotated[
        Path, typer.Argument(help="Folder with a fidelity.json.", show_default=False)
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an earlier report; the changes since are written to comparison.html "
            "and comparison.md."
        ),
    ] = None,
    yields: Annotated[
        list[Path] | None,
        typer.Option(
            "--yield",
            help="File that lmu-deploy yield wrote, to show in the report; repeatable.",
            show_default=False,
        ),
    ] = None,
    sweeps: Annotated[
        list[Path] | None,
        typer.Option(
            "--sweep",
            help="Folder that lmu-deploy sweep wrote, to show in the report; repeatable.",
            show_default=False,
        ),
    ] = None,
    fail_below: Annotated[
        float | None,
        typer.Option(help="Exit with code 1 if the accuracy of a target is below this."),
    ] = None,
    fail_above: Annotated[
        float | None, typer.Option(help="Exit with code 1 if the NRMSE of a target is above this.")
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            help="Exit with code 1 if a target loses more than this against the float network; "
            "0.002 is 0.2 points of accuracy, or 0.2 % of the NRMSE."
        ),
    ] = None,
    must_fit: Annotated[
        bool,
        typer.Option("--must-fit", help="Exit with code 1 if a network does not fit its chip."),
    ] = False,
    must_equal: MustEqual = False,
    margin: Annotated[
        float | None,
        typer.Option(
            help="Exit with code 1 unless every target is equivalent to float within this margin, "
            "or better; 0.01 is one point of accuracy, or 1 % of float's NRMSE."
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="JUnit XML file to write the results of these checks to.")
    ] = None,
) -> None:
    """Write report.html and report.md from the fidelity.json of a folder, and check limits.

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
            must_equal=must_equal,
            margin=margin,
            junit=junit,
        )
    )


def targets() -> None:
    """List the installed targets and the forms of networks that each runs.

    Example: lmu-deploy targets
    """
    from lmu_deploy.api.run import targets

    for info in targets():
        print(f"{info.name:<14}{info.runs}{info.missing}")


def check(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="A .safetensors network file; with --task a float one, or none.",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="Chip profile. By default loihi2, or that of the chip of a spiking network.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task", help="Task, .npz file or folder to examine instead, against a float network."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 1 if the data have a finding.")
    ] = False,
) -> None:
    """Check whether a network fits a chip, or with --task whether data are fit for use.

    The network is one from `quantize` or from `spike`.

    Lists every violation of the chip's limits, with exit code 1 if there is one, and the placement
    of neurons on cores, or the neurons and synapses that an analog chip needs. Also names layers
    that run on the host and memories that would grow without bound in an endless stream.

    Example: lmu-deploy check digits-int.safetensors --profile loihi2

    Example: lmu-deploy check --task mine.npz mine.safetensors
    """
    from lmu_deploy.api.check import check, check_data, placement, remarks, usual_profile
    from lmu_deploy.core.errors import InputError

    if task is not None:
        trivial, findings = check_data(task, file)
        for finding in findings:
            print(finding)
        if not findings:
            print(f"{task}: nothing found.")
        print(f"A network has to do better than {trivial.words}: {trivial.value:.4f}.")
        if findings and strict:
            raise typer.Exit(1)
        return
    if file is None:
        raise InputError("check needs a network file, or data: --task.")
    violations = check(file, profile=profile)
    for violation in violations:
        print(violation)
    if not violations:
        print(f"{file} fits {profile or usual_profile(file)}.")
    print(placement(file, profile=profile))
    for remark in remarks(file):
        print(remark, file=sys.stderr)
    if violations:
        raise typer.Exit(1)
