"""``python -m dlm``: the command line, in the form that is never another package's ``dlm_tool``."""

from dlm.cli.main import console

console()
