"""The quickest sensible call of each verb on the kit's files; hostile cases change one thing about it."""

from __future__ import annotations

from tests.hostile.case import Case

SMALL = "img_size=32,patch_size=8,embed_dim=32,depth=4,num_heads=2"
TUNE = (
    *("tune", "small.pth", "--macs", "0.9", "--data", "images", "--samples", "4", "--rounds", "1", "--processes", "1"),
    *("--threads", "1"),
)
_BASIC: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    # arguments, kit, writes
    "doctor": (("doctor",), (), ()),
    "demo": (("demo", "-o", "demo"), (), ("demo", "demo/*")),
    "train": (
        (
            *("train", "--data", "images", "-o", "new", "--backbone", "vit_tiny_patch16_224"),
            *("--backbone-args", SMALL, "--epochs", "1", "--dense-epochs", "0", "--batch-size", "4", "--device", "cpu"),
        ),
        ("images",),
        ("new", "new/ckpt.pth", "new/state.pt", "new/metrics.jsonl", "new/steps.jsonl"),
    ),
    "tune": (TUNE, ("small.pth", "images"), ("tune.json", "tune.png", "tune.json.unfinished")),
    "onnx": (("onnx", "ck.pth", "-o", "out.onnx", "--data", "images"), ("ck.pth", "images"), ("out.onnx*",)),
    "optimize": (
        ("optimize", "model.onnx", "--data", "images"),
        ("model.onnx", "model.onnx.json", "images"),
        tuple(
            f"model.{target}.onnx{ending}" for target in ("any", "onnxruntime", "openvino") for ending in ("", ".json")
        ),
    ),
    "quantize": (
        ("quantize", "model.onnx", "--recipe", "few.toml", "--samples", "4", "--rounds", "1", "--processes", "1"),
        ("model.onnx", "model.onnx.json", "few.toml", "images"),
        ("model.int8.onnx", "model.int8.onnx.json"),
    ),
    "trt": (
        ("trt", "model.onnx", "--backend", "rtx", "--batch", "1:1:2"),
        ("model.onnx", "model.onnx.json"),
        ("model.engine", "model.engine.json"),
    ),
    "verify": (
        ("verify", "model.onnx", "--against", "ck.pth", "--data", "images", "--samples", "4", "--no-threshold"),
        ("model.onnx", "model.onnx.json", "ck.pth", "images"),
        (),
    ),
    "bench": (
        ("bench", "model.onnx", "--batch", "1", "--rounds", "1", "--processes", "1", "--threads", "1"),
        ("model.onnx", "model.onnx.json"),
        (),
    ),
    "predict": (
        ("predict", "model.onnx", "images", "--token-map", "map.png"),
        ("model.onnx", "model.onnx.json", "images"),
        ("map.png",),
    ),
    "inspect": (("inspect", "model.onnx"), ("model.onnx", "model.onnx.json"), ()),
    "report": (("report", "run", "--images", "1"), ("run",), ("run/report.html",)),
}


def basic(family: str, verb: str, what: str, *more: str | bytes, **changes: object) -> Case:
    """The quickest call of `verb` with `more` behind it; `changes` replace fields of the case.

    `kit` and `writes` that are given are added to those of the verb; `instead` maps arguments to others.
    """
    arguments, kit, writes = _BASIC[verb]
    instead = changes.pop("instead", {})
    assert isinstance(instead, dict)
    assert set(instead) <= set(arguments), f"{what}: {instead} not in {arguments}"
    return Case(
        family,
        verb,
        what,
        (*(instead.get(part, part) for part in arguments), *more),
        kit=(*kit, *changes.pop("kit", ())),  # type: ignore[misc]
        writes=(*writes, *changes.pop("writes", ())),  # type: ignore[misc]
        **changes,  # type: ignore[arg-type]
    )
