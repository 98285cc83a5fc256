"""The table in docs/formats.md."""

from __future__ import annotations

from collections.abc import Sequence

from tests.formats.case import Case, Outcome

HEAD = """# Which files are taken

`python -m tests.formats --docs docs/formats.md` makes {count} files in the formats that people have, with random
weights, and reads each as `tofe-export onnx` does. {equal} are taken, and the network computes what the one that wrote
the file computes (within 1e-4, on random images). {refused} are refused with a sentence and a next step.
`tests/formats/test_formats.py` requires it.

In the groups "wrapped" and "files" the user names the network and its size, for networks so small have no names.

"""


def written(found: Sequence[tuple[Case, Outcome]]) -> str:
    """The page."""
    equal = [(case, outcome) for case, outcome in found if case.source is not None]
    refused = [(case, outcome) for case, outcome in found if case.source is None]
    taken = sum(outcome.verdict == "equal" for _, outcome in equal)
    said = sum(outcome.verdict == "refused" for _, outcome in refused)
    lines = [
        HEAD.format(count=len(found), equal=taken, refused=said),
        "## Taken, and equal to its source\n",
        "| group | files |",
        "|---|---|",
    ]
    for group in dict.fromkeys(case.group for case, _ in equal):
        names = [case.name for case, outcome in equal if case.group == group and outcome.fits(case)]
        lines.append(f"| {group} ({len(names)}) | {'; '.join(names)} |")
    lines += ["", "## Refused, and with which sentence\n", "| file | sentence |", "|---|---|"]
    for case, outcome in refused:
        sentence = outcome.sentence.replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| {case.name} | {sentence} |")
    return "\n".join([*lines, ""])
