"""What cannot be written, or would cost the user a file, is refused before the work."""

from pathlib import Path

import pytest

from tofe_export.artifacts.outputs import require_writable
from tofe_export.errors import InputError


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    require_writable([tmp_path / "new" / "folders" / "v.json", None])
    assert not (tmp_path / "new").exists(), "nothing is made"
    require_writable([tmp_path / "file"])
    for wrong, complaint in ((tmp_path, "it is a folder"), (tmp_path / "file" / "v.json", "file is a file")):
        with pytest.raises(InputError, match=complaint):
            require_writable([wrong])


def test_neither_an_input_nor_its_manifest_nor_another_output_is_replaced(tmp_path: Path) -> None:
    model, other = tmp_path / "model.onnx", tmp_path / "v.json"
    require_writable([other], [model, None])
    for outputs in ([model], [tmp_path / "model.onnx.json"], [other, tmp_path / "." / "v.json"]):
        with pytest.raises(InputError, match="would be overwritten"):
            require_writable(outputs, [model, None])
