"""A file is written whole or not at all."""

import os
import stat

import pytest

from transformer_np.files import write_whole


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.json"


def test_what_is_written_is_there_and_nothing_else(path):
    with write_whole(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_path_may_be_a_string(path):
    with write_whole(str(path)) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_the_old_file_and_no_part_of_the_new_one(path, interruption):
    path.write_bytes(b"old")
    with pytest.raises(interruption), write_whole(path) as file:
        file.write(b"half of the n")
        raise interruption
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_of_the_old_file_keeps_it(path):
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        with write_whole(path) as file:
            file.write(b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_the_file_can_be_read_by_whom_the_umask_allows(path):
    umask = os.umask(0o027)
    try:
        with write_whole(path) as file:
            file.write(b"new")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_folder_that_is_missing_or_in_the_way_raises_and_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), write_whole(tmp_path / "nowhere" / "file"):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError), write_whole(tmp_path / "folder"):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]
