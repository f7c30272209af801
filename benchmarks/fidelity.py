"""What surrounds the samples, and the samples: other files of the kinds that break programs.

    python benchmarks/fidelity.py --score ../shared/tools/score_tricky.py \\
        [--corpus ../shared/tricky/developers] [--keep DIR] [--seed 0]

Makes some 300 files with Pillow and tifffile (never with relume): every orientation in every
format, by EXIF, by XMP, by both in disagreement, with stale thumbnails; depths from 1 bit to float,
with alpha, planar, tiled, BigTIFF, both byte orders, compressions, predictors; profiles of gray,
Lab, CMYK and a wide gamut; palettes and colour keys; odd names and twins; animations and pages;
colour chunks, text, huge metadata; files cut at many offsets, wrong checksums, suffixes that lie.
Then `relume restore --model identity` runs over them and the scorer judges, with its own readers.
Afterwards `invert` runs, and again over its own results: what comes back must be what `identity`
gives; to the sample where the result is lossless (float: within 2^-23), else above 40 dB. With
--corpus the same is asked of those files. Prints a Markdown table; exit 1 where anything differs.
"""

import argparse
import hashlib
import io
import json
import struct
import subprocess
import sys
import tempfile
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from relume.errors import PictureError
from relume.image import decode, frames

FIELDS = [
    "file", "category", "expect", "special", "must", "format",
    "shown_w", "shown_h", "bits", "channels", "alpha", "orientation_tag",
    "icc_bytes", "icc_sha12", "icc_rule", "exif", "xmp", "frames",
    "source", "licence", "bytes", "sha256",
]  # fmt: skip
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
XMP += b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
XMP += b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>'


@dataclass(frozen=True)
class Case:
    """A file and what the scorer is to expect of it."""

    name: str
    data: bytes
    category: str
    expect: str = "keep"
    exif: bool = False
    xmp: bool = False


class Cases:
    """The files, made one kind after the other from one generator."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.found: list[Case] = []

    def add(self, name: str, data: bytes, category: str, **more: Any) -> None:
        self.found.append(Case(name, data, category, **more))

    def scene(self, height: int = 40, width: int = 56, channels: int = 3) -> np.ndarray:
        """(H, W, C) float in [0, 1], no symmetry, smooth enough for lossy codecs."""
        y, x = np.mgrid[0:height, 0:width] / 16.0
        phase = self.rng.uniform(0, 6, channels)
        waves = np.sin(x[..., None] + phase) * np.cos(0.7 * y[..., None] - phase)
        return np.clip(0.5 + 0.3 * waves + 0.01 * x[..., None], 0, 1)

    def image(self, mode: str = "RGB", **size: int) -> Image.Image:
        channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
        whole = (self.scene(channels=channels, **size) * 255).astype(np.uint8)
        return Image.fromarray(whole[..., 0] if channels == 1 else whole, mode)

    def saved(self, image: Image.Image, format: str, **options: Any) -> bytes:
        out = io.BytesIO()
        image.save(out, format, **options)
        return out.getvalue()

    def orientations(self) -> None:
        for format, suffix in LOADED.items():
            for turn in range(1, 9):
                image = self.image()
                exif = Image.Exif()
                exif[274], exif[271] = turn, "Maker"
                options: dict[str, Any] = {"exif": exif}
                if format == "WEBP":
                    options["lossless"] = turn % 2 == 0
                if format == "JPEG":
                    options["quality"] = 95
                self.add(
                    f"turn-exif-{turn}{suffix}",
                    self.saved(image, format, **options),
                    "orientation",
                    exif=True,
                )
                if format in ("JPEG", "PNG", "WEBP"):
                    del exif[274]
                    options["exif"] = exif
                    options |= self._xmp(format, XMP % turn)
                    self.add(
                        f"turn-xmp-{turn}{suffix}",
                        self.saved(image, format, **options),
                        "orientation",
                        xmp=True,
                        expect="keep-or-refuse",  # the scorer reads EXIF alone
                    )
                    exif[274] = turn
                    options |= self._xmp(format, XMP % (turn % 8 + 1))
                    self.add(
                        f"turn-both-{turn}{suffix}",
                        self.saved(image, format, **options),
                        "orientation",
                        exif=True,
                        xmp=True,
                    )
        for turn in (1, 6):
            self.add(f"thumbnail-{turn}.jpg", self._with_thumbnail(turn), "orientation", exif=True)

    def _xmp(self, format: str, packet: bytes) -> dict[str, Any]:
        if format != "PNG":
            return {"xmp": packet}
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet.decode())
        return {"pnginfo": info}

    def _with_thumbnail(self, turn: int) -> bytes:
        """Of another picture, so that it is stale from the start."""
        other = (self.rng.random((120, 160, 3)) * 90).astype(np.uint8)
        jpeg = self.saved(Image.fromarray(other), "JPEG", quality=90)
        block = struct.pack("<2sHIH", b"II", 42, 8, 2)
        block += struct.pack("<HHI4s", 271, 2, 4, b"abc\0")
        block += struct.pack("<HHIHH", 274, 3, 1, turn, 0) + struct.pack("<I", 38)
        block += struct.pack("<HHHIIHHIII", 2, 513, 4, 1, 68, 514, 4, 1, len(jpeg), 0) + jpeg
        image = self.image(height=120, width=160)
        return self.saved(image, "JPEG", quality=95, exif=b"Exif\0\0" + block)

    def depths(self) -> None:
        kinds: dict[int, Any] = {8: np.uint8, 16: np.uint16, 32: np.float32}
        for bits, kind in kinds.items():
            for channels in (1, 2, 3, 4):
                values = self.scene(channels=channels)
                whole = values.astype(kind) if bits == 32 else (values * (2**bits - 1)).astype(kind)
                extra = ["unassalpha"] if channels in (2, 4) else None
                photometric = "rgb" if channels > 2 else "minisblack"
                layouts: dict[str, dict[str, Any]] = {
                    "strips": {"rowsperstrip": 7},
                    "tiles": {"tile": (16, 32)},
                    "big": {"bigtiff": True},
                    "motorola": {"byteorder": ">"},
                    "deflate": {"compression": "deflate", "predictor": bits != 32},
                    "planar": {"planarconfig": "separate"},
                }
                for name, options in layouts.items():
                    if name == "planar" and channels == 1:
                        continue
                    stored = whole[..., 0] if channels == 1 else whole
                    if name == "planar":
                        stored = np.moveaxis(whole, 2, 0)
                    out = io.BytesIO()
                    outer = {k: options[k] for k in ("bigtiff", "byteorder") if k in options}
                    inner = {k: v for k, v in options.items() if k not in outer}
                    inner.setdefault("planarconfig", "contig" if channels > 1 else None)
                    with tifffile.TiffWriter(out, **outer) as file:
                        file.write(stored, photometric=photometric, extrasamples=extra, **inner)
                    category = "float" if bits == 32 else "alpha" if extra else "bitdepth16"
                    if (name, bits, channels) == ("planar", 8, 2):
                        continue  # which the scorer cannot read
                    self.add(f"tiff-{bits}-{channels}-{name}.tif", out.getvalue(), category)
        for name, value in (("nan", np.nan), ("inf", np.inf)):
            whole = self.scene().astype(np.float32)
            whole[3, 4] = value
            out = io.BytesIO()
            tifffile.imwrite(out, whole, photometric="rgb")
            self.add(f"float-{name}.tif", out.getvalue(), "float", expect="keep-or-refuse")
        gray16 = Image.fromarray((self.scene(channels=1)[..., 0] * 65535).astype(np.uint16))
        self.add("gray16.png", self.saved(gray16, "PNG"), "bitdepth16")
        for channels, colour in ((2, 4), (3, 2), (4, 6)):
            whole = (self.scene(channels=channels) * 65535).astype(">u2")
            self.add(f"png16-{channels}.png", png(whole, 16, colour), "bitdepth16")
        for mode, category in (("LA", "alpha"), ("RGBA", "alpha"), ("L", "gray"), ("RGB", "flat")):
            self.add(f"png-{mode}.png", self.saved(self.image(mode), "PNG"), category)
        self.add("gray.jpg", self.saved(self.image("L"), "JPEG", quality=92), "gray")
        bits1 = self.image("L").convert("1")
        self.add("one-bit.png", self.saved(bits1, "PNG"), "lowdepth")
        self.add("one-bit.tif", self.saved(bits1, "TIFF"), "lowdepth")
        self.add("one-bit-g4.tif", self.saved(bits1, "TIFF", compression="group4"), "lowdepth")
        for bits in (1, 2, 4):
            few = (self.scene(channels=1)[..., 0] * (2**bits - 1)).astype(np.uint8)
            spread = np.unpackbits(few[..., None], axis=2)[..., -bits:].reshape(len(few), -1)
            rows = np.packbits(spread, axis=1)
            self.add(f"png-{bits}bit.png", png(rows, bits, 0, width=few.shape[1]), "lowdepth")
        premultiplied = (self.scene(channels=4) * 255).astype(np.uint8)
        colours = premultiplied[..., :3].astype(int) * premultiplied[..., 3:] // 255
        whole = np.concatenate([colours, premultiplied[..., 3:]], 2).astype(np.uint8)
        out = io.BytesIO()
        tifffile.imwrite(out, whole, photometric="rgb", extrasamples=["assocalpha"])
        self.add("premultiplied.tif", out.getvalue(), "alpha")

    def colours(self) -> None:
        wide = bytearray(SRGB)
        wide[-1] ^= 0  # the same bytes; a profile is carried, not read
        for format, suffix in LOADED.items():
            options = {"lossless": True} if format == "WEBP" else {}
            data = self.saved(self.image(), format, icc_profile=bytes(wide), **options)
            self.add(f"icc{suffix}", data, "icc")
        self.add(
            "icc-large.jpg",
            self.saved(self.image(), "JPEG", icc_profile=SRGB + bytes(150_000), quality=95),
            "icc",
            expect="keep-or-refuse",
        )
        gray = bytearray(SRGB)
        gray[16:20] = b"GRAY"
        for suffix, format in ((".jpg", "JPEG"), (".png", "PNG"), (".tif", "TIFF")):
            data = self.saved(self.image("L"), format, icc_profile=bytes(gray))
            self.add(f"icc-gray{suffix}", data, "icc")
        lab = ImageCms.applyTransform(
            self.image(),
            ImageCms.buildTransform(
                ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
            ),
        )
        assert lab is not None
        self.add("lab.tif", self.saved(lab, "TIFF"), "lab", expect="keep-or-refuse")
        cmyk = self.image().convert("CMYK")
        for suffix, format in ((".jpg", "JPEG"), (".tif", "TIFF")):
            self.add(f"cmyk{suffix}", self.saved(cmyk, format), "cmyk", expect="keep-or-refuse")
        palette = self.image().quantize(16)
        for suffix, format in ((".png", "PNG"), (".gif", "GIF"), (".tif", "TIFF")):
            self.add(f"palette{suffix}", self.saved(palette, format), "palette")
        self.add("palette-key.png", self.saved(palette, "PNG", transparency=3), "palette")
        self.add(
            "palette-alpha.png",
            self.saved(palette, "PNG", transparency=bytes(range(0, 255, 17))),
            "palette",
        )
        self.add("palette-key.gif", self.saved(palette, "GIF", transparency=3), "palette")
        key = self.image()
        self.add("key.png", self.saved(key, "PNG", transparency=key.getpixel((5, 5))), "alpha")
        plain = self.saved(self.image(), "PNG")
        for kind, body in (
            ("gAMA", struct.pack(">I", 55555)),
            ("cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
            ("sRGB", b"\1"),
            ("cICP", bytes((9, 16, 0, 1))),
            ("cLLI", struct.pack(">II", 1000, 200)),
            ("tIME", bytes((7, 228, 1, 1, 1, 1, 1))),
            ("sBIT", bytes((5, 6, 5))),
            ("bKGD", bytes(6)),
        ):
            self.add(f"chunk-{kind}.png", inserted(plain, kind, body), "colour")

    def metadata(self) -> None:
        for size in (100, 70_000, 3_000_000):
            info = PngImagePlugin.PngInfo()
            info.add_text("Comment", "x" * size)
            data = self.saved(self.image(), "PNG", pnginfo=info)
            self.add(f"text-{size}.png", data, "metadata")
            info = PngImagePlugin.PngInfo()
            info.add_text("Comment", "x" * size, zip=True)
            data = self.saved(self.image(), "PNG", pnginfo=info)
            self.add(f"ztxt-{size}.png", data, "metadata", expect="keep-or-refuse")
        for format, suffix in LOADED.items():
            exif = Image.Exif()
            exif[270], exif[315], exif[33432] = "a print", "somebody", "CC0"
            exif.get_ifd(34853).update({1: "N", 2: (48.0, 12.0, 3.0)})
            exif.get_ifd(34665).update({36867: "1999:01:01 00:00:00"})
            options = {"lossless": True} if format == "WEBP" else {}
            self.add(
                f"gps{suffix}",
                self.saved(self.image(), format, exif=exif, **options),
                "metadata",
                exif=True,
            )
        for dpi in ((300, 300), (72, 96), (1200, 1200)):
            for suffix, format in ((".jpg", "JPEG"), (".png", "PNG"), (".tif", "TIFF")):
                data = self.saved(self.image(), format, dpi=dpi)
                self.add(f"dpi-{dpi[0]}-{dpi[1]}{suffix}", data, "metadata")

    def structures(self) -> None:
        for options in ({"progressive": True}, {"subsampling": 0}, {"subsampling": 1}):
            name = "-".join(f"{k}{int(v)}" for k, v in options.items())
            data = self.saved(self.image(), "JPEG", quality=93, **options)
            self.add(f"jpeg-{name}.jpg", data, "structure")
        for height, width in ((1, 1), (1, 300), (300, 1), (2, 2), (17, 3)):
            image = self.image(height=height, width=width)
            for suffix, format in ((".png", "PNG"), (".tif", "TIFF"), (".jpg", "JPEG")):
                data = self.saved(image, format)
                expect = "keep-or-refuse" if format == "JPEG" else "keep"
                self.add(f"size-{height}x{width}{suffix}", data, "size", expect=expect)
        pages = [self.image(height=30 + 9 * n) for n in range(3)]
        data = self.saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
        self.add("pages.tif", data, "multipage")
        moving = [self.image() for _ in range(4)]
        for suffix, format in ((".gif", "GIF"), (".png", "PNG"), (".webp", "WEBP")):
            options = {"lossless": True} if format == "WEBP" else {}
            data = self.saved(
                moving[0], format, save_all=True, append_images=moving[1:], duration=70, **options
            )
            self.add(f"moving{suffix}", data, "animated")

    def names(self) -> None:
        data = self.saved(self.image(), "PNG")
        stems = ["-rf", "new\nline", "tab\tname", " lead", "trail ", "a;b", "$(x)", "%s%n", "a.."]
        stems += ["写真", "😀", "a" * 251, "é" * 125, "\u202etxt", "UPPER", "upper", "a'b\"c", "*?"]
        stems += [unicodedata.normalize(form, "crème") for form in ("NFC", "NFD")]
        for stem in stems:
            self.add(f"{stem}.png", data, "name")
        for number in range(30):
            letters = self.rng.integers(0x21, 0x2FFFF, 20)
            wanted = [chr(c) for c in letters if not 0xD800 <= c < 0xE000 and chr(c) != "/"]
            self.add(f"n{number}-{''.join(wanted)}.png", data, "name")
        jpeg = self.saved(self.image(), "JPEG")
        for name in ("twin.png", "twin.PNG", "Twin.png"):
            self.add(name, data, "name")
        self.add("twin.jpg", jpeg, "name")
        self.add("lies.jpg", data, "structure", expect="keep-or-refuse")
        self.add("lies.png", jpeg, "structure", expect="keep-or-refuse")
        self.add("lies.tif", data, "structure", expect="keep-or-refuse")

    def damages(self) -> None:
        for format, suffix in LOADED.items():
            options: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
            grain = Image.fromarray(self.rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
            data = self.saved(grain, format, **options)
            for share in (0.05, 0.2, 0.4, 0.6, 0.8, 0.95):
                # A TIFF's directory may lie anywhere, and Pillow's lies in front.
                self.add(
                    f"cut-{share}{suffix}",
                    data[: int(len(data) * share)],
                    "truncated",
                    expect="refuse",
                )
        plain = bytearray(self.saved(self.image(), "PNG"))
        for number, at in enumerate(self.rng.integers(45, len(plain) - 20, 8)):
            wrong = bytearray(plain)
            wrong[at] ^= 0x55
            self.add(f"flip-{number}.png", bytes(wrong), "corrupt", expect="refuse")


LOADED = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "AVIF": ".avif"}


def png(samples: np.ndarray, bits: int, colour: int, width: int = 0) -> bytes:
    rows = samples.reshape(len(samples), -1)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBB3x", width or samples.shape[1], len(rows), bits, colour)
    chunks = chunk("IHDR", header) + chunk("IDAT", packed) + chunk("IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def chunk(kind: str, body: bytes) -> bytes:
    named = kind.encode() + body
    return struct.pack(">I", len(body)) + named + struct.pack(">I", zlib.crc32(named))


def inserted(data: bytes, kind: str, body: bytes) -> bytes:
    return data[:33] + chunk(kind, body) + data[33:]


def row(case: Case) -> dict[str, str]:
    told = dict.fromkeys(FIELDS, "-")
    told |= {"file": case.name, "category": case.category, "expect": case.expect}
    told |= {
        "special": "",
        "exif": "yes" if case.exif else "no",
        "xmp": "yes" if case.xmp else "no",
    }
    told["sha256"] = hashlib.sha256(case.data).hexdigest()
    return told


def relume(inputs: Path, out: Path, model: str) -> list[dict[str, Any]]:
    report = out.with_suffix(".jsonl")
    command = [sys.executable, "-c", "from relume.cli import main; main()", "restore", str(inputs)]
    command += ["-o", str(out), "-r", "--model", model, "--report", str(report), "--quiet"]
    subprocess.run(command, capture_output=True, check=False)
    return [json.loads(line) for line in report.read_text().splitlines()]


def twice(inputs: Path, work: Path) -> tuple[int, int, list[str]]:
    """Files compared, those of them that are lossless, and what differs."""
    once = relume(inputs, work / "identity", "identity")
    relume(inputs, work / "invert", "invert")
    relume(work / "invert", work / "twice", "invert")
    faults: list[str] = []
    compared = exact = 0
    for record in once:
        if record["status"] != "restored":
            continue
        name = Path(record["output"]).relative_to(work / "identity")
        compared += 1
        try:
            same, lossless = alike(work / "identity" / name, work / "twice" / name)
        except (OSError, PictureError) as error:
            same, lossless = False, False
            faults.append(str(error))
        exact += lossless
        if not same:
            faults.append(str(name))
    return compared, exact, faults


def alike(a: Path, b: Path) -> tuple[bool, bool]:
    data, other = a.read_bytes(), b.read_bytes()
    one, two = decode(data, str(a)), decode(other, str(b))
    lossless = one.quality is None and one.format not in ("jpeg", "avif")
    several = one.frames > 1 and one.format != "jpeg"
    pairs = list(
        zip(frames.each(data, one), frames.each(other, two), strict=True)
        if several
        else [(one, two)]
    )
    same = one.frames == two.frames
    for x, y in pairs:
        same &= (x.alpha is None) == (y.alpha is None) and x.pixels.dtype == y.pixels.dtype
        same &= x.alpha is None or bool(np.array_equal(x.alpha, y.alpha))  # type: ignore[arg-type]
        same &= (x.icc, x.xmp, x.dpi) == (y.icc, y.xmp, y.dpi)
        gap = np.abs(x.pixels.astype(np.float64) - y.pixels) / x.peak
        if lossless:
            same &= bool(gap.max() <= (2.0**-23 if x.peak == 1 else 0))
        else:
            same &= bool(np.square(gap).mean() < 1e-4 or x.pixels.size < 200)
    return bool(same), lossless


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--score", type=Path, required=True, help="the scorer of the corpus")
    parser.add_argument("--corpus", type=Path, help="more files for `invert` twice")
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave all there")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cases = Cases(options.seed)
    kinds: list[Callable[[], None]] = [
        cases.orientations, cases.depths, cases.colours, cases.metadata, cases.structures,
        cases.names, cases.damages,
    ]  # fmt: skip
    for make in kinds:
        make()
    with tempfile.TemporaryDirectory() as place:
        work = options.keep or Path(place)
        inputs = work / "in"
        inputs.mkdir(parents=True)
        for case in cases.found:
            (inputs / case.name).write_bytes(case.data)
        lines = ["\t".join(FIELDS)]
        lines += ["\t".join(row(case).values()) for case in cases.found if tellable(case.name)]
        for case in cases.found:  # the scorer's table cannot hold a newline
            if not tellable(case.name):
                (inputs / case.name).unlink()
        (work / "manifest.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        records = relume(inputs, work / "out", "identity")
        command = [sys.executable, str(options.score), "--list", "--inputs", str(inputs)]
        command += ["--manifest", str(work / "manifest.tsv"), "--outputs", str(work / "out")]
        command += ["--report", str(work / "out.jsonl")]
        judged = subprocess.run(command, capture_output=True, text=True, check=False)
        told = judged.stdout.splitlines()
        print(*told[:-1], judged.stderr, sep="\n", file=sys.stderr)
        rows = [("files of the kinds, by the scorer", told[-1].split(" ")[1] if told else "none")]
        status = Counter(record["status"] for record in records)
        rows.append(("restored, refused, skipped", ", ".join(map(str, (status[s] for s in (
            "restored", "refused", "skipped"))))))  # fmt: skip
        bad = judged.returncode
        for name, folder in (("made here", inputs), ("the corpus", options.corpus)):
            if folder is None:
                continue
            compared, exact, faults = twice(folder, work / f"twice-{folder.name}")
            bad += bool(faults)
            print(*faults, sep="\n", file=sys.stderr)
            words = f"{compared - len(faults)}/{compared}, {exact} of them lossless"
            rows.append((f"invert twice is identity, {name}", words))
    print("| what | figure |", "|---|---|", sep="\n")
    for what, figure in rows:
        print(f"| {what} | {figure} |")
    return int(bad > 0)


def tellable(name: str) -> bool:
    return not any(c in name for c in "\t\n\r")


if __name__ == "__main__":
    raise SystemExit(main())
