"""A mistake in a table is one line with its key path, at any depth of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tfprune.errors import TfpruneError, UsageError
from tfprune.validation import describe_error, read_share_or_size, read_toml


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Red(_Table):
    kind: Literal["red"]
    depth: float = 0.0


class Blue(_Table):
    kind: Literal["blue", "navy"]
    width: Annotated[int, Field(ge=1)] | None = None


class Inner(_Table):
    height: int = 1

    @model_validator(mode="after")
    def _even(self) -> Inner:
        if self.height % 2 == 0:
            raise ValueError("height must be odd")
        return self


class Root(_Table):
    name: str = ""
    inner: Inner | None = None
    rows: list[Inner] = []
    pairs: tuple[Inner, ...] = ()
    either: int | list[str] = 0
    one: Annotated[Red | Blue | None, Field(discriminator="kind")] = None
    colours: dict[
        Annotated[str, Field(pattern="^[a-z]+$")],
        Annotated[Red | Blue, Field(discriminator="kind")],
    ] = {}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"nam": "x"}, "nam is unknown: did you mean 'name'?"),
        ({"inner": {"hight": 1}}, "inner.hight is unknown: did you mean 'height'?"),
        ({"inner": {"height": 2}}, "inner: height must be odd"),
        ({"inner": 3}, "inner = 3 is not a table: write { key = value }"),
        ({"rows": [{}, {"height": "x"}]}, "rows#2.height = 'x': Input should be a valid integer"),
        ({"rows": [{"heigth": 1}]}, "rows#1.heigth is unknown: did you mean 'height'?"),
        ({"pairs": [{"heigth": 1}]}, "pairs#1.heigth is unknown: did you mean 'height'?"),
        ({"one": {"kind": "red", "dept": 1}}, "one.dept is unknown: did you mean 'depth'?"),
        ({"one": {"kind": "rad"}}, "one.kind = 'rad' is unknown: did you mean 'red'?"),
        ({"colours": {"a": {}}}, "colours.a.kind is missing: choose one of red, blue, navy"),
        (
            {"colours": {"a": {"kind": "navy", "width": 0}}},
            "colours.a.width = 0: Input should be greater than or equal to 1",
        ),
        (
            {"colours": {"a": {"kind": "navy", "widht": 0}}},
            "colours.a.widht is unknown: did you mean 'width'?",
        ),
        ({"colours": {"A": {"kind": "red"}}}, "colours.A = 'A': String should match pattern"),
        ({"either": "x"}, "either = 'x': Input should be a valid integer"),
        ({"name": ["x" * 99]}, f"name = ['{'x' * 55}...: Input should be a valid string"),
    ],
)
def test_the_line_names_key_mistake_and_what_is_allowed(document, message):
    with pytest.raises(ValidationError) as caught:
        Root.model_validate(document)
    line = describe_error(caught.value, Root)
    assert line.startswith(message)
    assert "\n" not in line


def test_a_misspelt_key_comes_before_what_it_left_missing():
    with pytest.raises(ValidationError) as caught:
        Red.model_validate({"kin": "red"})
    assert describe_error(caught.value, Red) == (
        "kin is unknown: did you mean 'kind'? (and 1 more)"
    )


def test_a_document_inside_another_has_the_whole_key_path():
    with pytest.raises(ValidationError) as caught:
        Root.model_validate({"rows": [{"height": 2}]})
    assert describe_error(caught.value, Root, "a.b") == "a.b.rows#1: height must be odd"
    with pytest.raises(ValidationError) as caught:
        Inner.model_validate({"height": 2})
    assert describe_error(caught.value, Inner, "a.b") == "a.b: height must be odd"
    assert describe_error(caught.value, Inner) == "height must be odd"


def test_a_file_that_is_not_toml(tmp_path):
    file = tmp_path / "x.toml"
    file.write_text("a = 1")
    assert read_toml(file) == {"a": 1}
    file.write_text("a =")
    with pytest.raises(UsageError, match=r"x\.toml is not valid TOML \(Invalid value"):
        read_toml(file)
    file.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="is not valid TOML"):
        read_toml(file)
    with pytest.raises(TfpruneError, match="cannot be read") as caught:
        read_toml(tmp_path / "none.toml")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfea\x00", "is not valid TOML (it is UTF-16): save it as UTF-8"),
        ("a = 1".encode("utf-16"), "is not valid TOML (it is UTF-16): save it as UTF-8"),
        (b"a = '\xe9'", "is not valid TOML ('utf-8' codec can't decode byte 0xe9"),
        (b"a = 1\na = 2", "is not valid TOML (Cannot overwrite a value"),
        (b"a = " + b"[" * 10_000, "is not valid TOML (it nests too deeply)"),
        (b"a = " + b"{a=" * 10_000, "is not valid TOML (it nests too deeply)"),
        (b"a." * 10_000 + b"a = 1", "nests deeper than 64 tables"),
        (b"[" + b"a." * 10_000 + b"a]", "nests deeper than 64 tables"),
        (b"a = " + b"9" * 5000, "is not valid TOML (Exceeds the limit"),
        (b"#" * (2**20 + 1), "has more than 1,048,576 bytes"),
        (b"\x00", "is not valid TOML"),
    ],
)
def test_a_file_of_another_kind_is_one_line(tmp_path, content, message):
    file = tmp_path / "x.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_toml(file)
    assert str(caught.value).startswith(f"{file} {message}")
    assert len(str(caught.value)) < 400


def test_a_byte_order_mark_and_an_empty_file_are_read(tmp_path):
    file = tmp_path / "x.toml"
    file.write_bytes(b"\xef\xbb\xbfa = 1\r\n")
    assert read_toml(file) == {"a": 1}
    file.write_bytes(b"")
    assert read_toml(file) == {}
    with pytest.raises(TfpruneError, match=r"cannot be read \(Is a directory\)"):
        read_toml(tmp_path)


def test_a_stream_without_end_is_not_read_to_its_end():
    with pytest.raises(UsageError, match="has more than"):
        read_toml(Path("/dev/zero"))


def test_keys_and_values_of_any_length_make_a_line():
    for document in ({"x" * 9999: 1}, {"inner": {"y" * 9999: 1}}, {"name": 16**9999}):
        with pytest.raises(ValidationError) as caught:
            Root.model_validate(document)
        assert len(describe_error(caught.value, Root)) < 300


@pytest.mark.parametrize(
    ("said", "value"), [(0.5, 0.5), ("0.5", 0.5), (1, 1.0), (2, 2.0), ("2", 2.0), ("64 KiB", 65536)]
)
def test_up_to_one_is_a_share_and_above_it_are_bytes(said: object, value: float) -> None:
    assert read_share_or_size(said) == value


@pytest.mark.parametrize(
    "said", [0, -1, 1.5, True, None, "nan", "inf", "1.5 bits", "0.0005 KiB", "1 B", [2]]
)
def test_what_is_neither_a_share_nor_a_size_is_refused(said: object) -> None:
    with pytest.raises(ValueError, match=r"is not a|has the unknown unit"):
        read_share_or_size(said)
