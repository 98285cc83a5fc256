"""A process that times models for its parent, `timing.processes`: python -m tofe_export.timing.worker"""

from __future__ import annotations

import json
import os
import signal
import sys

from tofe_export.timing.jobs import Failure, Job, Message


def main() -> None:
    """Reads a job from standard input and does it; writes a message per line. Ends when nobody reads them any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends this process
    messages = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what a library prints must not pass for a message

    def send(message: Message) -> None:
        messages.write(message.line())
        messages.flush()

    try:
        job = Job.model_validate(json.loads(sys.stdin.read()))
        outcome = Message(timed=job.run(lambda: send(Message())))
    except BrokenPipeError:
        raise
    except Exception as error:  # the parent raises it again
        outcome = Message(failure=Failure.of(error))
    send(outcome)


if __name__ == "__main__":
    main()
