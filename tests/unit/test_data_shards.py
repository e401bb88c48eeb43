import tarfile
from pathlib import Path

import pytest

from data.shards import ShardError, ShardWriter, read_member, shard_number, verify_shard
from governance.errors import TamperError

MEMBERS = [(f"{i:032x}", bytes([i]) * (700 * i + 1)) for i in range(12)]


def fill(folder: Path, max_bytes: int = 20_000) -> dict[str, tuple[str, int, int]]:
    with ShardWriter(folder, max_bytes=max_bytes) as writer:
        placed = {name: writer.add(name, content) for name, content in MEMBERS}
        names = writer.close()
    return {name: (names[p.number], p.offset, p.length) for name, p in placed.items()}


def test_members_are_read_at_their_offset(tmp_path: Path) -> None:
    where = fill(tmp_path / "corpus")
    assert len({shard for shard, _, _ in where.values()}) > 1
    for name, content in MEMBERS:
        shard, offset, length = where[name]
        assert read_member(tmp_path, f"corpus/{shard}", offset, length) == content


def test_a_shard_is_a_plain_tar(tmp_path: Path) -> None:
    fill(tmp_path)
    found = {}
    for path in sorted(tmp_path.iterdir()):
        assert path.stat().st_size <= 20_000 + 10_240
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
                found[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr]
    assert found == {f"{name}.flac": content for name, content in MEMBERS}


def test_equal_members_give_equal_shards(tmp_path: Path) -> None:
    fill(tmp_path / "one")
    fill(tmp_path / "two")
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [p.name for p in one] == [p.name for p in two]
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]


def test_a_name_tells_number_and_content(tmp_path: Path) -> None:
    fill(tmp_path)
    paths = sorted(tmp_path.iterdir())
    assert [shard_number(path.name) for path in paths] == list(range(len(paths)))
    for path in paths:
        verify_shard(path)
    content = bytearray(paths[0].read_bytes())
    content[600] ^= 1
    paths[0].write_bytes(content)
    with pytest.raises(TamperError, match="does not match"):
        verify_shard(paths[0])


def test_a_failure_leaves_no_half_shard(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path) as writer:
        writer.add("a" * 32, b"content")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_nothing_added_nothing_written(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "corpus") as writer:
        assert writer.close() == {}
    assert list((tmp_path / "corpus").iterdir()) == []


@pytest.mark.parametrize("shard", ["../secret", "/etc/passwd", "a/../../b"])
def test_a_manifest_cannot_reach_outside(tmp_path: Path, shard: str) -> None:
    with pytest.raises(ShardError, match="outside"):
        read_member(tmp_path, shard, 0, 1)


def test_missing_and_cut_shards(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"cannot be read.*dvc pull"):
        read_member(tmp_path, "corpus/none.tar", 0, 1)
    (tmp_path / "short.tar").write_bytes(bytes(100))
    with pytest.raises(TamperError, match="ends before byte 150"):
        read_member(tmp_path, "short.tar", 50, 100)
