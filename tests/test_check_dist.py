"""tools/check_dist.py accepts what a build must hold, and names what is missing or too much."""

from tools.check_dist import ROOT, faults, sources, version

WHEEL = {*sources(), f"tofe_export-{version()}.dist-info/METADATA"}
SDIST = {f"tofe_export-{version()}/{name}" for name in (*sources().values(), "pyproject.toml", "README.md", "LICENSE")}


def test_the_version_is_the_packages() -> None:
    from tofe_export import __version__

    assert version() == __version__
    assert __version__ not in (ROOT / "pyproject.toml").read_text()


def test_a_complete_build_passes() -> None:
    assert faults(WHEEL, SDIST | {f"tofe_export-{version()}/tests/test_doctor.py"}, version()) == []


def test_what_is_missing_or_too_much_is_named() -> None:
    for name in ("tofe_export/py.typed", "tofe_export/calibration/digits.toml", "tofe_plugins/cuda/token_partition.cu"):
        assert faults(WHEEL - {name}, SDIST, version()) == [f"the wheel lacks {name}"]
    assert faults(WHEEL | {"tests/__init__.py"}, SDIST, version()) == ["the wheel should not hold tests/__init__.py"]
    (recipe,) = [name for name in SDIST if name.endswith("calibration/digits.toml")]
    assert faults(WHEEL, SDIST - {recipe}, version()) == [f"the sdist lacks {recipe}"]
