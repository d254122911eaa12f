# The generated module _cdefs.py holds one name.
from _cffi_backend import FFI

ffi: FFI
