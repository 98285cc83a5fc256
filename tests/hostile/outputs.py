"""Outputs onto everything that is no place for them."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.hostile.case import ANY, FINE, REFUSED, Case, Skip, Surroundings
from tests.hostile.commands import basic

_RUNS = FINE | REFUSED
_NOT_WRITTEN = frozenset({2, 3})
# (verb, option) -> a name that fits it; everything a verb can be asked to write
_OPTIONS: dict[tuple[str, str], str] = {
    ("onnx", "-o"): "new.onnx",
    ("optimize", "-o"): "new.onnx",
    ("tune", "-o"): "new.json",
    ("quantize", "-o"): "new.onnx",
    ("quantize", "--json"): "new.json",
    ("quantize", "--cache"): "new.npz",
    ("trt", "-o"): "new.engine",
    ("verify", "--json"): "new.json",
    ("verify", "--junit"): "new.xml",
    ("bench", "--json"): "new.json",
    ("report", "-o"): "new.html",
    ("report", "--figures"): "figures",
    ("train", "-o"): "folder",
    ("demo", "-o"): "folder",
}
_FOLDERS = (("report", "--figures"), ("train", "-o"), ("demo", "-o"))


def _precious(work: Path) -> None:
    (work / "precious").mkdir()
    (work / "precious" / "thesis.txt").write_text("three years of work")


def cases() -> Iterator[Case]:
    """All of this family."""
    for (verb, option), name in _OPTIONS.items():
        yield from _places(verb, option, name)
        yield from _special(verb, option, name)
    yield from _onto_inputs()
    yield from _full()
    yield from _runs()
    yield from _beside_a_tuning()


def _write(verb: str, option: str, name: str, what: str, **changes: object) -> Case:
    return basic("outputs", verb, f"{option} {what}", option, name, **changes)


def _places(verb: str, option: str, name: str) -> Iterator[Case]:
    """Paths that cannot be files of that name."""
    folder = (verb, option) in _FOLDERS
    if not folder:
        yield _write(
            verb, option, name, "onto a folder", codes=REFUSED,
            prepare=lambda work: ((work / name).mkdir(), (work / name / "inside").write_text("x")),
        )  # fmt: skip
    inside = f"file.txt/{name}"
    yield _write(
        verb, option, inside, "below a file", codes=REFUSED, prepare=lambda work: (work / "file.txt").write_text("x")
    )
    yield _write(verb, option, f"/proc/nowhere/{name}", "below /proc", codes=_NOT_WRITTEN)
    yield _write(verb, option, f"/sys/{name}", "below /sys", codes=_NOT_WRITTEN)
    yield _write(verb, option, "n" * 260 + Path(name).suffix, "with a name of 260 letters", codes=_NOT_WRITTEN)
    yield _write(verb, option, "d/" * 2500 + name, "with a path of 5,000 letters", codes=_NOT_WRITTEN)
    yield _write(
        verb, option, name, "onto a link to itself", codes=REFUSED, prepare=lambda work: (work / name).symlink_to(name)
    )
    yield _write(
        verb, option, f"locked/{name}", "into a folder that may not be written", codes=REFUSED, prepare=_locked_folder,
    )  # fmt: skip
    if folder:
        yield _write(
            verb, option, "file.txt", "onto a file", codes=REFUSED,
            prepare=lambda work: (work / "file.txt").write_text("x"),
        )  # fmt: skip


def _locked_folder(work: Path) -> None:
    (work / "locked").mkdir()
    (work / "locked").chmod(0o500)


def _special(verb: str, option: str, name: str) -> Iterator[Case]:
    """What is no regular file: followed, written to, or refused, but never replaced."""
    if (verb, option) in _FOLDERS:
        return
    artefact = option == "-o" and verb not in ("report", "tune")
    manifest = [f"{name}.json"] if artefact else ["new.png", f"{name}.unfinished"] if verb == "tune" else []
    yield _write(
        verb, option, name, "onto a link to a file", codes=_RUNS, writes=("other/real*", *manifest),
        prepare=lambda work: (
            (work / "other").mkdir(), (work / "other/real").write_text("old"), (work / name).symlink_to("other/real")
        ),
    )  # fmt: skip
    yield _write(
        verb, option, name, "onto a link to nothing", codes=_RUNS, writes=("nowhere*", *manifest),
        prepare=lambda work: (work / name).symlink_to("nowhere"),
    )  # fmt: skip
    yield _write(
        verb, option, name, "onto a device", codes=_RUNS, writes=(*manifest,), prepare=lambda work: _null(work / name)
    )
    yield _write(
        verb, option, name, "onto a FIFO that is read", codes=_RUNS, writes=(*manifest,),
        prepare=lambda work: _read_fifo(work / name), seconds=90,
    )  # fmt: skip
    if option in ("--json", "--junit"):
        yield _write(verb, option, "/dev/stdout", "to /dev/stdout", codes=_RUNS)
        yield _write(verb, option, "/dev/null", "to /dev/null", codes=_RUNS)
        yield _write(verb, option, "/dev/full", "to /dev/full", codes=_NOT_WRITTEN | {1})
        yield _write(verb, option, "-", "to -", codes=_RUNS, writes=("-",))
    yield _write(
        verb, option, name, "onto a hard link", codes=_RUNS, writes=(name, *manifest), prepare=lambda work: (
            (work / "kept").write_text("old"), os.link(work / "kept", work / name)
        ),
    )  # fmt: skip
    yield _write(
        verb, option, f"new/folders/that/are/not/{name}", "into new folders", codes=_RUNS,
        writes=("new*", "new/*"),
    )  # fmt: skip


def _null(path: Path) -> None:
    try:
        os.mknod(path, 0o666 | 0o020000, os.makedev(1, 3))
    except PermissionError as error:
        raise Skip("only root makes devices") from error


def _read_fifo(path: Path) -> None:
    """A FIFO with a reader that reads all its life."""
    os.mkfifo(path)
    if os.fork() == 0:
        try:
            import signal

            signal.alarm(60)
            with path.open("rb") as file:
                while file.read(65536):
                    pass
        finally:
            os._exit(0)


_INPUTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("onnx", "-o", ("ck.pth", "images", "./ck.pth")),
    ("optimize", "-o", ("model.onnx", "link.onnx", "hard.onnx", "images", "model.onnx.json")),
    ("tune", "-o", ("small.pth", "images", "images/dark/0.png", "images/dark/0.json")),
    ("quantize", "-o", ("model.onnx", "link.onnx")),
    ("quantize", "--json", ("model.onnx", "model.onnx.json", "few.toml", "model.int8.onnx", "link.onnx")),
    ("quantize", "--json", ("model.int8.onnx.json",)),
    ("quantize", "--cache", ("model.onnx", "model.onnx.json", "model.int8.onnx", "new.json")),
    ("trt", "-o", ("model.onnx", "model.onnx.json", "ck.pth", "link.onnx", "images")),
    ("trt", "--timing-cache", ("model.onnx",)),
    ("verify", "--json", ("model.onnx", "model.onnx.json", "ck.pth", "link.onnx", "hard.onnx", "new.xml")),
    ("verify", "--junit", ("model.onnx", "model.onnx.json", "ck.pth", "images/dark/0.png")),
    ("bench", "--json", ("model.onnx", "model.onnx.json", "bench.json", "link.onnx")),
    ("report", "-o", ("run/ckpt.pth", "run/model.onnx", "run/model.onnx.json", "run/verify.json", "run/metrics.jsonl")),
    ("report", "--figures", ("run/ckpt.pth", "run/report.html")),
    ("train", "-o", ("images", "images/dark", "images/dark/0.png", "ck.pth")),
)  # fmt: skip
_TOO: dict[tuple[str, str], tuple[str, ...]] = {
    ("quantize", "new.json"): ("--json", "new.json"),
    ("verify", "new.xml"): ("--junit", "new.xml"),
    ("bench", "bench.json"): ("--baseline", "bench.json"),
    ("train", "ck.pth"): ("--init", "ck.pth"),
}


def _onto_inputs() -> Iterator[Case]:
    def links(work: Path) -> None:
        if (work / "model.onnx").exists():
            (work / "link.onnx").symlink_to("model.onnx")
            os.link(work / "model.onnx", work / "hard.onnx")

    for verb, option, files in _INPUTS:
        for file in files:
            kit = [] if verb == "report" else ["ck.pth", "images"]
            kit += ["bench.json"] if file == "bench.json" else []
            more = _TOO.get((verb, file), ())
            among_images = (verb, option) == ("train", "-o") and file in ("images", "images/dark")
            fine = among_images or (verb, option, file) == ("report", "--figures", "run/report.html")
            case = _write(
                verb, option, file, f"onto {file}" + (" too" if more else ""), kit=tuple(kit), prepare=links,
                codes=_RUNS if fine or file.startswith(("link", "hard")) else REFUSED,
            )  # fmt: skip
            protected = tuple(pattern for pattern in case.writes if Path(file).name != pattern)
            if among_images:  # nothing of them is replaced
                protected = tuple(f"{file}/{name}" for name in ("ckpt.pth", "state.pt", "metrics.jsonl", "steps.jsonl"))
            yield case.but(arguments=(*case.arguments, *more), writes=protected)
    yield basic(
        "outputs", "onnx", "the default model.onnx of another export", instead={"out.onnx": "model.onnx"},
        kit=("model.onnx", "model.onnx.json"), writes=("model.onnx", "model.onnx.json"), codes=FINE,
    )  # fmt: skip
    yield basic(
        "outputs", "onnx", "beside somebody else's JSON", codes=_RUNS, writes=(),
        prepare=lambda work: (work / "out.onnx.json").write_text('{"mine": true}'),
    )  # fmt: skip
    for verb, artefact in (
        ("quantize", "model.int8.onnx"),
        ("optimize", "model.onnxruntime.onnx"),
        ("trt", "model.engine"),
        ("onnx", "out.onnx"),
    ):
        yield basic(
            "outputs", verb, "with a folder where the manifest goes", codes=REFUSED,
            prepare=lambda work, artefact=artefact: (work / f"{artefact}.json").mkdir(), writes=(),
        ).but(writes=())  # fmt: skip


def _beside_a_tuning() -> Iterator[Case]:
    """The picture and what is not finished, which lie beside the file that is named; and an earlier result."""

    def picture(name: str) -> Callable[[Path], object]:
        return lambda work: (work / name).write_bytes((work / "images/dark/0.png").read_bytes())

    for what, prepare in {
        "somebody's picture": picture("tune.png"),
        "somebody's photo": lambda work: (work / "tune.png").write_bytes(b"\xff\xd8\xff\xe0" + bytes(900)),
        "a folder": lambda work: (work / "tune.png").mkdir(),
        "a link to somebody's picture": lambda work: (work / "tune.png").symlink_to("images/dark/0.png"),
        "a link to the checkpoint": lambda work: (work / "tune.png").symlink_to("small.pth"),
        "a checkpoint": lambda work: (work / "small.pth").rename(work / "tune.png") and _copied(work),
    }.items():
        yield basic("outputs", "tune", f"{what} where its picture goes", prepare=prepare, codes=REFUSED)
    yield basic("outputs", "tune", "a device where its picture goes", prepare=lambda work: _null(work / "tune.png"),
                codes=_RUNS)  # fmt: skip
    yield basic("outputs", "tune", "its picture of before", kit=("tune.json", "tune.png"), codes=FINE,
                check=_new_picture)  # fmt: skip
    yield basic("outputs", "tune", "onto a write-protected result", kit=("tune.json",), codes=REFUSED,
                prepare=lambda work: (work / "tune.json").chmod(0o444))  # fmt: skip
    yield basic("outputs", "tune", "onto a result of bench", kit=("bench.json>tune.json",), codes=REFUSED)
    yield basic("outputs", "tune", "onto a result of other settings", "--macs", "0.5", kit=("tune.json",), codes=FINE)
    yield basic("outputs", "tune", "a result of bench where what is not finished goes", codes=REFUSED,
                kit=("bench.json>tune.json.unfinished",))  # fmt: skip
    yield basic("outputs", "tune", "a folder where what is not finished goes", codes=REFUSED,
                prepare=lambda work: (work / "tune.json.unfinished").mkdir())  # fmt: skip
    yield basic(
        "outputs", "tune", "an earlier result, and images that are all broken", kit=("tune.json",), codes=REFUSED,
        prepare=lambda work: [path.write_bytes(b"x") for path in (work / "images").rglob("*.png")],
    )  # fmt: skip
    yield basic("outputs", "tune", "into the folder of its images", "-o", "images/dark/0.json", codes=REFUSED)
    yield basic("outputs", "tune", "-o that ends in .png", "-o", "new.png", codes=REFUSED)


def _copied(work: Path) -> None:
    (work / "small.pth").write_bytes((work / "tune.png").read_bytes())


def _new_picture(work: Path, _: str) -> Iterator[str]:
    if not (work / "tune.png").read_bytes().startswith(b"\x89PNG"):
        yield "the picture is none"


def _full() -> Iterator[Case]:
    """A disk that is full, as RLIMIT_FSIZE shows it; what was there before must stay."""
    for verb, names in {
        "onnx": ("out.onnx", "out.onnx.json"),
        "optimize": ("model.onnxruntime.onnx", "model.onnxruntime.onnx.json"),
        "tune": ("tune.json", "tune.png"),
        "quantize": ("model.int8.onnx", "model.int8.onnx.json"),
        "trt": ("model.engine", "model.engine.json"),
        "train": ("new/ckpt.pth",),
        "report": ("run/report.html",),
    }.items():
        for size in (0, 20_000, 150_000):
            limits = {resource.RLIMIT_FSIZE: size}
            yield basic(
                "outputs", verb, f"files of at most {size} bytes", around=Surroundings(limits=limits),
                prepare=lambda work, names=names: _old(work, names), codes=ANY,
            )  # fmt: skip
    for option, name in (("--json", "new.json"), ("--junit", "new.xml")):
        yield basic(
            "outputs", "verify", f"{option} of at most 100 bytes", option, name, writes=(name,),
            codes=frozenset({2, 3}),
            prepare=lambda work, name=name: _old(work, (name,)),
            around=Surroundings(limits={resource.RLIMIT_FSIZE: 100}),
        )  # fmt: skip


def _old(work: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text("old")


def _runs() -> Iterator[Case]:
    """Folders of runs that are not empty."""
    yield basic("outputs", "train", "-o into a folder of others", "-o", "precious", prepare=_precious, codes=FINE,
                writes=("precious", "precious/ckpt.pth", "precious/state.pt", "precious/*.jsonl"))  # fmt: skip
    yield basic("outputs", "train", "-o into a run", "-o", "run", kit=("run",), codes=REFUSED)
    yield basic("outputs", "train", "-o into a run without its state", "-o", "run", kit=("run",), codes=REFUSED,
                prepare=lambda work: (work / "run/state.pt").unlink())  # fmt: skip
    yield basic("outputs", "train", "-o with ckpt.pth a folder", codes=REFUSED,
                prepare=lambda work: (work / "new/ckpt.pth").mkdir(parents=True))  # fmt: skip
    yield basic("outputs", "train", "-o with metrics.jsonl a folder", codes=REFUSED,
                prepare=lambda work: (work / "new/metrics.jsonl").mkdir(parents=True))  # fmt: skip
    yield basic("outputs", "report", "--figures into a folder of others", "--figures", "precious", prepare=_precious,
                codes=FINE, writes=("precious", "precious/*.png", "precious/*.svg"))  # fmt: skip
    yield basic("outputs", "report", "onto a page of somebody else", codes=_RUNS, writes=("run/report.html",),
                prepare=lambda work: (work / "run/report.html").write_text("mine"))  # fmt: skip
    for pattern in (".out.onnx.999999-x.part", ".out.onnx.1-x.part", ".out.onnx.notes.part", ".out.onnx.5-.part"):
        yield basic("outputs", "onnx", f"beside {pattern}", codes=FINE, writes=(".out.onnx.999999-x.part",),
                    prepare=lambda work, pattern=pattern: (work / pattern).write_text("of somebody"))  # fmt: skip
