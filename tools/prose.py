"""Checks prose for the substitutions of docs/style.md: `python tools/prose.py [--count] PATH...`.

Reads Markdown outside code, and the comments, docstrings and string literals of Python files. A phrase may run over the
end of a line. Prints `file:line: found -> say instead`; with `--count` only the number of findings per substitution.
Exits 1 when there are findings.
"""

from __future__ import annotations

import argparse
import re
import sys
import token
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_PER = r"(?:image|stage|row|tensor|file|layer|batch|call|step|line|class|operator)"
_OTHER = r"(?!of|in|for|to|with|from|at|on|as|is|or|and|by|was|such|than)"  # after "one", so that no unit follows
# What is found, as a regular expression whose spaces match any white space, and what to say instead.
SUBSTITUTIONS = (
    (r"(?<!there\s)(?:is|are|was|were) no(?! (?:longer|more|less|fewer|better|worse|different)\b)", "is not a"),
    (r"(?:leave|leaves|leaving|left) away", "omit"),
    (r"mend(?:s|ed|ing)?", "fix"),
    (r"(?:is|are|was|were) asked(?: for)?", "requires, must, requested"),
    (r"us(?:e|es|ed|ing) up", "modified in place, consumed"),
    (r"at most so (?:many|much)", "at most N"),
    (rf"one (?:{_OTHER}\w+ ){{0,2}}an? {_PER}", "per"),
    (rf"(?:milliseconds?|seconds?|ms|bytes|MB) an? {_PER}", "per"),
    (r"without a word", "silently"),
    (r"(?:is|are|was|were) told", "the program prints"),
    (r"cannot be meant", "is invalid"),
    (r"(?:made|makes|make) ready", "prepare"),
    (r"of one's own", "your own, self-hosted"),
    (r"artefacts?", "artifact"),
    (r"(?:colour|behaviour|favour|neighbour)\w*", "US spelling: -or"),
    (r"(?:centre|grey)(?:s|d)?", "US spelling: center, gray"),
    (r"(?:recogni|normali|optimi|initiali|summari|seriali|generali)s(?:e|es|ed|ing|ation|er)", "US spelling: -ize"),
    (r"label(?:led|ling)", "US spelling: labeled"),
)
PATTERNS = tuple(
    (re.compile(r"\b" + pattern.replace(" ", r"\s+") + r"\b", re.IGNORECASE), instead)
    for pattern, instead in SUBSTITUTIONS
)
_EXCUSED = "prose: ok"  # on the line, for a word that must stay
_CODE = "\0"  # stands for what is not prose; no pattern matches it
# Fenced and inline code, HTML comments, and the targets of links.
_NOT_PROSE = re.compile(r"^( *)```.*?^\1```|`[^`\n]+`|<!--.*?-->|(?<=\])\([^)\n]*\)", re.DOTALL | re.MULTILINE)
_TEXT = {token.STRING, token.COMMENT, getattr(token, "FSTRING_MIDDLE", token.COMMENT)}
_QUOTES = re.compile(r"^#+|^\w{0,2}(\"\"\"|'''|\"|')|(\"\"\"|'''|\"|')$")
_NAMES = re.compile(r"^ +\w+(?:, \w+)*(?=:)", re.MULTILINE)  # of arguments and attributes, in a docstring's lists
_JOINT = re.compile(r"(?:\s|[fr]{0,2}[\"'])*", re.IGNORECASE)  # from Python 3.12 on f-strings come without their quotes
_FORMATTED, _EXPRESSIONS = re.compile(r"r?fr?[\"']", re.IGNORECASE), re.compile(r"\{[^{}]*\}")  # before it, whole


def _blank(text: str, by: str = " ") -> str:
    return re.sub(r"[^\n]", by, text)


def of_markdown(source: str) -> str:
    """The prose of a Markdown page, at the same offsets; everything else is NUL."""
    return _NOT_PROSE.sub(lambda found: _blank(found[0], _CODE), source)


def of_python(source: str) -> str:
    """The comments and string literals of a Python file, at the same offsets; everything else is NUL.

    Literals and comments with only white space between them are one text.
    """
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    prose = list(_blank(source, _CODE))
    end = 0
    for kind, text, begin, stop, _ in tokenize.generate_tokens(iter(source.splitlines(keepends=True)).__next__):
        if kind not in _TEXT:
            continue
        first, last = starts[begin[0] - 1] + begin[1], starts[stop[0] - 1] + stop[1]
        between = source[end:first]
        if _JOINT.fullmatch(between):
            prose[end:first] = _blank(between)
        if last - first == len(text):  # an f-string's escaped brace is one character longer than its token
            literal = _EXPRESSIONS.sub(lambda found: _blank(found[0], _CODE), text) if _FORMATTED.match(text) else text
            literal = _NAMES.sub(lambda found: _blank(found[0], _CODE), literal)
            prose[first:last] = _QUOTES.sub(lambda found: _blank(found[0]), literal)
        end = last
    return "".join(prose)


def findings(source: str, suffix: str) -> Iterator[tuple[int, str, str]]:
    """Line number, what was found, and what to say instead, in the order of the file."""
    prose = of_python(source) if suffix == ".py" else of_markdown(source)
    hits = [(found.start(), found[0], instead) for pattern, instead in PATTERNS for found in pattern.finditer(prose)]
    lines = source.split("\n")
    for offset, found, instead in sorted(hits):
        number = source.count("\n", 0, offset)
        if _EXCUSED not in lines[number]:
            yield number + 1, " ".join(found.split()), instead


def main() -> int:
    """Exit code 1 when a file holds one of the phrases."""
    parser = argparse.ArgumentParser(description="Checks prose for the substitutions of docs/style.md.")
    parser.add_argument("--count", action="store_true", help="print only the number of findings per substitution")
    parser.add_argument("paths", nargs="+", type=Path, help="Markdown and Python files, or folders of them")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    for path in options.paths:
        inside = sorted([*path.rglob("*.md"), *path.rglob("*.py")]) if path.is_dir() else [path]
        for file in inside:
            for line, found, instead in findings(file.read_text(encoding="utf-8"), file.suffix):
                counts[f"{found.lower()} -> {instead}"] += 1
                if not options.count:
                    print(f"{file}:{line}: {found} -> {instead}")
    if options.count:
        print("\n".join(f"{number:5} {what}" for what, number in counts.most_common()))
    print(f"prose: {counts.total()} findings", file=sys.stderr)
    return int(bool(counts))


if __name__ == "__main__":
    sys.exit(main())
