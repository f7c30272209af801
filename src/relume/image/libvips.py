"""libvips, opened once and quietly: its own warnings off, loaders that were never hardened blocked.

relume turns what libvips finds into one line of its own, so nothing of libvips reaches stderr.
"""

import os

os.environ.setdefault("VIPS_WARNING", "0")  # read when the library starts; any value silences it
os.environ.setdefault("VIPS_BLOCK_UNTRUSTED", "1")

import pyvips

pyvips.cache_set_max(0)  # a photograph is decoded once; the cache would only hold memory


def reason(error: pyvips.Error) -> str:
    """What libvips said first, in one line without its class names."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines[1:] if line] or ["its data is damaged"]
    telling = [line for line in said if "bad seek" not in line] or said
    return telling[0].split(": ", 1)[-1]
