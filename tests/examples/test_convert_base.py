"""Converting the packaged base model: once, whole or not at all."""

from pathlib import Path

import pytest
from convert_base import REQUIRED_FILES, ConversionError, convert, is_complete


def test_a_directory_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(ConversionError, match="holds no model: name another directory or remove it"):
        convert(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_truncated_model_does_not_count_as_converted(tmp_path: Path) -> None:
    for name in REQUIRED_FILES:
        (tmp_path / name).write_bytes(b"{}")
    (tmp_path / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    assert not is_complete(tmp_path)


@pytest.mark.engine
def test_the_packaged_model_becomes_a_checkpoint_once(tmp_path: Path) -> None:
    target = tmp_path / "models" / "base"
    assert convert(target)
    assert {path.name for path in target.iterdir()} == set(REQUIRED_FILES)
    assert {path.stat().st_mode & 0o777 for path in target.iterdir()} == {0o644}
    assert [path.name for path in target.parent.iterdir()] == ["base"]
    assert not convert(target)
