"""The entry point: runs the app and turns every error into a sentence, the next step and an exit code."""

from __future__ import annotations

import os
import signal
import sys

from tofe_export.cli import failures, terminal


def main() -> None:
    """`tofe-export`.

    Exit codes: 0 done, 1 a check failed, 2 bad input or usage, 3 this machine lacks something, 70 a defect of this
    program, 130 stopped by the user, 143 by SIGTERM.
    """
    try:
        # SIGTERM ends the program as an exception does, so that files in the making are removed.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        terminal.prepare()
        code = _run()
    except KeyboardInterrupt:  # before there was anything to stop
        code = failures.STOPPED
    sys.exit(terminal.finish(code))


def _run() -> int:
    try:
        os.getcwd()  # noqa: PTH109 - libraries end the process in a folder that is gone
        from tofe_export.cli import console
        from tofe_export.cli.app import app

        console.out.stderr = False
        console.unwritten.clear()
        code = app(prog_name="tofe-export", standalone_mode=False) or 0
        for unwritten in console.unwritten:
            shown = failures.show(unwritten)
            code = code or shown
        return code
    except SystemExit as error:  # a library's
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        return failures.show(error)
