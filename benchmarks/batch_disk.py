"""A folder job where nothing can be written, and where something is in the way.

    python benchmarks/batch_disk.py [--seed 0]

Disk: for each trouble the command must end with exit code 3, without a traceback, with at most one
line a picture; every output that is there equals the reference, nothing half written is left, and
the same command finishes once the trouble is gone. File systems of 8 MiB, of few files, and such as
are read-only need the right to mount; where it is missing their cases are told as skipped.

No overwrite: twenty ways in which a file lies where an output would, each without `--overwrite` and
with it. What was there must be what it was: bytes, inode, time. The control: a journal that calls
every file ours must be caught. Prints a Markdown table; exit 1 where anything did not hold.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from relume.image import Picture, encode

PLAIN = "from relume.cli import main; main()"
SLOW = "import time\nfrom relume.image import placing\nfill = placing._fill\n"
SLOW += "def slow(file, pieces):\n    time.sleep(0.3)\n    fill(file, pieces)\nplacing._fill = slow"
ALL_OURS = "from relume.batch import Journal\nJournal.is_ours = lambda self, target: True"


def picture(seed: int, side: int = 40) -> bytes:
    rng = np.random.default_rng(seed)
    return encode(Picture(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)), "png")


def relume(
    *arguments: object, hook: str = "", limit: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"{hook}\n{PLAIN}", "restore", *map(str, arguments)]
    command += ["--model", "invert", "--quiet"]
    return subprocess.run(
        command, capture_output=True, text=True, preexec_fn=limit, timeout=120, check=False
    )


def outputs(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of what lies in an output folder, without the journal's folder."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


class Disk:
    """The disk's troubles; each method is one case and gives what did not hold."""

    def __init__(self, home: Path) -> None:
        self.inputs, self.home = home / "in", home
        self.inputs.mkdir()
        for number in range(12):
            (self.inputs / f"{number:02}.png").write_bytes(picture(number, 600))
        assert relume(self.inputs, "-o", home / "reference").returncode == 0
        self.reference = outputs(home / "reference")

    def judge(
        self, done: subprocess.CompletedProcess[str], out: Path, mend: Callable[[], None] | None
    ) -> list[str]:
        lines = done.stderr.splitlines()
        left = outputs(out) if out.is_dir() else {}
        home = out / ".relume"
        others = {p.name for p in home.iterdir()} - {"journal.jsonl"} if home.is_dir() else set()
        wrong = {
            f"exit code {done.returncode}": done.returncode != 3,
            "a traceback": "Traceback" in done.stderr,
            f"{len(lines)} lines": not 0 < len(lines) <= len(self.reference),
            "a partial output": any(self.reference[name] != data for name, data in left.items()),
            f"left over: {others}": bool(others),
        }
        if mend is not None:
            mend()
            again = relume(self.inputs, "-o", out)
            wrong["the same command does not finish"] = (
                again.returncode != 0 or outputs(out) != self.reference
            )
        return [words for words, held in wrong.items() if held]

    def full(self) -> list[str]:
        out = self.home / "full"
        with mounted(out, "size=8m"):
            done = relume(self.inputs, "-o", out)
            assert 0 < len(outputs(out)) < len(self.reference), "it was not full"
            return self.judge(done, out, lambda: remount(out, "size=64m"))

    def no_inodes(self) -> list[str]:
        out = self.home / "inodes"
        with mounted(out, "size=64m,nr_inodes=8"):
            return self.judge(
                relume(self.inputs, "-o", out), out, lambda: remount(out, "nr_inodes=1000")
            )

    def read_only_mount(self) -> list[str]:
        out = self.home / "readonly"
        with mounted(out, "size=64m"):
            remount(out, "ro")
            return self.judge(relume(self.inputs, "-o", out), out, lambda: remount(out, "rw"))

    def read_only_folder(self) -> list[str]:
        out = self.home / "locked"
        out.mkdir(mode=0o555)
        if os.geteuid() == 0:  # whom modes do not keep out
            subprocess.run(["chattr", "+i", str(out)], check=True)
        done = relume(self.inputs, "-o", out)
        if os.geteuid() == 0:
            subprocess.run(["chattr", "-i", str(out)], check=True)
        return self.judge(done, out, lambda: out.chmod(0o777))

    def deleted_midway(self) -> list[str]:
        out = self.home / "deleted"
        timer = threading.Thread(target=self._once_some, args=(out, lambda: shutil.rmtree(out)))
        timer.start()
        done = relume(self.inputs, "-o", out, hook=SLOW)
        timer.join()
        return self.judge(done, out, lambda: None)

    def file_size_limit(self) -> list[str]:
        out = self.home / "ulimit"
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # noqa: E731
        return self.judge(relume(self.inputs, "-o", out, limit=limit), out, lambda: None)

    def out_below_a_file(self) -> list[str]:
        blocked = self.home / "blocked"
        blocked.write_bytes(b"a file")
        faults = self.judge(relume(self.inputs, "-o", blocked / "out"), blocked / "out", None)
        return faults + ["the file changed"] * (blocked.read_bytes() != b"a file")

    def journal_is_a_file(self) -> list[str]:
        out = self.home / "taken"
        out.mkdir()
        (out / ".relume").write_bytes(b"mine")
        done = relume(self.inputs, "-o", out)
        kept = (out / ".relume").read_bytes() == b"mine"
        (out / ".relume").rename(self.home / "moved")
        return self.judge(done, out, lambda: None) + ["a file changed"] * (not kept)

    def _once_some(self, out: Path, act: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if out.is_dir() and sum(1 for _ in out.iterdir()) > 4:
                break
            time.sleep(0.005)
        act()


DISK = {
    "8 MiB full": (Disk.full, True),
    "no inode left": (Disk.no_inodes, True),
    "read-only file system": (Disk.read_only_mount, True),
    "read-only folder": (Disk.read_only_folder, False),
    "folder deleted midway": (Disk.deleted_midway, False),
    "ulimit -f": (Disk.file_size_limit, False),
    "a file where OUT's folder would be": (Disk.out_below_a_file, False),
    "a file where the journal's folder would be": (Disk.journal_is_a_file, False),
}


# What lies where an output would. Each makes its files in a folder that holds in/a.png, and gives
# the arguments of the command; the files of `in`, `out` and `mine` must stay what they are.

Lay = Callable[[Path], list[object]]


def in_the_way(write: Callable[[Path], None]) -> Lay:
    def lay(home: Path) -> list[object]:
        (home / "out").mkdir()
        write(home / "out" / "a.png")
        return [home / "in", "-o", home / "out"]

    return lay


def after_a_run(change: Callable[[Path], None]) -> Lay:
    """Ours once, then something else."""

    def lay(home: Path) -> list[object]:
        assert relume(home / "in", "-o", home / "out", "--strength", "0.5").returncode == 0
        change(home / "out" / "a.png")
        return [home / "in", "-o", home / "out"]

    return lay


def _mine(path: Path) -> Path:
    other = path.parent.parent / "mine" / "old.png"
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(picture(77))
    return other


def _locked(path: Path) -> None:
    path.write_bytes(b"mine")
    path.chmod(0o400)


def _swap(path: Path, link: str) -> None:
    path.unlink()
    getattr(path, link)(_mine(path))


def _other_suffix(home: Path) -> list[object]:
    (home / "in" / "a.png").rename(home / "in" / "a.gif")  # a PNG, whatever it says
    (home / "out").mkdir()
    (home / "out" / "a.png").write_bytes(b"mine")
    return [home / "in", "-o", home / "out"]


def _two_inputs_one_name(home: Path) -> list[object]:
    (home / "mine").mkdir()
    (home / "mine" / "a.png").write_bytes(picture(5))
    return [home / "in" / "a.png", home / "mine" / "a.png", "-o", home / "in"]


def _output_is_another_input(home: Path) -> list[object]:
    assert relume(home / "in", "-o", home / "out", "--strength", "0.5").returncode == 0
    return [home / "in" / "a.png", home / "out" / "a.png", "-o", home / "out"]


def _linked_folder(home: Path) -> list[object]:
    (home / "out").symlink_to(home / "in")
    return [home / "in", "-o", home / "out"]


def _linked_folder_below(home: Path) -> list[object]:
    (home / "in" / "sub").mkdir()
    (home / "in" / "sub" / "b.png").write_bytes(picture(6))
    (home / "out").mkdir()
    (home / "out" / "sub").symlink_to(home / "in" / "sub")
    (home / "in" / "a.png").unlink()
    return [home / "in", "-r", "-o", home / "out"]


def _twins(home: Path) -> list[object]:
    (home / "in" / "A.png").write_bytes(picture(8))
    (home / "out").mkdir()
    (home / "out" / "A.png").write_bytes(b"mine")
    (home / "out" / "a.png").write_bytes(b"mine too")
    return [home / "in", "-o", home / "out"]


def _sidecar(home: Path) -> list[object]:
    (home / "out").mkdir()
    (home / "out" / "a.png.json").write_bytes(b"mine")
    return [home / "in", "-o", home / "out", "--sidecar"]


WAYS: dict[str, Lay] = {
    "OUT is the input folder": lambda home: [home / "in", "-o", home / "in"],
    "OUT is the input file": lambda home: [home / "in/a.png", "-o", home / "in/a.png"],
    "OUT is the input by another spelling": lambda home: [
        home / "in/a.png", "-o", home / "in/../in/./a.png"
    ],
    "OUT is a link to the input folder": _linked_folder,
    "a folder below OUT is a link to the inputs'": _linked_folder_below,
    "another picture": in_the_way(lambda path: path.write_bytes(picture(9)) and None),
    "an empty file": in_the_way(lambda path: path.touch()),
    "a file that may not be written": in_the_way(_locked),
    "a symbolic link to the input": in_the_way(
        lambda path: path.symlink_to(path.parent.parent / "in" / "a.png")
    ),
    "a hard link to the input": in_the_way(
        lambda path: path.hardlink_to(path.parent.parent / "in" / "a.png")
    ),
    "a symbolic link to another file": in_the_way(lambda path: path.symlink_to(_mine(path))),
    "a link to nothing": in_the_way(lambda path: path.symlink_to(path.parent / "nothing")),
    "a folder": in_the_way(lambda path: path.mkdir()),
    "a pipe": in_the_way(lambda path: os.mkfifo(path)),
    "our output, edited": after_a_run(lambda path: path.write_bytes(picture(10)) and None),
    "our output, now a link": after_a_run(lambda path: _swap(path, "symlink_to")),
    "our output, now a hard link": after_a_run(lambda path: _swap(path, "hardlink_to")),
    "the name that a lying suffix becomes": _other_suffix,
    "two inputs of one name": _two_inputs_one_name,
    "the output is another input": _output_is_another_input,
    "names that differ in case": _twins,
    "a file where the sidecar would be": _sidecar,
}  # fmt: skip


def stamps(home: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a folder but journals: kind, inode, time, bytes or aim."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(home.rglob("*")):
        if ".relume" in path.parts or (path.is_dir() and not path.is_symlink()):
            continue
        told = path.lstat()
        if path.is_symlink():
            held: object = path.readlink()
        else:
            held = path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(home))] = (told.st_mode, told.st_ino, told.st_mtime_ns, held)
    return found


def guarded(home: Path, lay: Lay, overwrite: bool, hook: str = "") -> list[str]:
    (home / "in").mkdir(parents=True)
    (home / "in" / "a.png").write_bytes(picture(1))
    arguments = lay(home)
    before = stamps(home)
    done = relume(*arguments, *["--overwrite"] * overwrite, hook=hook)
    after = stamps(home)
    faults = [name for name, stamp in before.items() if after.get(name) != stamp]
    if "Traceback" in done.stderr or done.returncode not in (0, 1, 3):
        faults.append(f"exit code {done.returncode}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    rows: list[tuple[str, str]] = []
    bad = 0
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        home.chmod(0o755)
        may_mount = os.geteuid() == 0
        if may_mount:
            try:
                with mounted(home / "try", "size=1m"):
                    pass
            except (subprocess.CalledProcessError, FileNotFoundError):
                may_mount = False
        disk = Disk(home)
        for name, (case, mounts) in DISK.items():
            if mounts and not may_mount:
                rows.append((name, "skipped: no right to mount"))
                continue
            faults = case(disk)
            bad += bool(faults)
            rows.append((name, "; ".join(faults) or "holds"))
        held, cases = 0, 0
        for number, (name, lay) in enumerate(WAYS.items()):
            for overwrite in (False, True):
                folder = home / f"way{number}{overwrite}"
                faults = guarded(folder, lay, overwrite)
                cases += 1
                held += not faults
                if faults:
                    told = " with --overwrite" * overwrite
                    print(f"{name}{told}: {faults}", file=sys.stderr, flush=True)
        rows.append(("nothing replaced", f"{held}/{cases}"))
        bad += held < cases
        caught = guarded(home / "control", WAYS["another picture"], True, hook=ALL_OURS)
        rows.append(("control: every file called ours", "caught" if caught else "missed"))
        bad += not caught
    print("| trouble | result |", "|---|---|", sep="\n")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return int(bad > 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
