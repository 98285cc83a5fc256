"""What the operators accept, said in words before anything is compiled."""

from __future__ import annotations

DTYPES = ("float32", "float16", "bfloat16")
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
MAX_PATCHES = 4096


class OperatorError(ValueError):
    """The inputs of an operator do not fit it."""


def check_dtypes(operator: str, dtypes: dict[str, str]) -> None:
    """Raises OperatorError unless every tensor has a type the operator takes.

    Args:
        operator: its name, for the message.
        dtypes: type by tensor ("float16"). Rows (tokens, kept, frozen) share one of float32, float16 and bfloat16;
            scores are float32 and perm int32.
    """
    rows = {name: dtype for name, dtype in dtypes.items() if name in ("tokens", "kept", "frozen")}
    for name, dtype in rows.items():
        if dtype not in DTYPES:
            raise OperatorError(f"{operator} moves rows of {_either(DTYPES)}; {name} is {dtype}.")
    if len(set(rows.values())) > 1:
        found = " and ".join(f"{name} {dtype}" for name, dtype in rows.items())
        raise OperatorError(f"{operator} needs rows of one type; it got {found}.")
    for name, wanted in (("scores", "float32"), ("perm", "int32")):
        if name in dtypes and dtypes[name] != wanted:
            raise OperatorError(f"{operator} takes {name} as {wanted}, not {dtypes[name]}.")


def check_ranks(operator: str, ranks: dict[str, int]) -> None:
    """Raises OperatorError unless rows have rank 3 ([B, rows, C]), scores and perm rank 2 ([B, N])."""
    for name, rank in ranks.items():
        wanted = 2 if name in ("scores", "perm") else 3
        if rank != wanted:
            raise OperatorError(f"{operator} takes {name} with {wanted} axes, not {rank}.")


def check_counts(operator: str, patches: int, keep: int, prefix: int, rows: int) -> None:
    """Raises OperatorError unless 1 <= keep <= N <= 4096, prefix >= 0 and the rows are prefix + N.

    Args:
        operator: its name, for the message.
        patches: N, the length of a row of scores or perm.
        keep: the attribute.
        prefix: the attribute.
        rows: rows per image, prefix rows among them.
    """
    if not 1 <= patches <= MAX_PATCHES:
        raise OperatorError(f"{operator} takes 1 to {MAX_PATCHES} patch tokens, not {patches}.")
    if not 1 <= keep <= patches:
        raise OperatorError(f"{operator} cannot keep {keep} of {patches} patch tokens.")
    if prefix < 0 or rows != prefix + patches:
        raise OperatorError(
            f"{operator} has {rows} rows an image, which are not {prefix} prefix and {patches} patch rows."
        )


def _either(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + " or " + names[-1]
