"""Bytes and texts of the kernel's interfaces, to values and back.

Decides: every offset, number format, mode and parse rule. May not know: what any of it is for, who
is asked, system calls. Pure functions; cffi and struct are all it needs.

==================  ============================================================
``device``          requests to and results from the lock device (cffi, cdefs/)
``attributes``      the one table of files under config/dlm and dlm/<ls>
``address``         node addresses: sockaddr_storage and addr_list
``texts``           /proc/misc, uevents, global ids, directory names
``debugfs``         the tables of resources and locks under debug/dlm
``queues``          the file debug/dlm/<ls>, for people to read
==================  ============================================================
"""
