"""What tools/site_hooks.py adds to the documentation's site, and what it refuses."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("mkdocs", reason="the documentation's packages are not installed: pip install '.[docs]'")

from mkdocs.config import load_config
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files

from tools import site_hooks


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://example.org/x.js"></script>'),
        ("a.html", "<img alt=x src=//example.org/x.png>"),
        ("a.html", '<link rel="stylesheet" href="https://example.org/x.css">'),
        ("a.html", '<link rel="preconnect" href="https://example.org" crossorigin>'),
        ("a.css", '@import "https://example.org/x.css";'),
        ("a.css", "body { background: url(https://example.org/x.png) }"),
    ],
)
def test_a_page_that_loads_from_another_host_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PluginError, match=r"example\.org"):
        site_hooks.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))


def test_links_to_other_hosts_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="https://example.org">x</a><img src="b.png"><link rel=icon href="c.png">')
    (tmp_path / "a.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    site_hooks.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))


def test_every_verb_and_its_options_are_documented_as_text() -> None:
    page = site_hooks.command_line()
    assert "## `tofe-export verify`" in page
    assert "`--budget " in page
    assert r"vit\_\*" in page


def test_fields_of_a_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_hooks, "ROOT", tmp_path)
    assert site_hooks.schemas() == "No schema has been generated yet."
    row = {"properties": {"name": {"type": ["string", "null"], "description": "a | b"}}}
    rows = {"type": "array", "items": {"$ref": "#/$defs/Row"}}
    schema = {"title": "Benchmark", "properties": {"rows": rows}, "required": ["rows"], "$defs": {"Row": row}}
    (tmp_path / "docs/schemas").mkdir(parents=True)
    (tmp_path / "docs/schemas/bench.json").write_text(json.dumps(schema))
    page = site_hooks.schemas()
    assert "| `rows` | list of Row | yes |  |" in page
    assert r"| `name` | string or null |  | a \| b |" in page


def test_the_page_that_runs_a_model_is_part_of_the_site_where_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(str(site_hooks.ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"))
    config.plugins._current_plugin = "hooks"  # MkDocs says so itself while it builds
    monkeypatch.setattr(site_hooks, "LIVE", tmp_path / "live")

    def shown() -> tuple[str, set[str]]:
        files = site_hooks.on_files(Files([]), config)
        page = SimpleNamespace(file=SimpleNamespace(src_uri="serving.md"))
        text = site_hooks.on_page_markdown("Before\n\n<!-- live page -->\n", page, config, files)
        return text, {file.dest_uri for file in files if file.src_uri.startswith("live/")}

    assert shown() == ("Before\n\n<!-- live page -->\n", set())
    (tmp_path / "live" / "ort").mkdir(parents=True)
    (tmp_path / "live" / "index.html").write_text("page")
    (tmp_path / "live" / "ort" / "ort.mjs").write_text("runtime")
    text, files = shown()
    assert "(live/index.html)" in text
    assert files == {"live/index.html", "live/ort/ort.mjs"}
