"""Values and combinations that make no sense: refused by name, before any work, and nothing is touched."""

from pathlib import Path

import pytest

from tests.cli.test_refusals import refused

_TRAIN = ["train", "--data", "digits", "-o", "run"]
_VERIFY = ["verify", "missing.onnx", "--against", "missing.pth"]
_LONG = "x" * 300


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--data", "", "-o", "run"], "'--data': it is empty"),
        (["train", "--data", "digits", "-o", ""], "'-o': it is empty"),
        (["bench", ""], "'MODEL...': it is empty"),
        (["bench", "a.onnx", ""], "'MODEL...': it is empty"),
        (["verify", "", "--against", ""], "'MODEL...': it is empty"),
        ([*_VERIFY, "--tolerance", "kl_mean=1", "--tolerance", ""], "'--tolerance': it is empty"),
        (["inspect", ""], "it is empty"),
        (["report", ""], "it is empty"),
        (["quantize", "--recipe", ""], "'--recipe': it is empty"),
        (["trt", "--timing-cache="], "'--timing-cache': it is empty"),
        (["demo", "--out", ""], "it is empty"),
        ([*_TRAIN, "--lr", "nan"], "'--lr': nan is not a finite number"),
        ([*_TRAIN, "--backbone-lr-scale", "inf"], "'--backbone-lr-scale': inf is not a finite number"),
        ([*_TRAIN, "--dense-lr", "1e400"], "'--dense-lr': inf is not a finite number"),
        ([*_TRAIN, "--weight-decay", "-1"], "--weight-decay is -1.0, but it must be greater than or equal to 0"),
        (
            [*_TRAIN, "--backbone-lr-scale", "-1"],
            "--backbone-lr-scale is -1.0, but it must be greater than or equal to 0",
        ),
        ([*_TRAIN, "--seed", "9" * 30], "but it must be less than or equal to 4294967295"),
        ([*_TRAIN, "--batch-size", "9" * 30], "but it must be less than or equal to 65536"),
        ([*_TRAIN, "--epochs", "9" * 30], "but it must be less than or equal to 1000000"),
        *(
            ([*_TRAIN, "--device", name], "There is no device")
            for name in ("meta", "mps:7", "cuda:-1", "cuda:999", "xla")
        ),
        ([*_TRAIN, "--pretrained", "--init", "x.pth"], "--pretrained and --init were both given"),
        ([*_TRAIN, "--backbone-args", "img_size=NaN"], "'img_size=NaN' is not a finite number"),
        ([*_TRAIN, "--backbone-args", "depth=4,"], "'depth=4,' has an empty part"),
        ([*_TRAIN, "--backbone-args", "depth=4,depth=5"], "depth is given twice"),
        ([*_TRAIN, "--backbone-args", f"depth={'[' * 9999}"], "has a bracket that is not closed"),
        ([*_TRAIN, "--init", _LONG], "its name is too long"),
        (["train", "--data", _LONG, "-o", "run"], "its name is too long"),
        (["train", "--data", "digits", "-o", _LONG], "its name is too long"),
        (["train", "--data", "loop", "-o", "run"], "its links lead in a circle"),
        (["train", "--data", "digits", "-o", "loop"], "its links lead in a circle"),
        *(
            ([verb, f"{_LONG}.onnx"], "its name is too long")
            for verb in ("onnx", "bench", "quantize", "trt", "inspect")
        ),
        *(([verb, "loop"], "its links lead in a circle") for verb in ("onnx", "bench", "inspect")),
        *(([verb, "loop.onnx"], "its links lead in a circle") for verb in ("bench", "quantize", "trt", "inspect")),
        (["report", _LONG], "its name is too long"),
        (["report", "loop"], "its links lead in a circle"),
        (["report", "looped"], "bench.json cannot be read: its links lead in a circle"),
        (["verify", "loop.onnx", "--against", "text.txt"], "its links lead in a circle"),
        (["verify", f"{_LONG}.onnx", "--against", "text.txt"], "its name is too long"),
        ([*_VERIFY, "--json", _LONG], "its name is too long"),
        ([*_VERIFY, "--junit", "loop"], "its links lead in a circle"),
        ([*_VERIFY, "--tolerance", "kl_mean=1", "--tolerance", "kl_mean=2"], "kl_mean is given twice"),
        (["verify", "a.engine", "--against", "x", "--provider", "cuda"], "none of the files is an ONNX file"),
        (["bench", "a.engine", "--provider", "cuda"], "none of the files is an ONNX file"),
        (["bench", "a.engine", "--threads", "2"], "engines run on a GPU"),
        (["bench", "a.onnx", "--batch", "1,65537"], "--batch is 65537, but it must be from 1 to 65,536"),
        (["bench", "a.onnx", "--threads", "9" * 30], "1024"),
        (["bench", "a.onnx", "--baseline", _LONG], "its name is too long"),
        (["trt", "a.onnx", "--batch", f"1:1:{'9' * 5000}"], "beyond 65,536 images"),
        (["trt", "a.onnx", "--batch", "1:1:65537"], "--batch is 65537"),
        (["trt", "a.onnx", "--workspace", "1" + "0" * 15], "1048576"),
        (["trt", "a.onnx", "--tolerance", "fp16.kl_mean=1"], "fp16.kl_mean is for models in fp16; here is only fp32"),
        (["quantize", "a.onnx", "--tolerance", "fp8.kl_mean=1"], "here is only fp16, int8"),
        (["quantize", "a.onnx", "--sensitivity", "--rounds", "3"], "omit --rounds"),
        (["quantize", "a.onnx", "--sensitivity", "--processes", "3"], "omit --processes"),
        (["inspect", "text.onnx", "--keep-rate", "0.5"], "text.onnx says itself what it is"),
        (["report", "empty", "--images", "1000"], "100"),
    ],
)
def test_values_that_make_no_sense(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    for name in ("text.txt", "text.onnx", "a.onnx"):
        (tmp_path / name).write_text("hello")
    for name in ("empty", "looped"):
        (tmp_path / name).mkdir()
    for name in ("loop", "loop.onnx", "looped/bench.json"):
        (tmp_path / name).symlink_to(Path(name).name)
    before = {path: path.is_symlink() for path in tmp_path.rglob("*")}
    monkeypatch.chdir(tmp_path)
    code, text = refused(list(arguments), monkeypatch, capsys)
    assert code == 2, text
    assert words in text
    assert {path: path.is_symlink() for path in tmp_path.rglob("*")} == before


def test_pictures_of_no_checkpoint(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ckpt.pth").write_bytes(checkpoint.read_bytes())
    code, text = refused(["report", tmp_path, "--images", "0", "--data", "photos"], monkeypatch, capsys)
    assert code == 2
    assert "--data says where pictures come from, but --images is 0" in text
