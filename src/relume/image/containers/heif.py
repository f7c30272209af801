"""AVIF and HEIF: the brands of their first box; what else they say, libheif is asked."""

from __future__ import annotations


def shows_avif(head: bytes) -> bool:
    return bool(_brands(head) & {b"avif", b"avis"})


def shows_heif(head: bytes) -> bool:
    return bool(_brands(head) & _HEIF)


def _brands(head: bytes) -> set[bytes]:
    if head[4:8] != b"ftyp":
        return set()
    return {head[8:12], *(head[i : i + 4] for i in range(16, min(len(head), 64), 4))}


_HEIF = {b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1", b"heim", b"heis"}
