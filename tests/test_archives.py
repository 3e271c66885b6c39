from __future__ import annotations

import gzip
import io
import os
import tarfile
import time
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import pytest
import zstandard

from tfprune.archives import MOST_MEMBERS, check_archive, check_zip, pack, unpack
from tfprune.errors import TfpruneError
from tfprune.measure import zstd_bytes

SUFFIXES = [".tar.gz", ".tar.zst"]


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def packed(path: Path, *members: tarfile.TarInfo, content: bytes = b"") -> Path:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for info in members:
            info.size = len(content) if info.isfile() else 0
            tar.addfile(info, io.BytesIO(content))
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


@pytest.mark.reliability("archives that are hostile or damaged", "refused")
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
    ids=lambda info: f"{info.name} {info.linkname}",
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
    """PEP 706: the leading slash is removed."""
    unpack(packed(tmp_path / "a.tar.gz", member("/escaped")), out)
    assert [path.name for path in out.iterdir()] == ["escaped"]


@pytest.mark.reliability("archives that are hostile or damaged", "refused")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_bomb_is_stopped_before_it_is_written(tmp_path: Path, out: Path, suffix: str) -> None:
    archive = packed(tmp_path / f"a{suffix}", member("zeros"), content=bytes(1 << 22))
    assert archive.stat().st_size < 1 << 14
    with pytest.raises(TfpruneError, match="more than 1,000,000 bytes"):
        unpack(archive, out, most_bytes=1_000_000)
    assert list(out.iterdir()) == []
    many = [member(f"file{i}") for i in range(MOST_MEMBERS + 1)]
    with pytest.raises(TfpruneError, match="too many files"):
        unpack(packed(tmp_path / f"b{suffix}", *many), out)


@pytest.mark.reliability("archives that are hostile or damaged", "refused")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_padding_that_never_ends_is_stopped(tmp_path: Path, out: Path, suffix: str) -> None:
    squeeze = zstandard.compress if suffix == ".tar.zst" else gzip.compress
    (tmp_path / f"a{suffix}").write_bytes(squeeze(bytes(1 << 22)))
    with pytest.raises(TfpruneError, match="endless padding"):
        unpack(tmp_path / f"a{suffix}", out, most_bytes=1_000_000)


@pytest.mark.reliability("archives that are hostile or damaged", "refused")
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


@pytest.mark.reliability("archives that are hostile or damaged", "refused")
def test_a_keras_file_that_grows_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("assets/words", bytes(1 << 22))
    check_zip(path)
    with pytest.raises(TfpruneError, match="more than 1,000,000 bytes"):
        check_zip(path, most_bytes=1_000_000)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(TfpruneError, match="is cut short"):
        check_zip(path)


# Small files that would become large


def raw_member(name: str, kind: bytes, content: bytes, size: int | None = None) -> bytes:
    """A header and its content; `size` is the size in the header."""
    header = member(name, kind)
    header.size = len(content) if size is None else size
    return header.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def pax(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    size = len(body) + 1
    while len(str(size)) + len(body) != size:
        size = len(str(size)) + len(body)
    return str(size).encode() + body


FILE = raw_member("f", tarfile.REGTYPE, b"x")
HOSTILE = {
    "a pax header of digits": raw_member("x", tarfile.XHDTYPE, b"1" * (1 << 20)),
    "a global pax header of digits": raw_member("g", tarfile.XGLTYPE, b"1" * (1 << 20)),
    "many pax headers": raw_member("x", tarfile.XHDTYPE, pax("a", "1" * 4000)) * 2000,
    "many global headers": raw_member("g", tarfile.XGLTYPE, pax("a", "1" * 4000)) * 2000,
    "a long name": raw_member("n", tarfile.GNUTYPE_LONGNAME, bytes(1 << 24)),
    "a long link": raw_member("n", tarfile.GNUTYPE_LONGLINK, bytes(1 << 24)),
    "a name that is said to be long": raw_member("n", tarfile.GNUTYPE_LONGNAME, b"", size=3 << 30),
    "a file that is said to be huge": raw_member("f", tarfile.REGTYPE, b"", size=3 << 40),
    "a size in a pax header": raw_member("x", tarfile.XHDTYPE, pax("size", "1" * 15)) + FILE,
    "a sparse file": raw_member("f", tarfile.GNUTYPE_SPARSE, b"x"),
    "a sparse file of pax": raw_member("x", tarfile.XHDTYPE, pax("GNU.sparse.map", "0,1" * 1000))
    + FILE,
    "a deep path": raw_member("n", tarfile.GNUTYPE_LONGNAME, b"a/" * 2000) + FILE,
    "a NUL in a path": raw_member("x", tarfile.XHDTYPE, pax("path", "a\0b")) + FILE,
    "deep folders": b"".join(
        raw_member(f"{i}/" + "a/" * 30 + "f", tarfile.DIRTYPE, b"") for i in range(100)
    ),
}


@pytest.mark.reliability("archives that are hostile or damaged", "refused")
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_small_archive_takes_neither_time_nor_memory(
    tmp_path: Path, out: Path, hostile: str, suffix: str
) -> None:
    squeeze = zstandard.compress if suffix == ".tar.zst" else gzip.compress
    archive = tmp_path / f"a{suffix}"
    archive.write_bytes(squeeze(HOSTILE[hostile] + bytes(1024)))
    assert archive.stat().st_size < 1 << 18
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(
        TfpruneError, match=r"do not trust this file|is cut short|cannot be"
    ) as error:
        unpack(archive, out)
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "\n" not in str(error.value)
    assert len(str(error.value).replace(str(archive), "")) < 200
    assert peak < 16 << 20
    assert seconds < 2


@pytest.mark.reliability("archives that are hostile or damaged", "right")
@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_that_tar_itself_writes_are_read(tmp_path: Path, out: Path, kind: int) -> None:
    names = ["short", "sub/" + "n" * 90, "模型/größe", *[f"{i}/saved_model.pb" for i in range(3)]]
    if kind != tarfile.USTAR_FORMAT:
        names += ["d" * 150 + "/" + "n" * 150, "模" * 60]
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=kind) as tar:
        for place, name in enumerate(names):
            info = member(name)
            # Python writes a fraction of a second as a pax header of its own.
            info.mtime, info.size = 1.5 if kind == tarfile.PAX_FORMAT else 1, 100 * place
            tar.addfile(info, io.BytesIO(bytes([place]) * info.size))
    unpack(tmp_path / "a.tar.gz", out)
    files = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
    assert set(files) == set(names)
    for place, name in enumerate(names):
        assert files[name].read_bytes() == bytes([place]) * 100 * place


@pytest.mark.reliability("archives that are hostile or damaged", "refused")
def test_what_grows_a_hundredfold_is_a_bomb(tmp_path: Path, out: Path) -> None:
    archive = packed(tmp_path / "a.tar.zst", member("zeros"), content=bytes(65 << 20))
    with pytest.raises(TfpruneError, match="more than 67,108,864 bytes"):
        unpack(archive, out)
    assert list(out.iterdir()) == []


def h5(**options: Any) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_dataset("layers/dense/vars/0", dtype="float32", **options)
    return stream.getvalue()


@pytest.mark.reliability("archives that are hostile or damaged", "refused")
@pytest.mark.parametrize("stored", [True, False])
def test_a_keras_file_whose_parts_grow_is_refused(tmp_path: Path, stored: bool) -> None:
    """JSON of brackets and tensors without content are checked before they are read."""
    huge = h5(shape=(1 << 40,), chunks=(1 << 10,))
    kind = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    for name, content, message in (
        ("config.json", b"[" * (11 << 20), "config.json has more than 10,485,760 bytes"),
        ("model.weights.h5", huge, "tensors of more than 67,108,864 bytes"),
        (
            "model.weights.h5",
            h5(shape=(4,), external=[("/etc/passwd", 0, 16)]),
            "is in another file",
        ),
    ):
        path = tmp_path / "model.keras"
        with zipfile.ZipFile(path, "w", kind) as file:
            file.writestr("metadata.json", "{}")
            file.writestr(name, content)
        with pytest.raises(TfpruneError, match=message) as error:
            check_archive(path)
        assert "\n" not in str(error.value)
    (tmp_path / "model.h5").write_bytes(huge)
    with pytest.raises(TfpruneError, match="tensors of more than"):
        check_archive(tmp_path / "model.h5")


@pytest.mark.reliability("archives that are hostile or damaged", "right")
def test_a_model_that_keras_saved_passes(tmp_path: Path) -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    for name in ("model.keras", "model.h5"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(tmp_path / name)
        check_archive(tmp_path / name)


def test_zstd_counts_what_is_compressed_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(10_000))
    small = zstd_bytes(path)
    assert small is not None
    assert small < 100
    path.write_bytes(zstandard.compress(bytes(10_000)))
    assert zstd_bytes(path) == path.stat().st_size


def test_an_archive_depends_on_nothing_but_its_files(tmp_path: Path) -> None:
    archives = []
    for place, order in (("here", "abc"), ("there", "cba")):
        (tmp_path / place / "sub").mkdir(parents=True)
        for letter in order:
            path = tmp_path / place / "sub" / letter
            path.write_bytes(letter.encode() * 1000)
            path.chmod(0o600 if place == "here" else 0o644)
            os.utime(path, (ord(letter), len(archives)))
        archives.append(tmp_path / f"{place}.tar.gz")
        pack(tmp_path / place, archives[-1], "root")
    assert archives[0].read_bytes() == archives[1].read_bytes()
    # gzip's header (RFC 1952): no flags, so no file name, and no time.
    assert archives[0].read_bytes()[3:8] == bytes(5)


def test_unpacking_gives_the_files_back(tmp_path: Path) -> None:
    (tmp_path / "in" / "empty").mkdir(parents=True)
    (tmp_path / "in" / "file").write_bytes(b"\0\1\2")
    pack(tmp_path / "in", tmp_path / "a.tar.gz", "root")
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    found = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*"))
    assert found == [Path("root"), Path("root/empty"), Path("root/file")]
    assert (tmp_path / "out" / "root" / "file").read_bytes() == b"\0\1\2"
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in tar} == {(0, 0, 0, "")}
