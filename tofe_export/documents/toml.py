"""What recipes in TOML files share: tables in which an unknown key is a mistake, and errors in the user's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from tofe_export.documents.base import Part, reason_of
from tofe_export.errors import InputError, brief, nearest
from tofe_export.files.names import expanded, readable
from tofe_export.files.reading import read_toml, require_file


class Table(Part):
    """A table of a recipe. A key nobody knows is a mistake here: the user wrote it."""

    model_config = ConfigDict(extra="forbid")


AnyTable = TypeVar("AnyTable", bound=Part)


@dataclass(frozen=True)
class Shelf:
    """The recipes of one kind that come with the program.

    Attributes:
        files: by name.
        example: the one to compare another with.
        missing: what to do where a key without a default is missing.
    """

    files: Mapping[str, Path]
    example: str
    missing: str = "Add it."

    def read(self, kind: type[AnyTable], recipe: Path | str) -> AnyTable:
        """The recipe in a file, or a shipped one by its name.

        Raises:
            InputError: no such recipe, not TOML, or a key or value that cannot be used, named.
        """
        path, named = own_file(recipe), ", ".join(self.files)
        if path is None:
            if str(recipe) not in self.files:
                raise InputError(
                    f"There is no recipe {str(recipe)!r}.",
                    f"Name a .toml file, or one of: {named or 'none'}.",
                    code="recipe-unknown",
                    name=str(recipe),
                )
            path = self.files[str(recipe)]
        require_file(path, f"Recipes that come with the program: {named}.")
        return parse_tables(kind, read_toml(path, f"Compare it with {self.example}."), path, self.missing)


def own_file(recipe: Path | str) -> Path | None:
    """The user's own file that `recipe` names; None where it names a shipped one."""
    path = expanded(str(recipe))
    return path if path.suffix == ".toml" else None


def parse_tables(kind: type[AnyTable], tables: Mapping[str, object], path: Path, missing: str) -> AnyTable:
    """A recipe from the tables of a TOML file; its `name` is that of the file.

    Raises:
        InputError: a key or value that cannot be used, named; `missing` says what to do where a key is missing.
    """
    if "name" in tables:
        raise _unknown("name", kind, kind, path)
    try:
        return kind.model_validate({"name": readable(path.stem), **tables})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise _refusal(first, kind, path, missing) from None


def _refusal(problem: ErrorDetails, kind: type[Part], path: Path, missing: str) -> InputError:
    """The first thing that is wrong with a recipe."""
    place = problem["loc"]
    key, reason, value = ".".join(map(str, place)), reason_of(problem), brief(problem["input"])
    if problem["type"] == "extra_forbidden":
        return _unknown(key, kind, _table_at(kind, place[:-1]), path)
    if problem["type"] == "missing":
        return InputError(f"{path} has no {key}.", missing, code="recipe-missing-key", path=path, key=key)
    # A check of a whole table names the key itself.
    wrong = f"{key} is {value}, but {reason}" if reason.startswith("it should") else f"{key}.{reason}"
    return InputError(f"{path}: {wrong}.", "Correct the recipe.", code="recipe-value", path=path, key=key)


def _unknown(key: str, kind: type[Part], table: type[BaseModel], path: Path) -> InputError:
    known = [name for name in table.model_fields if (table, name) != (kind, "name")]
    return InputError(
        f"{path} has the unknown key {key}.",
        f"Did you mean {nearest(key.rpartition('.')[2], known)}?",
        code="recipe-unknown-key",
        path=path,
        key=key,
    )


def _table_at(kind: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel]:
    """The class of the table of a recipe that lies at `place`; the recipe's own for the empty place."""
    for name in place:
        inner = kind.model_fields[str(name)].annotation
        assert isinstance(inner, type)
        kind = inner
    return kind
