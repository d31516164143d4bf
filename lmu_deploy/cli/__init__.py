"""The command line, one file a command: each reads options and calls `lmu_deploy.api`.

Results go to standard output, messages and progress to standard error. Exit code 0 is done, 1 a run
that failed, 2 wrong usage or input, told in one sentence; `--debug` shows the traceback.
"""

from __future__ import annotations

import sys

from lmu_deploy.cli.app import app
from lmu_deploy.core.errors import LmuDeployError

__all__ = ["app", "main"]


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
