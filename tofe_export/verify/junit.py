"""JUnit XML, as CI systems read it: a suite per artefact, a case per check."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


def to_junit(documents: Sequence[Mapping[str, Any]]) -> str:
    """The documents of verify.json as JUnit XML.

    Args:
        documents: one per artefact; a check that could not be made is a skipped case, an artefact that could not be
            opened an error.
    """
    root = ElementTree.Element("testsuites", name="tofe-export verify")
    for document in documents:
        _suite(root, document)
    for what in ("tests", "failures", "errors", "skipped"):
        root.set(what, str(sum(int(suite.get(what, "0")) for suite in root)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(root: ElementTree.Element, document: Mapping[str, Any]) -> None:
    suite = ElementTree.SubElement(root, "testsuite", name=_text(document["model"]))
    error = document.get("error")
    cases: list[tuple[str, str, str]] = []
    if error is not None:
        # A machine that lacks something says nothing of the model, so that is no failure: it was skipped.
        kind = "skipped" if document["passed"] is None else "error"
        cases.append(("open", kind, f"{error['message']} {error['next_step']}".strip()))
    for check in document.get("checks", ()):
        kind = {True: "", False: "failure", None: "skipped"}[check["passed"]]
        cases.append((check["name"], kind, check["message"]))
    for name, kind, message in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=_text(document["model"]), name=_text(name))
        if kind:
            ElementTree.SubElement(case, kind, message=_text(message)).text = _text(message)
    suite.set("tests", str(len(cases)))
    for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(found == kind for _, found, _ in cases)))


def _text(value: object) -> str:
    """Without characters that XML cannot hold: a file name may have any."""
    return _FORBIDDEN.sub("\ufffd", str(value))
