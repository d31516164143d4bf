"""Command line: each command reads its options and calls the Python interface.

Results go to standard output, messages and progress to standard error. The exit code is 0 on
success, 1 if a run failed, and 2 for wrong usage or input with an error message of one sentence;
`--debug` shows the traceback.
"""

from __future__ import annotations

import sys

from lmu_deploy.cli.app import app
from lmu_deploy.core.errors import LmuDeployError

__all__ = ["app", "main"]


def main() -> None:
    """Run a command; print the message of an expected error instead of its traceback."""
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="backslashreplace")  # a terminal may not have every letter
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
