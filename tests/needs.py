"""What a test does when this machine lacks something that it needs.

Decides: to skip, saying how to get it; to fail under ``DLM_REQUIRE_ALL=1``, as .ci/run sets it.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str, remedy: str) -> NoReturn:
    """Skip the test, or fail it where everything is required."""
    sentence = f"{what}; to run this test: {remedy}"
    if os.environ.get("DLM_REQUIRE_ALL") == "1":
        pytest.fail(sentence)
    pytest.skip(sentence)
