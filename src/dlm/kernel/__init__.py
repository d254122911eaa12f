"""The real thing: the seam on this machine's kernel.

May know: system calls, through one ``Syscalls`` object; the texts of /proc. No rule of the DLM.
"""

from dlm.kernel.backend import KernelBackend
from dlm.kernel.syscalls import OwnSyscalls, Syscalls

__all__ = ["KernelBackend", "OwnSyscalls", "Syscalls"]
