"""A check: a name, a verdict and, where it did not hold, a sentence. Terminal, JSON and JUnit show the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: `stage 0`, `logits`, `manifest`, ...
        passed: None where it could not be looked at; `message` then says why.
        message: "" when it passed.
    """

    name: str
    passed: bool | None
    message: str = ""

    @classmethod
    def of(cls, name: str, problems: list[str]) -> Check:
        """Passed when there is no problem."""
        return cls(name, not problems, " ".join(problems))

    def to_dict(self) -> dict[str, Any]:
        """An entry of `checks` in verify.json."""
        return {"name": self.name, "passed": self.passed, "message": self.message}


def stage_check_name(stage: int) -> str:
    """What a stage's check is called."""
    return f"stage {stage}"
