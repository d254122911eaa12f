"""The Linux kernel's distributed lock manager (DLM) from Python."""

__version__ = "0.1.0"
