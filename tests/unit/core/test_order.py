"""The hash of a name, and the order in which a kernel walks its resources.

The orders are a real kernel's (Debian's 6.1.192): ``debug/dlm/<ls>_all`` of lockspaces made with
``rsbtbl_size`` 48 and 1024, with a CR lock on each of NAMES.
"""

from __future__ import annotations

import pytest

from dlm.core.modes import hash_name
from tests.unit.core.world import CR, World

NAMES = [
    *(bytes((i * 7 + j * 13 + i * i) % 256 for j in range(i % 65)) for i in range(65)),
    *(bytes((i * 7 + j * 13 + i * i) % 256 for j in range(i - 65)) for i in range(66, 130)),
    *(b"a", b"b", b"aa", b"ab", b"res-c"),
]
"""Names of every length from 0 to 64."""

ORDER_48 = """
122 18 16 21 50 103 1 98 99 126 112 90 33 105 38 48 79 82 83 87 84 130 55 77 94 62 8 80 95 100
119 45 54 72 114 23 118 120 7 129 2 12 106 96 39 35 9 57 4 19 30 25 47 117 59 73 66 109 13 127
125 132 20 42 74 52 28 56 91 22 68 124 37 3 36 44 49 116 17 81 14 115 71 61 65 11 46 108 15 85
58 51 92 111 86 60 31 53 110 41 93 69 104 75 128 34 131 76 102 64 70 78 88 40 97 89 113 133 101
67 121 43 6 63 29 24 32 123 27 107 26 5 10 0
"""

ORDER_1024 = """
94 30 87 110 70 31 53 6 72 118 73 68 34 24 98 39 59 96 37 46 131 108 4 99 117 132 28 22 58 93
128 29 27 101 91 44 14 107 10 48 114 13 112 2 35 9 43 3 88 89 79 62 126 8 45 92 17 11 15 60 64
38 100 42 123 95 12 25 56 61 49 104 1 105 57 97 33 83 23 36 115 76 40 133 124 103 54 47 90 66 81
113 26 0 116 71 86 75 63 84 55 119 129 19 125 74 50 80 52 67 111 122 18 16 77 21 82 127 51 69 41
120 20 130 109 5 85 78 7 106 65 121 32 102
"""


@pytest.mark.parametrize(("size", "order"), [(48, ORDER_48), (1024, ORDER_1024)])
def test_resources_are_walked_as_a_real_kernel_does(size: int, order: str) -> None:
    """By bucket (the hash's low bits), and the greatest name first within a bucket (6.1)."""
    world = World(1, table_size=size).up()
    user = world.user(1)
    for name in NAMES:
        user.lock(name, CR)

    walked = [NAMES.index(resource.name) for resource in world.spaces[1].resources()]

    assert walked == [int(each) for each in order.split()]


def test_unused_resources_are_walked_in_the_same_order() -> None:
    """The list of what is unused has the order of what is used."""
    world = World(1, table_size=48).up()
    user = world.user(1)
    locks = [user.lock(name, CR) for name in NAMES]
    user.results()
    for lock_id in locks:
        user.unlock(lock_id)
    user.results()

    walked = [NAMES.index(resource.name) for resource in world.spaces[1].tossed()]

    assert walked == [int(each) for each in ORDER_48.split()]


def test_since_6_10_the_last_used_resource_comes_first() -> None:
    """Kernels since 6.10 walk a list, to whose head a resource goes when it is taken into use."""
    world = World(1, kernel="6.12").up()
    user = world.user(1)
    first = user.lock(b"first", CR)
    user.lock(b"second", CR)
    user.lock(b"third", CR)
    user.unlock(first)
    assert [each.name for each in world.spaces[1].resources()] == [b"third", b"second"]

    user.lock(b"first", CR)

    assert [each.name for each in world.spaces[1].resources()] == [b"first", b"third", b"second"]


@pytest.mark.parametrize("name", [b"", b"x" * 12, b"x" * 13, b"\0", b"\0" * 12, b"\xff" * 64])
def test_the_hash_has_32_bits_and_no_state(name: bytes) -> None:
    """A name's hash is the same each time, below 2**32, and not that of the name plus a zero."""
    assert hash_name(name) == hash_name(name) < 1 << 32
    assert hash_name(name) != hash_name(name + b"\0")
