"""Path calls: what a file system refuses before any attribute is asked."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable

import pytest

from dlm.emulator.tree import Directory, File, Tree


def refuse(_: str) -> Directory:
    """Refuse to make a directory."""
    raise OSError(errno.EINVAL, "not a number")


@pytest.fixture
def tree() -> Tree:
    """A tree with one of everything."""
    tree = Tree()

    def make(_: str) -> Directory:
        made = Directory(remove=lambda: None)
        made.entries["value"] = File(0o644, lambda: b"0\n", lambda text, _: len(text))
        made.entries["default"] = Directory(make=make)
        return made

    top = tree.root.entries["top"] = Directory(make=make)
    top.entries["read"] = File(0o444, lambda: b"shown\n", None)
    top.entries["write"] = File(0o200, None, lambda text, _: len(text))
    tree.root.entries["numbers"] = Directory(make=refuse)
    tree.root.entries["secret"] = Directory(mode=0o700)
    tree.root.entries["mount"] = Directory(mounted=True)
    return tree


Case = tuple[Callable[[Tree], object], int]

REFUSED: dict[str, Case] = {
    "read of nothing": (lambda t: t.read("top/none"), errno.ENOENT),
    "read below nothing": (lambda t: t.read("none/read"), errno.ENOENT),
    "read below a file": (lambda t: t.read("top/read/x"), errno.ENOTDIR),
    "read of a directory": (lambda t: t.read("top"), errno.EISDIR),
    "read of a write-only file": (lambda t: t.read("top/write"), errno.EACCES),
    "write to a directory": (lambda t: t.open_for_write("top"), errno.EISDIR),
    "write to a read-only file": (lambda t: t.open_for_write("top/read"), errno.EACCES),
    "list of a file": (lambda t: t.list("top/read"), errno.ENOTDIR),
    "list of nothing": (lambda t: t.list("none"), errno.ENOENT),
    "mkdir of what is there": (lambda t: t.make_directory("top/read"), errno.EEXIST),
    "mkdir below nothing": (lambda t: t.make_directory("none/x"), errno.ENOENT),
    "mkdir below a file": (lambda t: t.make_directory("top/read/x"), errno.ENOTDIR),
    "mkdir where none belongs": (lambda t: t.make_directory("secret/x"), errno.EPERM),
    "mkdir of a bad name": (lambda t: t.make_directory("numbers/x"), errno.EINVAL),
    "mkdir of a long name": (lambda t: t.make_directory("top/" + "n" * 256), errno.ENAMETOOLONG),
    "rmdir of nothing": (lambda t: t.remove_directory("top/none"), errno.ENOENT),
    "rmdir of a file": (lambda t: t.remove_directory("top/read"), errno.ENOTDIR),
    "rmdir of a default": (lambda t: t.remove_directory("top"), errno.EPERM),
    "read of a file with a slash behind": (lambda t: t.read("top/read/"), errno.ENOTDIR),
    "a path out of the tree": (lambda t: t.list("../kernel/top"), errno.ENOENT),
    "a path through a file": (lambda t: t.list("top/read/.."), errno.ENOTDIR),
    "mkdir of a dot": (lambda t: t.make_directory("top/."), errno.EEXIST),
    "mkdir of two dots": (lambda t: t.make_directory("top/.."), errno.EEXIST),
    "rmdir of a dot": (lambda t: t.remove_directory("top/."), errno.EINVAL),
    "rmdir of two dots": (lambda t: t.remove_directory("top/.."), errno.ENOTEMPTY),
    "rmdir of a mount point": (lambda t: t.remove_directory("mount"), errno.EBUSY),
    "a user's read of root's": (lambda t: t.read("top/write", False), errno.EACCES),
    "a user's write": (lambda t: t.open_for_write("top/write", False), errno.EACCES),
    "a user's mkdir": (lambda t: t.make_directory("top/x", False), errno.EACCES),
    "a user's rmdir": (lambda t: t.remove_directory("top", False), errno.EACCES),
    "a user's list of root's": (lambda t: t.list("secret", False), errno.EACCES),
    "a user's way through root's": (lambda t: t.stat("secret/x", False), errno.EACCES),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_refusals(tree: Tree, case: Case) -> None:
    """Each wrong use of a path has the errno of Linux."""
    call, number = case

    with pytest.raises(OSError) as caught:
        call(tree)

    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]


def test_a_path_may_have_dots_and_slashes(tree: Tree) -> None:
    """What leads nowhere is passed over, two dots lead back."""
    for path in ("top//read", "./top/./read", "secret/../top/read", "/top/read"):
        assert tree.read(path) == b"shown\n"
    assert tree.list("top/") == tree.list("top/.") == ["read", "write"]


def test_a_made_directory_is_whole_at_once(tree: Tree) -> None:
    """mkdir(2) makes the attributes and default directories with it; rmdir(2) takes all away."""
    tree.make_directory("top/one")

    assert tree.list("top/one") == ["default", "value"]
    assert tree.read("top/one/value") == b"0\n"
    tree.remove_directory("top/one/")
    assert tree.list("top") == ["read", "write"]


def test_rmdir_refuses_what_holds_directories_of_others(tree: Tree) -> None:
    """Directories made inside a default directory are in the way, default ones are not."""
    tree.make_directory("top/one")
    tree.make_directory("top/one/default/two")

    with pytest.raises(OSError, match="top/one") as caught:
        tree.remove_directory("top/one")

    assert caught.value.errno == errno.ENOTEMPTY
    tree.remove_directory("top/one/default/two")
    tree.remove_directory("top/one")


def test_a_remade_directory_has_another_inode(tree: Tree) -> None:
    """The inode number tells one life of a directory from the next, and stays while it lives."""
    tree.make_directory("top/one")
    first = tree.stat("top/one")
    assert tree.stat("top/one") == first
    assert stat.S_ISDIR(first.mode)
    assert stat.S_IMODE(first.mode) == 0o755
    tree.remove_directory("top/one")
    tree.make_directory("top/one")

    assert tree.stat("top/one").inode != first.inode


def test_an_ordinary_user_reads_what_everybody_may(tree: Tree) -> None:
    """Mode 0444 and 0755 are enough for a process that is not root's."""
    assert tree.read("top/read", False) == b"shown\n"
    assert tree.list("top", False) == ["read", "write"]
    assert stat.S_IMODE(tree.stat("top/write", False).mode) == 0o200
