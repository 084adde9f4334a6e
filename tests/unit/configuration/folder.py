"""A valid configuration, and a folder to load it and others from."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from service.configuration import ConfigurationError, LoadedSettings, load

KEY_A = "a" * 64


KEY_B = "b" * 64


GOOD = f"""
apps:
  shop: {{sdkappid: 1400000001, admin: administrator, secret_env: SHOP_SECRET}}
  my-news.eu: {{sdkappid: 40000001, admin: administrator, secret_env: SHOP_SECRET, region: frankfurt}}
callers:
  reports: {{keys: ["{KEY_A}"], apps: [shop]}}
redis: {{url: "redis://127.0.0.1:6379/0"}}
"""


ENVIRON = {"SHOP_SECRET": "0123456789abcdef"}


class Folder:
    """Loads configurations from a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, text: str | bytes, environ: Mapping[str, str] = ENVIRON) -> LoadedSettings:
        file = self.path / "taskgate.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(file, environ)

    def faults(self, text: str | bytes, environ: Mapping[str, str] = ENVIRON) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            self.load(text, environ)
        return [str(fault).replace(f"{self.path}/", "") for fault in caught.value.faults]

    def warnings(self, text: str, environ: Mapping[str, str] = ENVIRON) -> list[str]:
        return [str(warning) for warning in self.load(text, environ).warnings]
