"""What MkDocs builds from the program itself: the command line, the documents' schemas, and files that pages link to.

The pages of docs/ are also read on GitHub, so they link to files of the repository by relative paths, and hold
a comment where the site has generated text.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
LIVE = ROOT / "build" / "live"  # `make live` fills it
# Pages that GitHub expects beside the code.
PAGES = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_RELATIVE = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s]+)")
_OUTSIDE = re.compile(r"(?<=\]\()\.\./([^)#\s]+)")
_ON_GITHUB = re.compile(r"^On GitHub .*?\n\n", re.DOTALL | re.MULTILINE)  # what only the reader there needs to know
_HELP = re.compile(r"^(\* `[^`\n]*`: )([^`\n]*)$", re.MULTILINE)  # a help text, which is not Markdown: `vit_*, deit_*`
# Elements that load what they name; a link (<a href>) does not.
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|srcset|data)=["']?(?:https?:)?//[^>]*"""
    r"""|<link\b(?![^>]*rel=["']?(?:canonical|next|prev))[^>]*?href=["']?(?:https?:)?//[^>]*"""
)
_LOADED_BY_CSS = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])(?:https?:)?//[^)\s]*""")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages beside docs/, every other file that a page links to, and the page that runs a model."""
    for source, target in PAGES.items():
        text = _RELATIVE.sub(r"../\1", (ROOT / source).read_text(encoding="utf-8")).replace("](../docs/", "](")
        files.append(File.generated(config, target, content=text))
    linked = {target for page in files.documentation_pages() for target in _OUTSIDE.findall(page.content_string)}
    for target in sorted(linked - set(PAGES)):
        if not (ROOT / target).is_file():
            raise PluginError(f"A page links to {target}, which is not a file of the repository.")
        files.append(File.generated(config, _copy(target), abs_src_path=str(ROOT / target)))
    for path in sorted(path for path in LIVE.rglob("*") if path.is_file()):
        files.append(File.generated(config, f"live/{path.relative_to(LIVE).as_posix()}", abs_src_path=str(path)))
    return files


def _copy(target: str) -> str:
    return "files/" + target.removeprefix(".")  # MkDocs leaves hidden files out


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links to files at their copies, and puts generated text in the place of its comment."""

    def copied(link: re.Match[str]) -> str:
        target = PAGES.get(link[1]) or _copy(link[1])
        return posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")

    text = _ON_GITHUB.sub("", _OUTSIDE.sub(copied, markdown))
    if files.get_file_from_path("live/index.html"):
        text = text.replace(
            "<!-- live page -->",
            "[**Try it here**](live/index.html), with the demo's network on digits (from a server, not from a file).",
        )
    if "<!-- command line -->" in text:
        text = text.replace("<!-- command line -->", command_line())
    if "<!-- schemas -->" in text:
        text = text.replace("<!-- schemas -->", schemas())
    return text


def on_post_build(config: MkDocsConfig) -> None:
    """Fails where a page would load something from another host."""
    site = Path(config.site_dir)
    patterns = {".html": _LOADED, ".css": _LOADED_BY_CSS, ".svg": _LOADED_BY_CSS}
    for file in sorted(site.rglob("*")):
        pattern = patterns.get(file.suffix)
        found = pattern.search(file.read_text(encoding="utf-8")) if pattern else None
        if found:
            raise PluginError(f"{file.relative_to(site)} would load something from another host: {found[0]}")


def command_line() -> str:
    """Every verb with its arguments and options, by typer itself."""
    paths = [str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "typer", "tofe_export.cli.app", "utils", "docs", "--name", "tofe-export"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PluginError(f"typer could not document the command line:\n{done.stderr}")
    _, _, verbs = done.stdout.partition("\n## ")
    escaped = _HELP.sub(lambda line: line[1] + re.sub(r"[*_\[\]]", r"\\\g<0>", line[2]), "## " + verbs)
    return escaped.replace("\n$ tofe-export", "\ntofe-export")


def schemas() -> str:
    """One section per schema in docs/schemas: its title, its file and its fields."""
    found = sorted((ROOT / "docs/schemas").glob("*.json"))
    if not found:
        return "No schema has been generated yet."
    return "\n\n".join(_schema(file.name, json.loads(file.read_text(encoding="utf-8"))) for file in found)


def _schema(name: str, schema: dict[str, Any]) -> str:
    parts = [f"### {schema.get('title', name)}", schema.get("description", ""), f"Schema: [{name}](schemas/{name})"]
    parts.append(_fields(schema))
    for part, definition in schema.get("$defs", {}).items():
        if "properties" in definition:
            parts += [f"#### {part}", definition.get("description", ""), _fields(definition)]
    return "\n\n".join(parts)


def _fields(schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        f"| `{field}` | {_type(value)} | {'yes' if field in required else ''} | {_cell(value.get('description', ''))} |"
        for field, value in schema.get("properties", {}).items()
    ]
    return "\n".join(["| field | type | required | meaning |", "|---|---|---|---|", *rows])


def _type(value: dict[str, Any]) -> str:
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if "$ref" in value:
        return str(value["$ref"].rsplit("/", 1)[-1])
    if "items" in value and isinstance(value["items"], dict):
        return f"list of {_type(value['items'])}"
    if "anyOf" in value:
        return " or ".join(_type(choice) for choice in value["anyOf"])
    kind = value.get("type", "any")
    return kind if isinstance(kind, str) else " or ".join(kind)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
