"""What a model does to colour: 24 flat patches and a gray ramp, 8 bit.

    python benchmarks/colour.py [MODEL...] [--engine onnx]

Patches: the 24 sRGB values that ISO 17321's colour chart is commonly given (the ColorChecker's, as
its maker publishes them), 96 pixels square each: on one chart of 6 x 4 as one would photograph it,
and each alone, filling its picture. Ramp: gray 0 to 255 from left to right over 512 x 128, as RGB
and as a one-channel file. Differences are CIEDE2000 (scikit-image) in the mean over patches, of the
mean colour of a patch's middle; `gray` is the largest distance in levels between two channels, and
`off` the largest change of a gray, which may also be wanted. Bars: 2, and 1. Exit 1 where one is
missed: then the card has to say so.
"""

import argparse

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab

from relume.engine import open_engine
from relume.image import Picture
from relume.restoration import restore

PATCHES = """
115 82 68  194 150 130  98 122 157  87 108 67  133 128 177  103 189 170
214 126 44  80 91 166  193 90 99  94 60 108  157 188 64  224 163 46
56 61 150  70 148 73  175 54 60  231 199 31  187 86 149  8 133 161
243 243 242  200 200 200  160 160 160  122 122 121  85 85 85  52 52 52
"""
SIDE = 96


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["relume-s"])
    parser.add_argument("--engine", default="onnx")
    options = parser.parse_args()
    values = np.array(PATCHES.split(), np.uint8).reshape(4, 6, 3)
    chart = values.repeat(SIDE, 0).repeat(SIDE, 1)
    ramp = np.linspace(0, 255, 512).round().astype(np.uint8)[None, :, None].repeat(128, 0)
    good = True
    print("| model | chart: mean (worst) | each alone: mean (worst) | gray, levels | off, levels |")
    print("|---|---|---|---|---|")
    for model in options.models:
        engine = open_engine(model, options.engine)

        def out(pixels: np.ndarray, engine=engine) -> np.ndarray:
            return restore(Picture(np.ascontiguousarray(pixels)), engine).picture.pixels

        def apart(seen: np.ndarray, meant: np.ndarray) -> np.ndarray:
            return deltaE_ciede2000(rgb2lab(meant / 255), rgb2lab(seen / 255)).ravel()

        blocks = out(chart).reshape(4, SIDE, 6, SIDE, 3)[:, 24:-24, :, 24:-24]
        together = apart(blocks.mean(axis=(1, 3)), values)
        single = [out(np.full((SIDE, SIDE, 3), rgb, np.uint8)) for rgb in values.reshape(-1, 3)]
        middles = np.array([one[24:-24, 24:-24].mean((0, 1)) for one in single])
        alone = apart(middles[None], values.reshape(1, -1, 3))
        gray = out(ramp.repeat(3, 2)).astype(int)
        coloured = int((gray.max(2) - gray.min(2)).max())
        off = int(np.abs(gray - ramp).max())
        one = out(ramp)
        good = good and one.shape == ramp.shape
        good = good and together.mean() <= 2 and alone.mean() <= 2 and coloured <= 1
        print(
            f"| {model} | {together.mean():.2f} ({together.max():.2f}) | {alone.mean():.2f} "
            f"({alone.max():.2f}) | {coloured} | {off} |"
        )
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
