"""The command line: `python -m studies run approximation --data DATA` and so on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from studies import queue, results
from studies.experiments import EXPERIMENTS, SETS
from studies.work import Place


def main() -> int:
    """Runs what is left of experiments."""
    parser = argparse.ArgumentParser(prog="python -m studies", description=__doc__)
    parser.add_argument("experiments", nargs="*", choices=[*EXPERIMENTS, []], metavar="EXPERIMENT")
    parser.add_argument("--data", action="append", required=True, help="NAME=PATH of a set; several take turns")
    parser.add_argument("--seeds", type=int, help="how many; those of the set where it is omitted")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=12 * 60.0)
    parser.add_argument("--work", type=Path, default=Path("build/studies"))
    parser.add_argument("--results", type=Path, default=results.RESULTS)
    options = parser.parse_args()
    experiments = tuple(options.experiments) or tuple(EXPERIMENTS)
    options.work.mkdir(parents=True, exist_ok=True)
    places = []
    for given in options.data:
        name, _, path = given.partition("=")
        seeds = tuple(range(options.seeds or SETS[name].seeds))
        place = Place(name, path, options.work, results.path_of(name, options.results), options.device)
        places.append((place, queue.Left.of(place, experiments, seeds)))
    left = queue.run(places, options.processes, options.minutes, lambda said: print(said, flush=True))
    if left:
        print(f"{len(left)} jobs are left. The same command goes on with them.")
    return 3 if left else 0


if __name__ == "__main__":
    sys.exit(main())
