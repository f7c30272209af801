"""Fixtures that every test may use. The default suite runs with sockets blocked.

Two processes share the files, each with one thread: most tests are too small for two.
"""

import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anybody imports torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_runtest_setup(item: pytest.Item) -> None:
    from pytest_socket import disable_socket

    disable_socket(allow_unix_socket=True)


@pytest.fixture(autouse=True, scope="session")
def cache_of_their_own(tmp_path_factory):
    """No test writes into the cache of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELUME_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def shared():
    """shared("data/photos") -> Path of the development data, or a skip that says what is absent."""

    def path(relative: str) -> Path:
        found = SHARED / relative
        if not found.exists():
            pytest.skip(f"needs the development data {relative!r}, which is not here")
        return found

    return path


@pytest.fixture
def photo() -> np.ndarray:
    """A (1, 3, 96, 128) picture in [0, 1] with edges, gradients and fine texture, drawn here."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:96, 0:128].astype(np.float32)
    rgb = np.stack([x / 128, y / 96, 0.5 + 0.3 * np.sin(x / 3) * np.cos(y / 5)])
    rgb[:, 30:60, 40:90] = np.array([0.8, 0.3, 0.2], np.float32)[:, None, None]
    return np.clip(rgb + rng.normal(0, 0.02, rgb.shape), 0, 1).astype(np.float32)[None]


@pytest.fixture
def relume(capsys, monkeypatch, tmp_path):
    """relume("restore", ...) -> (exit code, stdout, stderr), run in an empty folder."""
    from relume import cli

    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        words = [str(a) for a in arguments]
        capsys.readouterr()
        code = cli._run(lambda: cli.app(words, standalone_mode=False), words)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
