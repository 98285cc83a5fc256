"""JUnit XML: what CI systems count, whatever is in the names."""

from typing import Any
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from tofe_export.verify.junit import to_junit


def document(**fields: Any) -> dict[str, Any]:
    checks = [
        {"name": "stage 0", "passed": True, "message": ""},
        {"name": "stage 1", "passed": False, "message": "It differs."},
        {"name": "weights", "passed": None, "message": "It does not say."},
    ]
    return {"model": "a.onnx", "passed": False, "checks": checks} | fields


def test_cases_failures_and_what_could_not_be_checked() -> None:
    root = ElementTree.fromstring(to_junit([document(), document(model="b.onnx")]))
    assert {name: root.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6", "failures": "2", "errors": "0", "skipped": "2",
    }  # fmt: skip
    suite = root[0]
    assert [case.get("name") for case in suite] == ["stage 0", "stage 1", "weights"]
    assert [child.tag for case in suite for child in case] == ["failure", "skipped"]
    assert suite[1][0].get("message") == "It differs."


def test_an_artefact_that_cannot_be_used_is_an_error_and_one_that_cannot_run_is_skipped() -> None:
    error = {"message": "No.", "next_step": "Do this.", "exit_code": 2}
    for passed, tag in ((False, "error"), (None, "skipped")):
        root = ElementTree.fromstring(to_junit([{"model": "x", "passed": passed, "error": error}]))
        (case,) = root[0]
        assert case[0].tag == tag
        assert case[0].text == "No. Do this."


@given(name=st.text(), message=st.text())
def test_any_name_and_message_give_well_formed_xml(name: str, message: str) -> None:
    checks = [{"name": name, "passed": False, "message": message}]
    root = ElementTree.fromstring(to_junit([document(model=name, checks=checks)]))
    assert root.get("failures") == "1"
