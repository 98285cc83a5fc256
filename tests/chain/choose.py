"""Chooses the configurations of every run: `python -m tests.chain.choose` writes every_run.jsonl, in a minute."""

from __future__ import annotations

import dataclasses
import itertools
import json

from hypothesis import Phase

from tests.chain.configurations import EVERY_RUN, SHARES, Configuration, explore, fixed, traits
from tests.chain.wanted import PAIRS_SHOWN, WANTED

Candidate = tuple[str, Configuration]
"""A share and one of its configurations."""
Shown = set[frozenset[str]]
_DRAWN = 700  # more candidates of each share


def main() -> None:
    """First all that is wanted, then most pairs of traits: in turn the most that is new for the time of its export."""
    candidates = [(share, it) for share in SHARES for it in (*_drawn(share), *fixed(share))]
    wanted = WANTED | {frozenset((share,)) for share in SHARES}  # one of each share at least
    shown = {repr(it): {each for each in wanted if each <= {share, *traits(it)}} for share, it in candidates}
    taken = _cover(candidates, shown, wanted, [])
    for one in sorted(taken, key=lambda one: -_cost(one[1])):  # what later ones show as well
        if set.union(*(shown[repr(other[1])] for other in taken if other is not one)) >= wanted:
            taken.remove(one)
    pairs = {repr(it): {frozenset(pair) for pair in itertools.combinations(traits(it), 2)} for _, it in candidates}
    of_fixed = {pair for share in SHARES for it in fixed(share) for pair in pairs[repr(it)]}
    taken = _cover(candidates, pairs, of_fixed, taken, enough=PAIRS_SHOWN)
    taken.sort(key=lambda one: SHARES.index(one[0]))
    lines = [json.dumps({"share": share, **dataclasses.asdict(it)}) for share, it in taken]
    EVERY_RUN.write_text("\n".join(lines) + "\n")
    print(f"{len(taken)} configurations, {sum(it.network['depth'] for _, it in taken)} blocks")


def _cover(
    candidates: list[Candidate], shown: dict[str, Shown], wanted: Shown, taken: list[Candidate], enough: float = 1
) -> list[Candidate]:
    taken, left = [*taken], wanted.difference(*(shown[repr(it)] for _, it in taken))
    while len(left) > (1 - enough) * len(wanted):
        best = max(candidates, key=lambda one: len(shown[repr(one[1])] & left) / _cost(one[1]))
        assert shown[repr(best[1])] & left, f"no candidate shows {left}"
        taken.append(best)
        left -= shown[repr(best[1])]
    return taken


def _drawn(share: str) -> list[Configuration]:
    drawn: list[Configuration] = []
    explore(share, drawn.append, _DRAWN, (Phase.generate,), new=False)
    return drawn


def _cost(it: Configuration) -> float:
    """About the nodes of the trace, in blocks."""
    stages, network = len(it.keep), it.network
    per_stage = 0.5 + 0.6 * (network["approximator"] == "block") + 0.4 * (network["selector"] == "attention")
    return 0.7 + float(network["depth"]) + per_stage * stages


if __name__ == "__main__":
    main()
