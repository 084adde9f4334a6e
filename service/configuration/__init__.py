"""The configuration: one YAML file, overridden by the environment, checked whole before anything starts.

document    YAML text to plain values, each syntax fault with its line
overrides   TASKGATE__SECTION__KEY in the environment
shape       keys, types and bounds, from the structs of `service.settings`
rules       what holds between settings, and what they point to
"""

from service.configuration.errors import ConfigurationError, SettingFault
from service.configuration.load import Loaded, load

__all__ = ["ConfigurationError", "Loaded", "SettingFault", "load"]
