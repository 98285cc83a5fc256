"""Chooses the configurations of every run: `python -m tests.chain.choose` writes every_run.jsonl, in two minutes."""

from __future__ import annotations

import dataclasses
import itertools
import json

from hypothesis import Phase

from tests.chain.configurations import EVERY_RUN, SHARES, Configuration, explore, fixed, traits

_DRAWN = 700  # more candidates of each share
_ENOUGH = 0.976  # share of the pairs of traits that the fixed ones show


def main() -> None:
    """In turn the one that shows the most pairs which none before it shows, for the time that its export takes."""
    candidates = [(share, it) for share in SHARES for it in (*_drawn(share), *fixed(share))]
    pairs = {repr(it): {*itertools.combinations(sorted(traits(it)), 2)} for _, it in candidates}
    wanted = {pair for share in SHARES for it in fixed(share) for pair in pairs[repr(it)]}
    left, taken = set(wanted), []
    while len(left) > (1 - _ENOUGH) * len(wanted):
        best = max(candidates, key=lambda one: len(pairs[repr(one[1])] & left) / _cost(one[1]))
        taken.append(best)
        left -= pairs[repr(best[1])]
    taken.sort(key=lambda one: SHARES.index(one[0]))
    lines = [json.dumps({"share": share, **dataclasses.asdict(it)}) for share, it in taken]
    EVERY_RUN.write_text("\n".join(lines) + "\n")


def _drawn(share: str) -> list[Configuration]:
    drawn: list[Configuration] = []
    explore(share, drawn.append, _DRAWN, (Phase.generate,), new=False)
    return drawn


def _cost(it: Configuration) -> float:
    return 1.5 + it.network["depth"] + 0.3 * len(it.keep)


if __name__ == "__main__":
    main()
