"""What a DLM decides: a pure state machine per node and lockspace.

Decides: every rule of the lock manager and of recovery. May not know: I/O, clocks, chance, bytes.
"""
