"""Make the process keep the memory it has had, in large pages.

torch on the CPU asks for every feature map anew and gives it back; glibc then maps and unmaps tens
of megabytes an operator, and each page is faulted in again, which is dear in a virtual machine.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # malloc.h
_MADV_HUGEPAGE = 14  # asm-generic/mman-common.h
_PAGE = 1 << 21


def keep_memory(heap: int = 1 << 32) -> bool:
    """Call once, early, in a process of its own: a command line may, a library must not.

    Args:
        heap: Bytes of address space asked for in large pages. None of it is used until touched.

    Returns:
        Whether this is glibc on Linux, which alone is told. Elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mallopt"):
        return False
    # One arena, grown by brk and never given back: what is freed is the next operator's.
    calls = (
        (_M_MMAP_MAX, 0),
        (_M_ARENA_MAX, 1),
        (_M_TRIM_THRESHOLD, 2**31 - 1),
        (_M_TOP_PAD, 1 << 28),
    )
    kept = [libc.mallopt(key, value) == 1 for key, value in calls]
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    block = libc.malloc(heap)
    if block:
        start = -(-block // _PAGE) * _PAGE
        libc.madvise(start, heap - _PAGE, _MADV_HUGEPAGE)
        libc.free(block)
    return all(kept)
