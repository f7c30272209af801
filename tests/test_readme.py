"""The README tells the truth: its tree is the disk, its commands are commands, its names exist."""

import fnmatch
import re
import shlex
from pathlib import Path

import pytest

import relume
from relume import cli

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/log.md")


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def tree() -> dict[str, str]:
    """Path (or pattern) -> remark, from the indented block that follows the comment."""
    block = re.search(r"<!-- tree.*?-->\n```\n(.*?)```", readme(), re.DOTALL)
    assert block, "the README has no tree"
    found, folders = {}, []
    for line in block[1].splitlines():
        indent = (len(line) - len(line.lstrip())) // 2
        name, _, remark = line.strip().partition("  ")
        del folders[indent:]
        if name.endswith("/"):
            folders.append(name)
        else:
            found["".join(folders) + name] = remark.strip()
    return found


def on_disk() -> list[str]:
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    ignored += [".git", "uv.lock"]

    def walk(folder: Path):
        for path in sorted(folder.iterdir()):
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in ignored):
                continue
            if path.is_dir():
                yield from walk(path)
            else:
                yield path.relative_to(ROOT).as_posix()

    return list(walk(ROOT))


def test_the_tree_names_exactly_the_files_on_disk():
    named, disk = tree(), on_disk()
    missing = [path for path in disk if not any(fnmatch.fnmatch(path, n) for n in named)]
    ghosts = [name for name in named if not any(fnmatch.fnmatch(path, name) for path in disk)]
    assert (missing, ghosts) == ([], [])


def test_every_file_in_the_tree_has_a_remark():
    assert [name for name, remark in tree().items() if not remark] == []


def commands() -> list[str]:
    return re.findall(r"^\$ (relume .*?)(?:\s+#.*)?$", readme(), re.MULTILINE)


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_readme_parses(line, capsys):
    arguments = [*shlex.split(line)[1:], "--help"]  # an unknown flag fails before the help
    assert cli._run(lambda: cli.app(arguments, standalone_mode=False), arguments) == 0
    assert "Usage: " in capsys.readouterr().out


def test_the_specs_of_the_readme_are_specs():
    degrade = pytest.importorskip("relume.lab.degrade")
    words = [shlex.split(line) for line in commands()]
    flags = [(w, f) for w in words for f in ("--spec", "--degrade") if f in w]
    read = [degrade.parse(w[w.index(flag) + 1]).kinds for w, flag in flags]
    assert read and all(read)


def test_the_python_of_the_readme_uses_names_that_exist():
    block = re.search(r"```python\n(.*?)```", readme(), re.DOTALL)
    assert block
    names = set(re.findall(r"relume\.(\w+)\(", block[1]))
    assert names
    assert all(callable(getattr(relume, name)) for name in names)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_within_the_repository_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    here = (ROOT / document).parent
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith(("http://", "https://")):
            assert (here / target).exists(), target


def test_ci_runs_the_test_command_of_the_readme():
    command = re.search(r"^uv run ((?:--extra \w+ )+)pytest$", readme(), re.MULTILINE)
    assert command
    assert f"extras=({command[1].strip()})" in (ROOT / ".ci/run").read_text()
