"""The command line of the experiments; docs/studies.md says what came out.

python -m studies run approximation --data clothing10=DATA/clothing10 --processes 2
python -m studies repeat identity-50 --seed 0 --data clothing10=DATA/clothing10
python -m studies hardware --data clothing10=DATA/clothing10
python -m studies page
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from studies import hardware, page, queue, repeat, results
from studies.experiments import ARMS, EXPERIMENTS, SETS
from studies.work import Job, Place
from tofe_export.errors import InputError, TofeError
from tofe_export.files.writing import write_json

_UNFINISHED, _REFUSED = 3, 2


def main() -> int:
    """Returns the exit status: 0 when everything is done, 1 when a repetition disagrees, 2 for a refusal, 3 when jobs
    are left."""
    options = _parser().parse_args()
    try:
        status: int = options.command(options)
    except TofeError as error:
        print(f"error: {error}", file=sys.stderr)
        return _REFUSED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m studies", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--data", action="append", required=True, metavar="NAME=PATH", help=f"of {', '.join(SETS)}")
    shared.add_argument("--device", default="cpu")
    shared.add_argument("--work", type=Path, default=Path("build/studies"), help="folder for teachers and checkpoints")
    shared.add_argument("--results", type=Path, default=results.RESULTS, help="folder of finished arms")

    run = verbs.add_parser("run", parents=[shared], help="what is left of experiments; goes on where it was stopped")
    run.add_argument(
        "experiments",
        nargs="*",
        metavar="EXPERIMENT",
        help="; ".join(f"{one.name}: {one.question}" for one in EXPERIMENTS.values())
        + " Those planned for the set if omitted.",
    )
    run.add_argument("--seeds", type=_positive, help="how many; those of the set if omitted")
    run.add_argument("--processes", type=_positive, default=1)
    run.add_argument("--minutes", type=float, default=12 * 60.0, help="after which what still runs is given up")
    run.set_defaults(command=_run)

    again = verbs.add_parser("repeat", parents=[shared], help="one seed of one arm, beside its committed result")
    again.add_argument("arm", choices=ARMS, metavar="ARM")
    again.add_argument("--seed", type=int, default=0)
    again.set_defaults(command=_repeat)

    timed = verbs.add_parser("hardware", parents=[shared], help="accuracy beside latency, in runtimes")
    timed.add_argument("--rounds", type=_positive, default=4)
    timed.add_argument("--threads", type=_positive, default=1)
    timed.set_defaults(command=_hardware)

    pages = verbs.add_parser("page", help="tables and figures of docs/studies.md, from the results")
    pages.set_defaults(command=_page)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _run(options: argparse.Namespace) -> int:
    unknown = [name for name in options.experiments if name not in EXPERIMENTS]
    if unknown:
        raise InputError(
            f"There is no experiment {unknown[0]!r}.", f"Use {', '.join(EXPERIMENTS)}.", code="unknown-experiment"
        )
    options.work.mkdir(parents=True, exist_ok=True)
    places = []
    for place in _places(options):
        images = SETS[place.images]
        experiments = tuple(options.experiments) or images.experiments or tuple(EXPERIMENTS)
        places.append((place, queue.jobs_left(place, experiments, options.seeds or images.seeds)))
    for place, jobs in places:
        print(f"{place.images}: {_expected(place, jobs, options.processes)}.", flush=True)
    left = queue.run(places, options.processes, options.minutes, lambda said: print(said, flush=True))
    if left:
        print(f"Jobs that are left: {len(left)}. The same command goes on with them.")
    return _UNFINISHED if left else 0


def _expected(place: Place, jobs: list[Job], processes: int) -> str:
    if not jobs:
        return "everything is done"
    hours = queue.hours_of(place, jobs)
    untold = "how long they take is known when a teacher and an arm are finished"
    time = untold if hours is None else f"about {hours / processes:.1f} hours, as finished ones took"
    return f"jobs that are left: {len(jobs)}; {time}"


def _repeat(options: argparse.Namespace) -> int:
    place, *others = _places(options)
    if others:
        raise InputError("One arm is repeated on one set of images.", "Give --data once.", code="one-set")
    with tempfile.TemporaryDirectory() as folder:
        told = repeat.repeat(place, options.arm, options.seed, Path(folder))
    print(told.sentence)
    return 0 if told.agrees else 1


def _hardware(options: argparse.Namespace) -> int:
    for place in _places(options):
        document = hardware.measure(place, (1, 8), options.rounds, options.threads)
        write_json(results.hardware_path_of(place.images, options.results), document)
    return 0


def _page(options: argparse.Namespace) -> int:
    page.write()
    return 0


def _places(options: argparse.Namespace) -> list[Place]:
    places = []
    for given in options.data:
        name, _, path = given.partition("=")
        if name not in SETS or not path:
            raise InputError(
                f"--data {given} names no set of images.",
                f"Give NAME=PATH, with NAME one of {', '.join(SETS)}.",
                code="unknown-set",
            )
        places.append(Place(name, path, options.work, results.path_of(name, options.results), options.device))
    return places


if __name__ == "__main__":
    sys.exit(main())
