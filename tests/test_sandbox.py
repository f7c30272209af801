"""A sandbox holds its limits from outside, gives back JSON and bytes, and shuts files away."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relume.errors import PictureError
from relume.sandbox import Sandbox, StoppedError
from relume.sandbox.landlock import version

needs_landlock = pytest.mark.skipif(version() == 0, reason="this kernel has no Landlock")
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")


# What runs inside; a sandbox finds it by name, as it finds a decoder.


def tries(request, buffers):
    what = request["what"]
    if what == "echo":
        return {"got": len(buffers[0])}, [buffers[0][::-1]]
    if what == "sleep":
        time.sleep(60)
    if what == "spin":
        while True:
            pass
    if what == "swell":
        return {"got": len(bytearray(request["bytes"]))}, []
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "refuse":
        raise PictureError("it is torn.")
    if what == "bug":
        raise ZeroDivisionError("of ours")
    if what == "much":
        return {}, [bytes(1000)]
    if what == "read":
        return {"read": Path(request["path"]).read_text()}, []
    if what == "write":
        Path(request["path"]).write_text("I was here")
    if what == "run":
        subprocess.run(["/bin/true"], check=True)
    if what == "call":
        socket.create_connection(("127.0.0.1", request["port"]), timeout=2)
    if what == "print":
        os.write(1, b"noise that is no frame")
        print("more of it", flush=True)
    return {}, []


@pytest.fixture(scope="module")
def box():
    with Sandbox("test_sandbox:tries", memory=256 << 20) as made:
        yield made


@pytest.fixture(scope="module")
def watched():
    with Sandbox("test_sandbox:tries", memory=256 << 20, readable=[], watched=True) as made:
        yield made


def ask(box, what, buffers=(), seconds=5.0, most=1 << 20, **more):
    return box.call({"what": what, **more}, buffers, seconds=seconds, most=most)


def test_bytes_go_in_and_come_back(box):
    data = os.urandom(300_000)
    said, given = ask(box, "echo", [data])
    assert (said, bytes(given[0])) == ({"got": len(data)}, data[::-1])
    ask(box, "print")  # what libraries print does not break the next frame
    assert ask(box, "echo", [b"ab"])[1] == [b"ba"]


def test_who_sleeps_is_ended_and_the_next_one_served(box):
    began = time.monotonic()
    with pytest.raises(StoppedError, match=r"longer than 0\.2 s"):
        ask(box, "sleep", seconds=0.2)
    assert time.monotonic() - began < 20
    assert ask(box, "echo", [b"ab"])[1] == [b"ba"]


@linux
def test_who_spins_is_ended_by_the_kernel(box):
    with pytest.raises(StoppedError, match="longer than 1 s"):
        ask(box, "spin", seconds=1)


@linux
def test_a_total_counts_what_the_libraries_take():
    with Sandbox("test_sandbox:tries", memory=1 << 30, total=200 << 20) as box:
        assert box.call({"what": "swell", "bytes": 50 << 20}, seconds=5, most=0)[0]["got"]
        with pytest.raises(StoppedError, match="200 MB of memory"):
            box.call({"what": "swell", "bytes": 198 << 20}, seconds=5, most=0)
    with Sandbox("test_sandbox:tries", memory=1 << 30) as box:
        assert box.call({"what": "swell", "bytes": 198 << 20}, seconds=5, most=0)[0]["got"]


@linux
def test_memory_has_an_end(box):
    assert ask(box, "swell", bytes=100 << 20)[0] == {"got": 100 << 20}
    with pytest.raises(StoppedError, match="needs more than 256 MB"):
        ask(box, "swell", bytes=400 << 20)
    assert ask(box, "swell", bytes=1 << 20)[0] == {"got": 1 << 20}


def test_a_crash_is_one_line(box):
    with pytest.raises(StoppedError, match=r"stopped its reader \(SIGSEGV\)"):
        ask(box, "crash")


def test_errors_come_back_as_what_they_were(box):
    with pytest.raises(PictureError, match=r"^it is torn\.$"):
        ask(box, "refuse")
    with pytest.raises(StoppedError, match="ZeroDivisionError"):
        ask(box, "bug")


def test_more_than_was_asked_for_is_not_taken(box):
    with pytest.raises(StoppedError, match="more than it may"):
        ask(box, "much", most=999)


@needs_landlock
def test_no_file_is_opened_inside(box, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    with pytest.raises(StoppedError, match="PermissionError"):
        ask(box, "read", path=str(secret))
    with pytest.raises(StoppedError, match="PermissionError"):
        ask(box, "write", path=str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    assert secret.read_text() == "mine"


@needs_landlock
def test_only_what_was_named_is_read(tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    own.write_text("weights")
    other.write_text("not theirs")
    with Sandbox("test_sandbox:tries", memory=256 << 20, readable=[str(own)]) as made:
        assert ask(made, "read", path=str(own))[0] == {"read": "weights"}
        with pytest.raises(StoppedError, match="PermissionError"):
            ask(made, "read", path=str(other))


@needs_landlock
def test_no_program_is_started_inside(box):
    with pytest.raises(StoppedError, match="PermissionError"):
        ask(box, "run")


@pytest.mark.parametrize("what", ["write", "run", "call"])
def test_the_interpreter_catches_who_tries(watched, what, tmp_path):
    with pytest.raises(StoppedError, match="what no such file may do"):
        ask(watched, what, path=str(tmp_path / "new"), port=9)
    assert not (tmp_path / "new").exists()


def test_what_does_not_start_is_said():
    with (
        Sandbox("no_such_module:there", memory=1 << 28) as made,
        pytest.raises(StoppedError, match="did not start"),
    ):
        ask(made, "echo", [b""])


def test_the_child_ends_with_its_parent():
    code = (
        "from relume.sandbox import Sandbox\nb = Sandbox('relume.errors:nearest', memory=1 << 28)"
    )
    code += "\nb.start(); print(b._child.pid, flush=True)\nimport os; os._exit(0)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    child = int(done.stdout)
    for _ in range(200):
        try:
            if "Z" in Path(f"/proc/{child}/stat").read_text().split(")")[1][:3]:
                return
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail(f"{child} lives on")
