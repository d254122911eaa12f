"""The seam over a byte stream: a server that exports any backend, a client that is one.

Decides: how calls of ``dlm.ports`` travel. May not know: which backend is exported, what a path or
a request means.

==============  ==================================================================
``wire``        the protocol: preamble, frames, values, kinds of answers
``streams``     sockets and serial ports: long paths, modes, who is at the other end
``server``      the loop: listeners, connections, whoever needs to be woken
``session``     one connection's processes, files and calls
``verbs``       what can be asked of a process, a device, a subscription
``client``      the backend at the other end
``line``        its connection: requests with numbers, answers, descriptors
==============  ==================================================================

docs/served-emulator.md says how it is used.
"""
