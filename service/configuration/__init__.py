"""The configuration: one YAML file, overridden by the environment, validated as a whole before anything starts.

yaml_file     YAML text to plain values, each syntax fault with its line
environment   TASKGATE__SECTION__KEY in the environment
validate      keys, types and bounds, from the structs of `service.settings`
rules         constraints between settings, and on what they point to
"""

from service.configuration.errors import ConfigurationError, SettingFault
from service.configuration.load import LoadedSettings, load

__all__ = ["ConfigurationError", "LoadedSettings", "SettingFault", "load"]
