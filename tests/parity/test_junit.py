"""JUnit XML: what CI systems count, whatever is in the names."""

from typing import Any
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from tofe_export.documents.images import ImagesRead
from tofe_export.documents.verification import Check, Problem, Verification, Verifications
from tofe_export.parity.junit import to_junit

CHECKS = (
    Check(name="stage 0", passed=True),
    Check(name="stage 1", passed=False, message="It differs."),
    Check(name="weights", passed=None, message="It does not say."),
)


def verification(**fields: Any) -> Verification:
    empty = {"samples": 0, "top1_agreement": None, "logits": None, "stages": (), "failures": ()}
    return Verification(**{"model": "a.onnx", "passed": False, "checks": CHECKS, **empty, **fields})


def xml_of(*artifacts: Verification) -> ElementTree.Element:
    return ElementTree.fromstring(to_junit(Verifications.of(list(artifacts), "ckpt.pth", ImagesRead())))


def test_cases_failures_and_what_could_not_be_checked() -> None:
    root = xml_of(verification(), verification(model="b.onnx"))
    assert {name: root.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6", "failures": "2", "errors": "0", "skipped": "2",
    }  # fmt: skip
    suite = root[0]
    assert [case.get("name") for case in suite] == ["stage 0", "stage 1", "weights"]
    assert [child.tag for case in suite for child in case] == ["failure", "skipped"]
    assert suite[1][0].get("message") == "It differs."


def test_an_artifact_that_cannot_be_used_is_an_error_and_one_that_cannot_run_is_skipped() -> None:
    problem = Problem(message="No.", next_step="Do this.", exit_code=2)
    for passed, tag in ((False, "error"), (None, "skipped")):
        (case,) = xml_of(verification(model="x", passed=passed, checks=(), error=problem))[0]
        assert case[0].tag == tag
        assert case[0].text == "No. Do this."


@given(name=st.text(min_size=1), message=st.text())
def test_any_name_and_message_give_well_formed_xml(name: str, message: str) -> None:
    root = xml_of(verification(model=name, checks=(Check(name=name, passed=False, message=message),)))
    assert root.get("failures") == "1"
