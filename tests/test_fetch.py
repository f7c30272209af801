"""`models fetch`: the pinned bytes or nothing, from a server that cuts, lies, stalls, redirects."""

import hashlib
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from pytest_socket import enable_socket

from relume import fetch as fetching
from relume.errors import MissingError, ModelError, UsageError
from relume.fetch import Remote, fetch

DATA = np.random.default_rng(0).bytes(300_000)
PINNED = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers as `how` says; `asked` holds the ranges that were asked for."""

    daemon_threads = True
    how = "well"
    cut_at = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def remote(self) -> Remote:
        return Remote(f"http://127.0.0.1:{self.server_port}/m.onnx", PINNED, len(DATA))


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        how, asked = self.server.how, self.headers.get("Range")
        self.server.asked.append(asked)
        if how == "redirect" and self.path == "/m.onnx":
            self.send_response(302)
            self.send_header("Location", "/else")
            self.end_headers()
            return
        if how == "away":
            self.send_response(302)
            self.send_header("Location", "http://example.com/else")
            self.end_headers()
            return
        if how == "gone":
            self.send_error(404)
            return
        begin = int(asked.split("=")[1].rstrip("-")) if asked and how != "no ranges" else 0
        body = DATA[begin:]
        if how == "other bytes":
            body = bytes(len(body))
        if how == "more":
            body += b"more"
        self.send_response(206 if begin else 200)
        kind = "text/html" if how == "page" else "application/octet-stream"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if how in ("cut once", "no ranges", "always cut") and self.server.cut_at:
            self.wfile.write(body[: self.server.cut_at])
            if how != "always cut":
                self.server.cut_at = 0
            return
        if how == "stall":
            self.wfile.write(body[:1000])
            self.wfile.flush()
            time.sleep(1.5)
            return
        self.wfile.write(body)


@pytest.fixture
def server():
    enable_socket()
    made = Server()
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder / "m.onnx"


def left(target):
    """Whatever lies beside the target or in the folder of parts."""
    parts = target.parent.parent / "parts"
    return [*target.parent.iterdir(), *(parts.iterdir() if parts.exists() else [])]


def get(server, target, **more):
    fetch(server.remote, target, parts=target.parent.parent / "parts", patience=0.4, **more)


@pytest.mark.parametrize("how", ["well", "redirect"])
def test_the_pinned_bytes_come_and_nothing_else_stays(how, server, target):
    server.how = how
    told = []
    get(server, target, tell=lambda here, whole: told.append((here, whole)))
    assert target.read_bytes() == DATA
    assert left(target) == [target]
    assert told[-1] == (len(DATA), len(DATA))


@pytest.mark.parametrize("at", [1, 999, 65_536, 299_999])
@pytest.mark.parametrize("how", ["cut once", "no ranges"])
def test_what_is_cut_is_gone_on_with(how, at, server, target):
    server.how, server.cut_at = how, at
    get(server, target)
    assert target.read_bytes() == DATA
    assert server.asked == [None, f"bytes={at}-"]


def test_the_next_command_goes_on_where_this_one_stopped(server, target):
    server.how, server.cut_at = "always cut", 1000
    with pytest.raises(MissingError, match="gone on with"):
        get(server, target)
    assert not target.exists()
    server.how, server.asked = "well", []
    get(server, target)
    assert server.asked == ["bytes=5000-"]
    assert target.read_bytes() == DATA
    assert left(target) == [target]


@pytest.mark.parametrize(
    ("how", "words"),
    [("other bytes", "other bytes"), ("page", "with a page"), ("more", "more than it should")],
)
def test_other_bytes_are_refused_and_nothing_stays(how, words, server, target):
    server.how = how
    with pytest.raises(ModelError, match=words):
        get(server, target)
    assert left(target) == []


def test_a_part_of_other_bytes_is_begun_anew(server, target):
    parts = target.parent.parent / "parts"
    parts.mkdir()
    (parts / f"{PINNED}.part").write_bytes(bytes(1000))
    get(server, target)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("how", ["stall", "gone"])
def test_who_does_not_answer_is_left_in_one_line(how, server, target, monkeypatch):
    monkeypatch.setattr(fetching, "TRIES", 2)
    server.how = how
    with pytest.raises(MissingError, match="Try it later") as error:
        get(server, target)
    assert "\n" not in str(error.value)
    assert not target.exists()


def test_no_address_but_https(server, target):
    with pytest.raises(UsageError, match="https"):
        fetch(Remote("http://example.com/m.onnx", PINNED, 9), target)
    with pytest.raises(UsageError, match="https"):
        fetch(Remote("file:///etc/passwd", PINNED, 9), target)
    server.how = "away"
    with pytest.raises(UsageError, match=r"example\.com"):
        get(server, target)
    assert not target.exists()


def test_the_part_that_another_begins_behind_us_is_left_to_it(server, target, monkeypatch):
    moved, others = os.replace, []

    def replace(part, to):
        moved(part, to)
        Path(part).write_bytes(b"of the next one")
        others.append(Path(part))

    monkeypatch.setattr("relume.fetch.os.replace", replace)
    get(server, target)
    assert target.read_bytes() == DATA
    assert [other.read_bytes() for other in others] == [b"of the next one"]


def test_several_at_once_leave_one_good_copy(server, target):
    wrong = []

    def work():
        try:
            get(server, target)
        except Exception as error:
            wrong.append(error)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    assert target.read_bytes() == DATA
    assert left(target) == [target]


def test_nothing_is_fetched_that_is_not_known(relume):
    code, _, said = relume("models", "fetch", "relume-xl")
    assert (code, said.count("\n")) == (2, 1)
