"""Settings of all tests.

Decides: that generated examples are the same in every run, and that no clock judges them.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("dlm", derandomize=True, deadline=None)
settings.load_profile("dlm")
