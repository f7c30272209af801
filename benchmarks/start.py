"""What a person waits for: `relume --help`, and one photograph restored, as whole processes.

    python benchmarks/start.py                                  # the environment this runs in
    python benchmarks/start.py --photo PHOTO.jpg --environment  # and the size of a fresh one

The photograph is a 0.5-megapixel JPEG (816 x 612), cut from --photo or drawn here. File caches are
warm: each command runs once before it is timed. Peak memory is the child's own resident peak.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Nothing of relume and no numpy here: on Linux a child's resident peak starts at its parent's.

ROOT = Path(__file__).resolve().parents[1]
HEIGHT, WIDTH = 612, 816


def child(command: list[str]) -> tuple[float, float]:
    """Wall seconds and resident peak in MB of one process.

    Raises:
        SystemExit: The command failed; its own words say why.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    words = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {words.strip()}")
    return wall, usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)


def write_photograph(source: Path | None, target: Path) -> None:
    """0.5 megapixels of a photograph, or of something with edges and texture."""
    import numpy as np

    from relume.image import Picture, read, write
    from relume.image.resize import resize

    if source is not None:
        rgb = read(source).rgb()
        h, w = rgb.shape[2:]
        factor = max(HEIGHT / h, WIDTH / w)
        rgb = resize(rgb, max(HEIGHT, round(h * factor)), max(WIDTH, round(w * factor)))
        rgb = rgb[:, :, :HEIGHT, :WIDTH]
    else:
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
        rgb = np.stack([x / WIDTH, y / HEIGHT, 0.5 + 0.4 * np.sin(x / 9) * np.cos(y / 23)])
        rgb = (rgb + rng.normal(0, 0.05, rgb.shape))[None]
    rgb = np.ascontiguousarray(np.clip(rgb, 0, 1), np.float32)
    write(Picture.from_rgb(rgb, format="jpeg"), target, quality=92)


def relume() -> str:
    beside = Path(sys.executable).with_name("relume")
    found = str(beside) if beside.exists() else shutil.which("relume")
    if not found:
        raise SystemExit("relume is not installed in this environment.")
    return found


def environment_size(folder: Path) -> float:
    """MB of a fresh environment with the ground floor alone (needs uv and its cache)."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    subprocess.run([uv, "venv", "-q", str(folder)], **quiet)
    python = str(folder / "bin" / "python")
    subprocess.run([uv, "pip", "install", "-q", "--python", python, str(ROOT)], **quiet)
    names = {p.name for p in folder.rglob("torch")}
    if names:
        raise SystemExit("torch came along.")
    seen: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            stat = path.stat()
            seen[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(seen.values()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--engine", default="onnx", choices=["onnx", "openvino", "torch"])
    parser.add_argument("--model", default="relume-s")
    parser.add_argument(
        "--environment", action="store_true", help="Install a fresh one and weigh it."
    )
    parser.add_argument("--write-photograph", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write_photograph:
        write_photograph(args.photo, args.write_photograph)
        return

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = [sys.executable, *sys.argv, "--write-photograph", str(folder / "photo.jpg")]
        subprocess.run(make, check=True)
        rows: dict[str, list[tuple[float, float]]] = {"--help": [], "restore": []}
        for round_ in range(args.rounds + 1):
            out = folder / f"out{round_}"
            restore = ["restore", str(folder / "photo.jpg"), "-o", str(out)]
            restore += ["--model", args.model, "--engine", args.engine]
            for key, arguments in {"--help": ["--help"], "restore": restore}.items():
                measured = child([relume(), *arguments])
                if round_:
                    rows[key].append(measured)
        print(f"medians of {args.rounds} rounds, {os.cpu_count()} cores, warm file cache")
        for key, label in {
            "--help": "relume --help",
            "restore": f"relume restore, {WIDTH} x {HEIGHT} JPEG, {args.model}, {args.engine}",
        }.items():
            walls, peaks = zip(*rows[key], strict=True)
            print(f"{label:58} {statistics.median(walls):6.2f} s   peak {max(peaks):5.0f} MB")
        if args.environment:
            print(f"{'a fresh environment':58} {environment_size(folder / 'venv'):6.0f} MB")


if __name__ == "__main__":
    main()
