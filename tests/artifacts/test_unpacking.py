from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard

from tfprune.artifacts.archive import pack
from tfprune.errors import TfpruneError
from tfprune.measure import zstd_bytes
from tfprune.measure.unpack import check_zip, unpack

SUFFIXES = [".tar.gz", ".tar.zst"]


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    return found


def packed(path: Path, *members: tarfile.TarInfo, content: bytes = b"") -> Path:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for each in members:
            each.size = len(content) if each.isfile() else 0
            tar.addfile(each, io.BytesIO(content))
    squeeze = zstandard.compress if path.suffix == ".zst" else gzip.compress
    path.write_bytes(squeeze(stream.getvalue()))
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "inner" / "out").mkdir(parents=True)
    return tmp_path / "inner" / "out"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_packing_and_unpacking_gives_the_files_back(tmp_path: Path, out: Path, suffix: str) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "file").write_bytes(bytes(range(256)) * 9000)
    archives = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for archive in archives:
        pack(tmp_path / "in", archive, "root")
    assert archives[0].read_bytes() == archives[1].read_bytes()
    unpack(archives[0], out)
    assert (out / "root" / "sub" / "file").read_bytes() == bytes(range(256)) * 9000


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "hostile",
    [
        member("../escaped"),
        member("a/../../escaped"),
        member("link", tarfile.SYMTYPE, "../.."),
        member("link", tarfile.SYMTYPE, "inside"),
        member("link", tarfile.LNKTYPE, "/etc/passwd"),
        member("device", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda each: f"{each.name} {each.linkname}",
)
def test_members_that_lead_out_are_refused(
    tmp_path: Path, out: Path, hostile: tarfile.TarInfo, suffix: str
) -> None:
    archive = packed(tmp_path / f"a{suffix}", member("fine"), hostile)
    with pytest.raises(TfpruneError, match=r"holds an unsafe member .*: do not trust this file"):
        unpack(archive, out)
    outside = [path.name for path in tmp_path.rglob("*") if not path.is_relative_to(out)]
    assert sorted(outside) == [f"a{suffix}", "inner"]
    assert [path.name for path in out.iterdir()] in ([], ["fine"])


def test_an_absolute_path_stays_inside(tmp_path: Path, out: Path) -> None:
    """PEP 706: the leading slash goes, and the rest lands where it may."""
    unpack(packed(tmp_path / "a.tar.gz", member("/escaped")), out)
    assert [path.name for path in out.iterdir()] == ["escaped"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_bomb_is_stopped_before_it_is_written(tmp_path: Path, out: Path, suffix: str) -> None:
    archive = packed(tmp_path / f"a{suffix}", member("zeros"), content=bytes(1 << 22))
    assert archive.stat().st_size < 1 << 14
    with pytest.raises(TfpruneError, match="more than 1,000,000 bytes"):
        unpack(archive, out, most_bytes=1_000_000)
    assert list(out.iterdir()) == []
    many = [member(f"file{i}") for i in range(10_001)]
    with pytest.raises(TfpruneError, match="too many files"):
        unpack(packed(tmp_path / f"b{suffix}", *many), out)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_padding_that_never_ends_is_stopped(tmp_path: Path, out: Path, suffix: str) -> None:
    squeeze = zstandard.compress if suffix == ".tar.zst" else gzip.compress
    (tmp_path / f"a{suffix}").write_bytes(squeeze(bytes(1 << 22)))
    with pytest.raises(TfpruneError, match="endless padding"):
        unpack(tmp_path / f"a{suffix}", out, most_bytes=1_000_000)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_cut_or_changed_is_one_line(tmp_path: Path, out: Path, suffix: str) -> None:
    whole = packed(tmp_path / f"a{suffix}", member("f"), content=bytes(range(200))).read_bytes()
    damaged = tmp_path / f"damaged{suffix}"
    for cut in (0, 3, 20, len(whole) // 2, len(whole) - 4):
        damaged.write_bytes(whole[:cut])
        with pytest.raises(TfpruneError, match="cannot be unpacked") as error:
            unpack(damaged, out)
        assert "\n" not in str(error.value)
    damaged.write_bytes(b"\0" * 4 + whole[4:])
    with pytest.raises(TfpruneError, match="cannot be unpacked"):
        unpack(damaged, out)


def test_a_keras_file_that_grows_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.weights.h5", bytes(1 << 22))
    check_zip(path)
    with pytest.raises(TfpruneError, match="more than 1,000,000 bytes"):
        check_zip(path, most_bytes=1_000_000)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(TfpruneError, match="is cut short"):
        check_zip(path)


def test_zstd_counts_what_is_compressed_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(10_000))
    small = zstd_bytes(path)
    assert small is not None
    assert small < 100
    path.write_bytes(zstandard.compress(bytes(10_000)))
    assert zstd_bytes(path) == path.stat().st_size
