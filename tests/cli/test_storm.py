"""Many clients at once on a served cluster, some of them killed: bench/storm.py, by count."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.storm import NODES, Storm, check, serve
from tests.cli.shells import Shells


@pytest.fixture
def shells() -> Iterator[Shells]:
    """A place for a cluster."""
    shells = Shells()
    yield shells
    shells.close()


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_answered_twice(shells: Shells) -> None:
    """50 clients on three nodes, ten of which die in the middle of a request.

    Each request of a living one is answered once; of a dead one's locks the persistent ones stay.
    """
    serve(str(shells.directory))
    storm = Storm(str(shells.directory), clients=50, count=40)
    storm.run()
    assert (storm.living, storm.killed) == (40, 10)
    assert storm.requests >= 40 * 40
    assert check(storm) >= len(storm.kept) > 0
    assert len(NODES) == 3
    assert "bug" not in (shells.directory / "log").read_text()
