"""The entry point: runs the app and turns every error into a sentence, the next step and an exit code."""

from __future__ import annotations

import os
import sys

from tofe_export.errors import TofeError


def main() -> None:
    """`tofe-export`. Exit codes: 0 done, 1 a check failed, 2 bad input or usage, 3 this machine lacks something."""
    from tofe_export.cli.app import app

    try:
        app(prog_name="tofe-export")
    except TofeError as error:
        sys.exit(_show(error.message, error.next_step, error.exit_code, error))
    except MemoryError as error:
        sys.exit(
            _show(
                "This machine has too little memory for that.",
                "Free some memory, or take a smaller batch or network.",
                3,
                error,
            )
        )
    except Exception as error:
        text = f"Something went wrong inside tofe-export: {type(error).__name__}: {error}"
        sys.exit(_show(text, "Run again with TOFE_DEBUG=1 for the traceback, and please report it.", 1, error))


def _show(message: str, next_step: str, code: int, error: BaseException | None) -> int:
    if error is not None and os.environ.get("TOFE_DEBUG") == "1":
        raise error
    from tofe_export.cli.console import err

    err.print(f"Error: {message}", markup=False, style="red", soft_wrap=True)
    if next_step:
        err.print(f"Next:  {next_step}", markup=False, soft_wrap=True)
    return code
