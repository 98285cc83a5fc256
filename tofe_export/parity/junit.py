"""JUnit XML, as CI systems read it: a suite per artifact, a case per check."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from tofe_export.documents.verification import Verification, Verifications

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2
_KINDS = {True: "", False: "failure", None: "skipped"}
_TOTALS = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}


def to_junit(verifications: Verifications) -> str:
    """The result of verify as JUnit XML.

    A check that could not be made is a skipped case, an artifact that could not be opened an error.
    """
    root = ElementTree.Element("testsuites", name="tofe-export verify")
    for verification in verifications.artifacts:
        model = _text(verification.model)
        suite = ElementTree.SubElement(root, "testsuite", name=model)
        for name, kind, message in _cases(verification):
            case = ElementTree.SubElement(suite, "testcase", classname=model, name=_text(name))
            if kind:
                ElementTree.SubElement(case, kind, message=_text(message)).text = _text(message)
    for element in (root, *root):
        for total, tag in _TOTALS.items():
            element.set(total, str(len(element.findall(f".//{tag}"))))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _cases(verification: Verification) -> Iterator[tuple[str, str, str]]:
    """Name, kind and message of each case."""
    if (problem := verification.error) is not None:
        # A machine that lacks something says nothing of the model, so that is not a failure: it was skipped.
        kind = "skipped" if verification.passed is None else "error"
        yield "open", kind, f"{problem.message} {problem.next_step}".strip()
    for check in verification.checks:
        yield check.name, _KINDS[check.passed], check.message


def _text(value: str) -> str:
    """Without characters that XML cannot hold: a file name may have any."""
    return _FORBIDDEN.sub("\ufffd", value)
