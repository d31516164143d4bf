"""The command line: `lmu-deploy`. Each command reads its options and calls `lmu_deploy.commands`.

Results go to standard output, messages and progress to standard error. Exit code 0 is done, 1 a run
that failed, 2 wrong usage or input, told in one sentence; `--debug` shows the traceback.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lmu_deploy.errors import LmuDeployError

app = typer.Typer(
    name="lmu-deploy",
    help="Take a trained Legendre Memory Unit to neuromorphic hardware, and prove what survived.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[Path, typer.Argument(help="A .safetensors network file.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", help="Where to write.", show_default=False)]
Profile = Annotated[str, typer.Option(help="Chip profile.")]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task", help="Task, or an .npz file of your own data; by default what the file records."
    ),
]
Limit = Annotated[int | None, typer.Option(help="Only the first N test samples.")]
Seed = Annotated[int, typer.Option(help="Seed of all that is random.")]


@app.callback()
def _settings(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Only declares what holds for every command; main() reads --debug before all else."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("demo-report"),
    seed: Seed = 0,
) -> None:
    """Train, convert and deploy a small network everywhere, and write the report.

    Example: lmu-deploy demo --out my-report
    """
    from lmu_deploy.commands.demo import demo

    print(demo(out=out, seed=seed))


@app.command()
def train(
    task: Annotated[str, typer.Argument(help="What to learn, such as digits.", show_default=False)],
    out: Out,
    model: Annotated[str, typer.Option(help="lmu, parallel, lstm or hybrid.")] = "lmu",
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most this many epochs.")] = None,
    seed: Seed = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Written after each epoch; resumed from if it is there.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a network on a task and write it to one file.

    Example: lmu-deploy train digits --out digits.safetensors
    """
    from lmu_deploy.commands.train import train

    result = train(
        task,
        model,
        config=config,
        epochs=epochs,
        seed=seed,
        out=out,
        checkpoint=checkpoint,
        device=device,
    )
    for name, value in result.figures.items():
        print(f"{name}: {value:.4f}")
    print(out)


@app.command("import")
def import_network(
    file: Annotated[Path, typer.Argument(help="A file of another program.", show_default=False)],
    out: Out,
    format: Annotated[  # noqa: A002 (the option's own name)
        str | None, typer.Option(help="Of which program; recognised from the file if not given.")
    ] = None,
    architecture: Annotated[
        Path | None, typer.Option(help="For bare weights: what Keras's model.to_json() wrote.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="For bare weights, instead: NAME=VALUE, such as theta=784. Repeatable."),
    ] = None,
    task: TaskName = None,
) -> None:
    """Read a network that keras-lmu, the paper's package or a PyTorch LMU trained.

    Example: lmu-deploy import psmnist.keras --task psmnist --out psmnist.safetensors
    """
    from lmu_deploy.commands.import_network import import_network, parse_options

    import_network(
        file,
        out=out,
        format=format,
        architecture=architecture,
        options=parse_options(option or []),
        task=task,
    )
    print(out)


@app.command()
def quantise(
    file: File,
    out: Out,
    profile: Profile = "loihi2",
    task: TaskName = None,
    slices: Annotated[int, typer.Option(help="int8 slices of the memory's matrix.")] = 2,
    kernel_slices: Annotated[
        int | None,
        typer.Option(help="Slices of the other matrices; by default 1, or 2 for regression."),
    ] = None,
    kernel_bits: Annotated[
        int | None, typer.Option(help="Width of their weights; by default the profile's.")
    ] = None,
    message_bits: Annotated[int, typer.Option(help="Width of the memory's messages.")] = 12,
    hidden_bits: Annotated[
        int | None,
        typer.Option(help="Width of hidden messages; by default 8, or 12 for regression."),
    ] = None,
    input_bits: Annotated[
        int | None, typer.Option(help="Width of input messages; by default the memory's.")
    ] = None,
    calibration_method: Annotated[
        str, typer.Option(help="Range of messages: max, percentile or mse.")
    ] = "max",
    scales: Annotated[
        str | None,
        typer.Option(help="Row gains, power-of-two or free; by default free for one slice."),
    ] = None,
    realisation: Annotated[
        str,
        typer.Option(
            help="dense-incremental, schur, hessenberg, fir, sign-taylor, or auto for the cheapest."
        ),
    ] = "dense-incremental",
    taps: Annotated[
        int | None, typer.Option(help="Steps that fir holds; by default the window.")
    ] = None,
) -> None:
    """Turn a float network into integers for a digital chip.

    Example: lmu-deploy quantise digits.safetensors --out digits-int.safetensors
    """
    from lmu_deploy.commands.quantise import quantise

    quantise(
        file,
        profile=profile,
        task=task,
        out=out,
        slices=slices,
        message_bits=message_bits,
        kernel_slices=kernel_slices,
        kernel_bits=kernel_bits,
        hidden_bits=hidden_bits,
        input_bits=input_bits,
        calibration_method=calibration_method,
        scales=scales,
        realisation=realisation,
        taps=taps,
    )
    print(out)


@app.command()
def spike(
    file: File,
    out: Out,
    profile: Profile = "generic-analog",
    task: TaskName = None,
    neurons_per_state: Annotated[int, typer.Option(help="Neurons for each memory state.")] = 100,
    calibration: Annotated[str, typer.Option(help="dynamic, static or none.")] = "dynamic",
    mismatch: Annotated[
        float | None, typer.Option(help="Spread of the devices; by default the profile's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which virtual chip, and its neurons.")] = 0,
) -> None:
    """Lower a float network's memory onto spiking neurons of one virtual analog chip.

    Example: lmu-deploy spike digits.safetensors --out digits-lif.safetensors
    """
    from lmu_deploy.commands.spike import spike

    spike(
        file,
        profile=profile,
        task=task,
        out=out,
        neurons_per_state=neurons_per_state,
        calibration=calibration,
        mismatch=mismatch,
        seed=seed,
    )
    print(out)


@app.command()
def export(
    file: File,
    out: Out,
    to: Annotated[
        str,
        typer.Option(
            help="Of a float network: onnx (whole sequence), onnx-step or nir; of an integer one: "
            "onnx-int, onnx-int-step (integer operators alone) or onnx-qdq (for int8 runtimes); of "
            "a spiking one: nir."
        ),
    ] = "onnx",
) -> None:
    """Write a network as ONNX or NIR.

    Example: lmu-deploy export digits-int.safetensors --to onnx-int --out digits-int.onnx
    """
    from lmu_deploy.commands.export import export

    print(export(file, to=to, out=out))


@app.command()
def check(file: File, profile: Profile = "loihi2") -> None:
    """List every way in which an integer network does not fit a chip; exit code 1 if any.

    Example: lmu-deploy check digits-int.safetensors --profile loihi2
    """
    from lmu_deploy.commands.check import check

    violations = check(file, profile=profile)
    for violation in violations:
        print(violation)
    if violations:
        raise typer.Exit(1)
    print(f"{file} fits {profile}.")


@app.command()
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
    from lmu_deploy.commands.deploy import deploy

    summary = deploy(
        file, target=target, task=task, limit=limit, record=record, json=json, seed=seed
    )
    metric, reference = summary["metric"], summary["reference"]
    print(
        f"{summary['target']}: {metric['name']} {metric['value']:.4f} "
        f"({metric['ci95'][0]:.4f} to {metric['ci95'][1]:.4f}) on {summary['n_samples']} samples; "
        f"reference {reference['value']:.4f}, agreement {reference['agreement']:.4f}"
    )


@app.command()
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
    seed: Seed = 0,
) -> None:
    """Run a float network on several targets and write fidelity.json and report.html.

    Example: lmu-deploy validate digits.safetensors --targets integer,lava:8 --out report
    """
    from lmu_deploy.commands.validate import validate

    print(validate(file, targets=targets, task=task, limit=limit, out=out, seed=seed))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder with a fidelity.json.")],
) -> None:
    """Write report.html anew from a folder's fidelity.json.

    Example: lmu-deploy report demo-report
    """
    from lmu_deploy.commands.report import report

    print(report(folder))


@app.command()
def targets() -> None:
    """List the targets that are installed, and what each runs."""
    from lmu_deploy.commands.targets import targets

    for info in targets():
        print(f"{info.name:<14}{info.runs}{info.missing}")


@app.command()
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Run the commands that mend it.")] = False,
) -> None:
    """Show each library, its version, whether it works, and the command that mends it."""
    from lmu_deploy.commands.doctor import doctor

    if not all(finding.works for finding in doctor(fix=fix)):
        raise typer.Exit(1)


def main() -> None:
    """Entry point: run a command and turn every expected error into one sentence."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(args=arguments, prog_name="lmu-deploy")
    except LmuDeployError as error:
        if "--debug" in sys.argv[1:]:
            raise
        print(f"lmu-deploy: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("lmu-deploy: interrupted", file=sys.stderr)
        sys.exit(130)
