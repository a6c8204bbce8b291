"""The version of the package: the only place that states it (setup.cfg reads it from here)."""

__version__ = "0.1.0"
