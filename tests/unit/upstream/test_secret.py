"""Secrets from files and from the environment."""

import os
from pathlib import Path

import pytest

from service.settings import AppSettings
from service.upstream.secret import EnvironmentSecret, FileSecret, SecretMissing, secret_of


def app_settings(*, secret_file: str | None = None, secret_env: str | None = None) -> AppSettings:
    return AppSettings(sdkappid=88888888, admin="admin", secret_file=secret_file, secret_env=secret_env)


@pytest.mark.parametrize("written", ["abc", "abc\n", "abc\r\n"])
def test_a_trailing_line_end_is_ignored(tmp_path: Path, written: str) -> None:
    """A line end after the secret is no part of it, in a file and in the environment."""
    file = tmp_path / "secret"
    file.write_bytes(written.encode())
    assert FileSecret(str(file)).read(0.0) == b"abc"
    assert EnvironmentSecret("S", {"S": written}).read(0.0) == b"abc"


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """A rewritten file is picked up, but checked at most once a second."""
    file = tmp_path / "secret"
    file.write_text("one")
    secret = FileSecret(str(file))
    assert secret.read(10.0) == b"one"
    file.write_text("three")
    assert secret.read(10.9) == b"one"
    assert secret.read(11.0) == b"three"


def test_a_file_replaced_with_the_same_size_and_time_is_read_again(tmp_path: Path) -> None:
    """A file replaced by another of the same size and time is picked up: it is another inode."""
    file, other = tmp_path / "secret", tmp_path / "other"
    file.write_text("one")
    other.write_text("two")
    stat = file.stat()
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    secret = FileSecret(str(file))
    assert secret.read(0.0) == b"one"
    other.replace(file)
    assert secret.read(1.0) == b"two"


def test_a_swapped_link_is_followed(tmp_path: Path) -> None:
    """A secret behind a chain of links, one of which is swapped as Kubernetes does it, is picked up."""
    for name, value in (("v1", "one"), ("v2", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(value)
    (tmp_path / "data").symlink_to("v1")
    (tmp_path / "key").symlink_to("data/key")
    secret = FileSecret(str(tmp_path / "key"))
    assert secret.read(0.0) == b"one"
    (tmp_path / "data.new").symlink_to("v2")
    (tmp_path / "data.new").replace(tmp_path / "data")
    assert secret.read(1.0) == b"two"


def test_a_changed_file_is_read_again_after_the_clock_steps_back(tmp_path: Path) -> None:
    """A clock that steps back does not keep a changed file from being seen."""
    file = tmp_path / "secret"
    file.write_text("one")
    secret = FileSecret(str(file))
    secret.read(1000.0)
    file.write_text("three")
    assert secret.read(5.0) == b"three"


def test_a_missing_or_empty_file_keeps_the_last_secret(tmp_path: Path) -> None:
    """While a good file is missing or empty, the last good secret stays; the next good one is used."""
    file = tmp_path / "secret"
    file.write_text("one")
    secret = FileSecret(str(file))
    assert secret.read(0.0) == b"one"
    file.write_text("")
    assert secret.read(1.0) == b"one"
    file.unlink()
    assert secret.read(2.0) == b"one"
    file.write_text("two")
    assert secret.read(3.0) == b"two"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\n", "is empty"),
        (b"a b", "printable ASCII"),
        (b"one\ntwo", "printable ASCII"),
        (b"\xc3\xa9", "printable ASCII"),
        (b"x" * 5000, "longer than 4096 bytes"),
    ],
)
def test_an_unusable_secret_is_reported_without_its_content(tmp_path: Path, content: bytes, text: str) -> None:
    """An unusable secret is reported with its location and without its content."""
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(SecretMissing, match=text) as caught:
        secret_of(app_settings(secret_file=str(file)), {})
    assert str(file) in str(caught.value)
    assert content.decode("utf-8") not in str(caught.value).replace("\n", "")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (app_settings(secret_env="NOT_THERE"), "NOT_THERE is not set"),
        (app_settings(secret_env="EMPTY"), "EMPTY is empty"),
        (app_settings(secret_file="/nowhere/secret"), "/nowhere/secret can't be read: No such file"),
        (app_settings(), "neither"),
        (app_settings(secret_env="SET", secret_file="/nowhere/secret"), "both set"),
    ],
)
def test_a_missing_secret_is_reported(settings: AppSettings, text: str) -> None:
    """A missing secret is reported with the location where it was expected."""
    with pytest.raises(SecretMissing, match=text):
        secret_of(settings, {"EMPTY": "\n", "SET": "abc"})


def test_a_secret_is_read_from_the_environment() -> None:
    """A secret is read from the environment variable that the settings name."""
    assert secret_of(app_settings(secret_env="SET"), {"SET": "abc"}).read(0.0) == b"abc"


@pytest.mark.parametrize("place", ["secret_file", "secret_env"])
def test_a_secret_in_the_place_of_its_name_is_not_repeated(place: str) -> None:
    """A secret in place of the name of its file or variable is reported as such, without being repeated."""
    with pytest.raises(SecretMissing) as caught:
        secret_of(app_settings(**{place: "0123456789abcdef" * 4}), {})
    assert "0123456789abcdef" not in str(caught.value)
