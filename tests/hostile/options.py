"""Values of options that nobody should type, and some that only look so."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from tests.hostile.case import ANY, FINE, NOT_HERE, REFUSED, VERBS, Case, Surroundings
from tests.hostile.commands import basic

_HUGE = "9" * 30
_RUNS = FINE | REFUSED  # may be refused or taken, but nothing else

# verb -> option -> values that must be refused
_REFUSED: dict[str, dict[str, tuple[str, ...]]] = {
    "onnx": {
        "--keep": (
            *("0,4,2", "8,-1,2", "8,4", "8,4,2,1", "8,,2", "8,4,2,", ",", "", " ", "many", "8;4;2", "0x8,4,2"),
            *("8_0,4,2", f"{_HUGE},4,2", "nan,nan,nan", "0.5,nan,0.2", "0.5,1e400,0.2", "0.0,0.5,0.5",),
            *("0.5,0.5", "1.1,0.5,0.5"),
            *("-0.5,0.5,0.5", "8,4.5,2", "8 4 2", "8,4,2;touch CANARY"),
        ),
        "--img-size": (
            *("0", "0x0", "-32", "32x", "x32", "32x0", "32x32x32", "32.5", "1e2", "33", "1", "999999x999999", "٣٢"),
            *("３２", "32×32", "32 x 32", "nan"),
        ),
        "--outputs": ("", "logits,", "logit", "everything", "LOGITS", "logits;features", "features,,logits"),
        "--rearrange": ("", "Plugin", "plug", "none"),
        "--keep-rate": ("0.5", "nan", "-1", "inf", "half"),
        "--stages": ("3,2,1", "0", "1,1,1", "999", "one", ","),
        "--backbone": ("vit_tny_patch16_224", "resnet50", "", "../../etc/passwd"),
        "--backbone-args": ("img_size", "=1", "img_size=", "img_size=64", "__class__=1", "checkpoint_path=ck.pth"),
        "--selector": ("", "mpl", "cls-attention"),
        "--keep-from": (
            *("nowhere", "ck.pth", "/dev/null", "nowhere.toml", "nowhere.json", ".json"),
            *("~nobody-of-that-name/images", "http://x/y"),
        ),
        "--keep-quantile": ("1.5", "-0.1", "nan", "inf", "1e400", "half", ""),
        "--keep-samples": ("0", "-1", "1.5", "nan", ""),
        "--data": ("nowhere", "digit", "ck.pth", "~nobody-of-that-name", "/dev/null", "-", "x" * 300, "x/" * 3000),
        "-o": ("out.engine", "out", ".onnx/", ""),
    },
    "optimize": {
        "--for": ("", "ort", "tensorrt", "OpenVINO", "onnxruntime,openvino"),
        "--weights": ("", "int4", "INT8"),
        "--data": ("nowhere", "model.onnx", "", "/dev/null"),
        "-o": ("model.onnx", "./model.onnx", "model.onnx.json", "out.engine", "images", ""),
    },
    "tune": {
        "--macs": ("0", "-1", "1.5", "nan", "inf", "1e400", "half", ""),
        "--speedup": ("0", "-1", "nan", "inf", "1e400", "2x", ""),
        "--latency-ms": ("0", "-1", "nan", "inf", "10ms", ""),
        "--for": ("", "tensorrt", "ort"),
        "--batch": ("0", "-1", "1.5", "nan", "1,8", _HUGE, ""),
        "--data": ("nowhere", "small.pth", "", "/dev/null"),
        "--samples": ("0", "-1", "1.5", "nan", _HUGE, ""),
        "--rounds": ("0", "-1", "1.5", "nan", ""),
        "--processes": ("0", "-1", "1001", "nan", ""),
        "--threads": ("0", "-1", "1.5", "all", "1025"),
        "--keep-rate": ("0.5", "nan", "half"),
        "--stages": ("3,2,1", "0,1,2,3", "one"),
        "--img-size": ("0", "33", "huge"),
        "-o": ("tune", "tune.png", "small.pth", "images", ".json", "-", "/dev/null", ""),
    },
    "verify": {
        "--samples": ("0", "-1", "1.5", "nan", "", "1e3"),
        "--tolerance": (
            *("logits_max_abs=nan", "=1", "logits_max_abs=", "logits_max_abs", "logits_max_abs=-1"),
            *("logits_max_abs=1=2", "cosine_min=2", "cosine_min=nan", "fp33.cosine_min=1", "int8.",),
            *(".=1", "", "LOGITS_MAX_ABS=1"),
            *("logits_max_abs=1e-3,cosine_min=0.5", "logits_max_abs=inf%", "logits_max_ab=1"),
        ),
        "--provider": ("", "CPU", "tpu", "cpu,cuda"),
        "--data": ("nowhere", "model.onnx", ""),
        "--against": ("nowhere.pth", "model.onnx", "images", "", "/dev/null"),
    },
    "bench": {
        "--batch": ("0", "-1", "1,,2", "1,", "", "1.5", "nan", "0x1", "1 2", "1:2", "many"),
        "--rounds": ("0", "-1", "1.5", "nan", ""),
        "--processes": ("0", "-1", "1.5", "nan", "1001", ""),
        "--threads": ("0", "-1", "1.5", "nan", "all"),
        "--max-regression": ("5%", "nan", ""),
        "--baseline": ("nowhere.json", "model.onnx", "images.json", "", "/dev/null"),
        "--provider": ("", "CPU", "tpu"),
    },
    "quantize": {
        "--recipe": ("", "digit", "few", "nowhere.toml", "model.onnx", "images", ".toml", "/dev/null"),
        "--data": ("nowhere", "few.toml", "", "/dev/null"),
        "--samples": ("0", "-1", "nan", "2.5"),
        "--rounds": ("0", "-1", "nan"),
        "--processes": ("0", "nan"),
        "-o": ("model.onnx", "q.engine", "./model.onnx", "images"),
        "--cache": ("model.onnx", "few.toml", "images", "images/dark/0.png"),
    },
    "trt": {
        "--batch": (
            *("0:1:2", "2:1:4", "1:2", "1:2:3:4", "a:b:c", "1:1:-1", "", "1::2", "1:1:2.5", "1:nan:2", f"1:1:{_HUGE}"),
            *("-1:1:2", "::"),
        ),
        "--backend": ("", "RTX", "cuda", "trt"),
        "--plugin": ("", "maybe", "on", "ON"),
        "--workspace": ("0", "-1", "1.5", "nan", ""),
        "--hardware-compat": ("", "ampere", "ampere_plus"),
        "--compute-capability": ("abc", "8.6", "9999", "-1", "86,", ",", "86;89"),
        "--timing-cache": ("cache", "model.onnx"),
        "--recipe": ("few.toml",),
        "--data": ("images",),
        "--cache": ("c.npz",),
        "-o": ("model.onnx", "model.onnx.json", "engine.onnx"),
    },
    "predict": {
        "--top": ("0", "-1", "1.5", "nan", "", "five"),
        "--token-map": ("images", "images/dark/0.png", "model.onnx", "map.jpg", "nowhere/map", "-", "/dev/null", ""),
        "--provider": ("", "CPU", "tpu"),
        "--json": ("images", "images/dark/0.png", "model.onnx", ""),
    },
    "inspect": {
        "--keep-rate": ("nan", "-1", "2", "many"),
        "--img-size": ("0", "huge", "32x"),
        "--stages": ("3;2", "one"),
        "--backbone-args": ("a", "=", "a=1,b"),
    },
    "report": {
        "--images": ("-1", "1.5", "nan", ""),
        "--data": ("nowhere", "run/ckpt.pth", "/dev/null"),
    },
    "train": {
        "--epochs": ("0", "-1", "1.5", "nan", ""),
        "--dense-epochs": ("-1", "0.5"),
        "--batch-size": ("0", "-1", "2.5"),
        "--lr": ("0", "-1", "nan", "inf", "1e400", "fast"),
        "--backbone-lr-scale": ("nan", "-1", "inf"),
        "--dense-lr": ("nan", "0", "inf"),
        "--weight-decay": ("nan", "-1", "inf"),
        "--budget": ("0", "1", "-0.5", "nan", "inf", "50%"),
        "--seed": ("-1", "1.5", _HUGE),
        "--workers": ("-1", "1.5", "nan"),
        "--device": ("tpu", "", "mps:7", "meta", "cuda:-1", "CPU"),
        "--selector": ("", "mpl", "cls-attention", "none"),
        "--approximator": ("", "discrad", "fuse"),
        "--stages": ("3,2,1", "-1", "1,1", "100", "0,1,2,3,4", "1;2", "1.5"),
        "--init": ("nowhere.pth", "images", "images/dark/0.png", "/dev/null"),
        "--backbone": (
            *("vit_tny_patch16_224", "resnet18", "", "vit_tiny_patch16_224.no_such_tag", "hf-hub:x/y"),
            "lvvit_x",
        ),
        "--backbone-args": (
            *("img_size", "=1", "img_size=", "img_size=0", "img_size=-32", "img_size=1e400", "img_size=NaN"),
            *("img_size=[1", "img_size={}", "num_classes=3", "num_classes=-1", "depth=0", "depth=-1", "depth=x"),
            *("num_heads=0", "num_heads=7", "embed_dim=0", "embed_dim=34", "patch_size=512", "patch_size=0",),
            *("in_chans=1", "nonsense=1"),
            *("__init__=1", "norm_layer=os.system", "drop_rate=2", "class_token=7"),
            *("img_size=true", "weight_init=no", "embed_dim=999999999", "dynamic_img_size=maybe",),
            *("pretrained_cfg=7", "pretrained=true"),
            "checkpoint_path=images/dark/0.png",
        ),
        "--data": ("nowhere", "images/dark", "images/dark/0.png", "", "photos", "digit"),
    },
}  # fmt: skip

# verb -> option -> values that are taken or refused, as they mean something or nothing
_EITHER: dict[str, dict[str, tuple[str, ...]]] = {
    "onnx": {
        "--keep": ("８,４,２", "+8, 4,2", "8,4,2\n", "1.0,1.0,1.0", "1e-300,.5,.5"),
        "--outputs": ("logits,logits", " logits"),
        "--data": ("~", ".", "images/../images//", "./images"),
    },
    "verify": {
        "--samples": (_HUGE, "１"),
        "--tolerance": ("logits_max_abs=inf", "logits_max_abs=1e400", "logits_max_abs=1e-400", "accuracy_lost=0"),
    },
    "optimize": {"--for": ("any", "openvino"), "--weights": ("int8",), "--data": ("photos", "images/../images//")},
    "tune": {"--for": ("any", "openvino"), "--batch": ("２",), "--speedup": ("1e3",), "--latency-ms": ("1e-3", "1e6")},
    "bench": {"--batch": ("１", "1,1", " 1 ", "+1"), "--threads": ("２",)},
    "train": {
        "--backbone-args": ("global_pool=map",),
        "--lr": ("1e30",),
        "--seed": (str(2**64 - 1), str(2**32)),
        "--batch-size": (_HUGE, str(10**12)),
    },
    "report": {"--data": ("", "photos", "images")},
    "trt": {"--workspace": (str(10**15), _HUGE), "--batch": ("１:１:２", "1:1:100000")},
}
_ONLY_SO_LONG = 60


def cases() -> Iterator[Case]:
    """All of this family."""
    for verb, options in _REFUSED.items():
        for option, values in options.items():
            for value in values:
                yield _with(verb, option, value, NOT_HERE if option == "--provider" else REFUSED)
    for verb, options in _EITHER.items():
        for option, values in options.items():
            for value in values:
                yield _with(verb, option, value, _RUNS | NOT_HERE if verb == "trt" else _RUNS)
    yield from _combinations()
    yield from _usage()
    yield from _expensive()


def _with(verb: str, option: str, value: str, codes: frozenset[int]) -> Case:
    extra: dict[str, object] = {"kit": ("images",)} if verb == "report" and value == "images" else {}
    instead = (
        {"images": value} if option == "--data" and verb in ("train", "tune", "onnx", "optimize", "verify") else {}
    )
    instead |= {"ck.pth": value} if option == "--against" else {}
    instead |= {"--macs": option, "0.9": value} if verb == "tune" and option in ("--speedup", "--latency-ms") else {}
    instead |= {"0.9": value} if (verb, option) == ("tune", "--macs") else {}
    instead |= {"few.toml": value} if (verb, option) == ("quantize", "--recipe") else {}
    instead |= {"model.onnx": "ck.pth"} if verb == "inspect" else {}
    instead |= {"out.onnx": value} if (verb, option) == ("onnx", "-o") else {}
    more = (option, value) if value not in instead.values() else ()
    extra |= {"kit": ("ck.pth",)} if verb == "inspect" else {}
    return basic("options", verb, f"{option} {value[:40]}", *more, codes=codes, instead=instead, **extra)


def _combinations() -> Iterator[Case]:
    """Options that contradict each other, or say the same twice."""
    for verb, more, codes in (
        ("onnx", ("--keep", "8,4,2", "--keep-from", "digits"), REFUSED),
        ("onnx", ("--keep-quantile", "0.5"), REFUSED),
        ("onnx", ("--keep-samples", "5"), REFUSED),
        ("onnx", ("--keep", "8,4,2", "--keep", "0,0,0"), REFUSED),
        ("onnx", ("--keep", "8,4,2", "--keep-rate", "0.5"), REFUSED),
        ("onnx", ("--fuse-token",), REFUSED),
        ("onnx", ("--no-fuse-token", "--fuse-token"), REFUSED),
        ("onnx", ("--rearrange", "elide", "--rearrange", "plugin"), FINE),
        ("onnx", ("--keep-from", "tune.json", "--keep", "2"), REFUSED),
        ("onnx", ("--keep-from", "tune.json", "--keep-quantile", "0.5"), REFUSED),
        ("onnx", ("--inline", "--taps"), FINE),
        ("onnx", ("--inline", "--outputs", "features,logits"), FINE),
        ("onnx", ("--inline", "--rearrange", "elide", "--keep", "16,16,16"), FINE),
        ("optimize", ("--bf16",), REFUSED),
        ("optimize", ("--bf16", "--for", "openvino"), FINE | {3}),
        ("optimize", ("--weights", "int8", "--for", "any"), REFUSED),
        ("optimize", ("--for", "tensorrt", "--for", "any"), FINE),
        ("tune", ("--speedup", "2"), REFUSED),
        ("tune", ("--speedup", "nan", "--latency-ms", "nan"), REFUSED),
        ("tune", ("--macs", "0.001"), frozenset({1})),
        ("quantize", ("--sensitivity", "-o", "x.onnx"), REFUSED),
        ("quantize", ("--recipe", "imagenet"), REFUSED),
        ("quantize", ("--recipe", "imagenet", "--data", ""), REFUSED),
        ("quantize", ("--fp8", "-o", "model.int8.onnx"), FINE | {3}),
        ("trt", ("--fp16", "--bf16"), REFUSED),
        ("trt", ("--int8", "--fp8"), REFUSED),
        ("trt", ("--int8", "--recipe", "imagenet"), REFUSED),
        ("trt", ("--int8", "--data", "nowhere"), REFUSED),
        ("trt", ("--version-compatible",), REFUSED),
        ("trt", ("--backend", "tensorrt", "--compute-capability", "86"), NOT_HERE),
        ("bench", ("--json", "b.json", "--baseline", "b.json"), REFUSED),
        ("bench", ("--provider", "cuda"), ANY),
        ("verify", ("--provider", "cuda"), ANY),
        ("verify", ("--tolerance", "cosine_min=0.5", "--tolerance", "cosine_min=0.9"), _RUNS),
        ("train", ("--features", "--approximator", "discard"), REFUSED),
        ("train", ("--init", "ck.pth", "--pretrained"), NOT_HERE),
        ("train", ("--backbone-args", "img_size=32,img_size=64"), _RUNS),
        ("train", ("--device", "cuda:99"), frozenset({3})),
    ):
        kit = tuple(name for name in ("ck.pth", "tune.json") if name in more)
        yield basic("options", verb, " ".join(more)[:60] + " together", *more, codes=codes, kit=kit)

    for verb in ("bench", "verify"):
        yield basic(
            "options", verb, "--provider cuda with a file for OpenVINO", "--provider", "cuda", codes=REFUSED,
            instead={"model.onnx": "vino.onnx"}, kit=("vino.onnx", "vino.onnx.json"),
        )  # fmt: skip


def _usage() -> Iterator[Case]:
    """Command lines that are wrong as such."""
    for verb in VERBS:
        yield basic("options", verb, "an unknown option", "--no-such-option", codes=REFUSED)
        last = {"doctor": "--json", "demo": "-o", "inspect": "--img-size", "report": "--data"}.get(verb, "--data")
        yield basic("options", verb, "an option without its value", last, codes=REFUSED)
        if verb not in ("verify", "bench"):
            yield basic("options", verb, "one argument too many", "more.onnx", codes=REFUSED)
    for verb in ("train", "tune", "onnx", "optimize", "verify", "bench", "inspect", "report"):
        yield Case("options", verb, "no argument at all", (verb,), codes=REFUSED)
        empty = {"train": ("train", "--data", "", "-o", ""), "verify": ("verify", "", "--against", "")}
        yield Case("options", verb, "an empty argument", empty.get(verb, (verb, "")), codes=REFUSED)
    for verb in ("tune", "onnx", "optimize", "bench", "inspect", "verify", "trt", "quantize"):
        more = {"verify": ("--against", "ck.pth"), "tune": ("--macs", "0.9")}.get(verb, ())
        for what in ("images", "/dev/null", "/dev/zero", "~nobody-of-that-name/x.onnx", "x" * 300 + ".onnx", "-"):
            kit = ("images", "ck.pth", "few.toml")
            argument = (verb, *more, "--", what)
            yield Case("options", verb, f"given {what[:30]}", argument, kit=kit, codes=NOT_HERE, seconds=_ONLY_SO_LONG)
    for what, arguments in {
        "a verb that is none": ("frobnicate",),
        "a verb in capitals": ("ONNX", "ck.pth"),
        "a verb with a space": ("onnx ",),
        "an empty verb": ("",),
        "only an option": ("--no-such",),
        "10,000 arguments": ("inspect", *("x" for _ in range(10_000))),
        "an argument of 100,000 letters": ("inspect", "x" * 100_000),
        "a verb that is not UTF-8": (b"\xff\xfe",),
        "an escape sequence": ("inspect", "\x1b]0;owned\x07\x1b[2J.onnx"),
    }.items():
        yield Case("options", "inspect", what, arguments, codes=REFUSED)


def _expensive() -> Iterator[Case]:
    """What would take all memory or every processor, if it were tried."""
    little = Surroundings(limits={resource.RLIMIT_AS: 6 << 30})
    for verb, what, more in (
        ("bench", "a batch of 10^9", ("--batch", "1000000000")),
        ("bench", "a batch of 10^29", ("--batch", _HUGE)),
        ("bench", "10^29 threads", ("--threads", _HUGE)),
        ("tune", "a batch of 10^9", ("--batch", "1000000000")),
        ("tune", "an image of 8 million pixels a side", ("--img-size", "800000x8")),
        ("onnx", "an image of 8 million pixels a side", ("--img-size", "800000x8")),
        ("train", "a network of a million blocks", ("--backbone-args", "img_size=32,patch_size=8,depth=1000000")),
        ("train", "a width of 100,000", ("--backbone-args", "img_size=32,patch_size=8,embed_dim=99000,num_heads=1")),
        ("trt", "a batch of 10^9", ("--batch", "1:1:1000000000")),
        ("report", "10^29 pictures", ("--data", "images", "--images", _HUGE)),
        ("quantize", "10^29 samples", ("--samples", _HUGE)),
    ):
        codes = ANY if verb in ("trt", "quantize", "report") else NOT_HERE
        kit = ("images",) if verb == "report" else ()
        yield basic("options", verb, what, *more, codes=codes, around=little, seconds=_ONLY_SO_LONG, kit=kit)
