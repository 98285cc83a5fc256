"""JUnit XML, as CI systems read it: a suite per artifact, a case per check."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from tofe_export.documents.verification import Verification, Verifications

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2
_KINDS = {True: "", False: "failure", None: "skipped"}


def to_junit(verifications: Verifications) -> str:
    """The result of verify as JUnit XML.

    A check that could not be made is a skipped case, an artifact that could not be opened an error.
    """
    root = ElementTree.Element("testsuites", name="tofe-export verify")
    for verification in verifications.artifacts:
        _add_suite(root, verification)
    for total in ("tests", "failures", "errors", "skipped"):
        root.set(total, str(sum(int(suite.get(total, "0")) for suite in root)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add_suite(root: ElementTree.Element, verification: Verification) -> None:
    name = _text(verification.model)
    suite = ElementTree.SubElement(root, "testsuite", name=name)
    cases = list(_cases(verification))
    for case_name, kind, message in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=name, name=_text(case_name))
        if kind:
            ElementTree.SubElement(case, kind, message=_text(message)).text = _text(message)
    suite.set("tests", str(len(cases)))
    for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case_kind == kind for _, case_kind, _ in cases)))


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
