"""A certificate, for several packages."""

from pathlib import Path

import pytest

from tests.certificates import Authority


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, its key and its CA, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    file = folder / "server.pem"
    file.write_bytes(b"".join(each.read_bytes() for each in (*authority.issue("server"), authority.certificate)))
    return file
