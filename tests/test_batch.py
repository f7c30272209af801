"""Folder jobs: names, journal, refusals, and the promise never to touch what is not ours."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relume.batch import Job, Journal, plan, run
from relume.batch.forecast import forecast
from relume.batch.working import Worker
from relume.errors import ModelError, OutputError, PictureError, UsageError
from relume.image import Picture, encode, frames, placing, read, reader, writer

SETTINGS = {"model": "identity", "model_sha256": "0" * 64, "engine": "onnx", "device": "cpu"}
SETTINGS |= {"strength": 1.0, "prior": "none"}


@dataclass
class Answer:
    picture: Picture | None
    announced: tuple[str, ...] = ()


def identity(path: Path, picture: Picture) -> Answer:
    return Answer(picture.with_rgb(picture.rgb()))


def invert(path: Path, picture: Picture) -> Answer:
    return Answer(picture.with_rgb(1 - picture.rgb()))


def picture(seed: int = 0) -> Picture:
    return Picture(np.random.default_rng(seed).integers(0, 256, (9, 13, 3), dtype=np.uint8))


@pytest.fixture
def scans(tmp_path) -> Path:
    """Three pictures, one of them broken, one below, a text file, and a hidden file."""
    folder = tmp_path / "scans"
    (folder / "1912").mkdir(parents=True)
    (folder / "a.png").write_bytes(encode(picture(1), "png"))
    (folder / "b.jpg").write_bytes(encode(picture(2), "jpeg"))
    (folder / "broken.png").write_bytes(encode(picture(3), "png")[:60])
    (folder / "1912" / "c.tif").write_bytes(encode(picture(4), "tiff"))
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden").write_text("neither")
    return folder


def job(scans: Path, **changes) -> Job:
    return replace(Job([scans], scans.parent / "out", settings=SETTINGS), **changes)


def tree(folder: Path) -> dict[str, str]:
    """Relative path to sha256, less the journal's folder."""
    files = (p for p in folder.rglob("*") if p.is_file() and ".relume" not in p.parts)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def by_name(records) -> dict[str, dict]:
    return {Path(record["input"]).name: record for record in records}


# Names and folders


def test_a_folder_gives_its_pictures_and_counts_the_rest(scans):
    before = tree(scans)
    outcome = run(job(scans), identity)
    assert set(tree(scans.parent / "out")) == {"a.png", "b.jpg"}
    assert outcome.exit_code == 1  # the broken one
    assert outcome.ignored == 2
    assert [r["status"] for r in outcome.records] == ["restored", "restored", "refused"]
    assert tree(scans) == before
    assert names(scans.parent / "out") == {"a.png", "b.jpg", ".relume"}
    assert names(scans.parent / "out" / ".relume") == {"journal.jsonl"}


def test_recursive_mirrors_the_tree(scans):
    run(job(scans, recursive=True), identity)
    assert set(tree(scans.parent / "out")) == {"a.png", "b.jpg", "1912/c.tif"}


def test_results_inside_the_input_folder_are_no_inputs_of_the_next_run(scans):
    inside = job(scans, out=scans / "restored", recursive=True)
    first = run(inside, identity)
    second = run(inside, identity)
    assert len(first.records) == len(second.records) == 4
    assert second.count("skipped") == 3


def test_identity_is_exact_and_invert_is_the_complement(scans):
    run(job(scans), identity)
    run(job(scans, out=scans.parent / "inverted"), invert)
    source = read(scans / "a.png").pixels
    assert np.array_equal(read(scans.parent / "out" / "a.png").pixels, source)
    assert np.array_equal(read(scans.parent / "inverted" / "a.png").pixels, 255 - source)


def test_out_may_be_a_file(scans):
    target = scans.parent / "one" / "mended.tif"
    outcome = run(job(scans, inputs=[scans / "a.png"], out=target), identity)
    assert outcome.exit_code == 0
    assert read(target).format == "tiff"
    assert (target.parent / ".relume" / "journal.jsonl").exists()


def test_out_as_a_file_needs_a_suffix_that_can_be_written(scans):
    with pytest.raises(UsageError, match="cannot write"):
        run(job(scans, inputs=[scans / "a.png"], out=scans / "a.bmp"), identity)


def test_several_inputs_cannot_go_into_one_file(scans):
    (scans.parent / "out.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="is a file"):
        run(job(scans, out=scans.parent / "out.png"), identity)
    assert (scans.parent / "out.png").read_bytes() == b"mine"


def test_no_input_is_wrong_usage(scans):
    with pytest.raises(UsageError, match="No input"):
        run(job(scans, inputs=[]), identity)


def test_a_missing_input_is_refused_and_the_others_are_done(scans):
    outcome = run(job(scans, inputs=[scans / "none.png", scans / "a.png"]), identity)
    assert [r["status"] for r in outcome.records] == ["refused", "restored"]
    assert "no such file" in outcome.records[0]["message"]


def test_a_named_file_is_always_judged(scans):
    (scans / ".seen.png").write_bytes(encode(picture(), "png"))
    named = [scans / "notes.txt", scans / ".seen.png"]
    outcome = run(job(scans, inputs=named), identity)
    assert [r["status"] for r in outcome.records] == ["refused", "restored"]
    assert "not a picture" in outcome.records[0]["message"]


def test_a_hidden_picture_in_a_folder_is_left_and_said_so(scans):
    (scans / ".seen.png").write_bytes(encode(picture(), "png"))
    record = by_name(run(job(scans), identity).records)[".seen.png"]
    assert (record["status"], record["output"]) == ("skipped", None)


def test_a_suffix_that_lied_is_changed_and_announced(scans):
    (scans / "really.jpg").write_bytes(encode(picture(), "png"))
    record = by_name(run(job(scans), identity).records)["really.jpg"]
    assert Path(record["output"]).name == "really.png"
    assert "suffix .jpg became .png" in record["announced"][0]


def test_a_changed_suffix_never_collides_with_another_input(scans):
    Image.fromarray(picture().pixels).save(scans / "a.gif")
    records = by_name(run(job(scans), identity).records)
    assert Path(records["a.png"]["output"]).name == "a.png"
    assert Path(records["a.gif"]["output"]).name == "a.gif.png"


def test_two_inputs_of_one_name_cannot_both_be_written(scans):
    (scans / "1912" / "a.png").write_bytes(encode(picture(9), "png"))
    outcome = run(job(scans, inputs=[scans / "a.png", scans / "1912" / "a.png"]), identity)
    assert [r["status"] for r in outcome.records] == ["restored", "refused"]
    assert "another folder" in outcome.records[1]["message"]


@pytest.mark.parametrize(
    "name",
    [
        " leading space.png",
        "-rf.png",
        "$(touch canary).png",
        "new\nline.png",
        "写真 😀.png",
        unicodedata.normalize("NFD", "café.png"),
        "a" * 251 + ".png",
        "no suffix",
        "%s%n.PNG",
        "..dots..png",
    ],
)
def test_a_name_is_only_data(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(encode(picture(), "png"))
    outcome = run(Job([tmp_path / "in" / name], tmp_path / "out", settings=SETTINGS), identity)
    assert outcome.count("restored") == 1
    assert list(tree(tmp_path / "out")) == [name if "." in name else f"{name}.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_messages_are_one_line_whatever_the_name(tmp_path):
    path = tmp_path / "new\nline\x1b[31m.png"
    path.write_bytes(b"no picture")
    message = run(Job([path], tmp_path / "out"), identity).records[0]["message"]
    assert message.isprintable()


# Never replacing


def test_an_existing_file_is_never_replaced(scans):
    out = scans.parent / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"mine")
    for overwrite in (False, True):
        outcome = run(job(scans, overwrite=overwrite), identity)
        assert "not ours" in by_name(outcome.records)["a.png"]["message"]
        assert (out / "a.png").read_bytes() == b"mine"


def test_the_input_folder_as_output_changes_nothing(scans):
    before = tree(scans)
    outcome = run(job(scans, out=scans, recursive=True), invert)
    assert outcome.exit_code == 1
    assert outcome.count("restored") == 0
    assert tree(scans) == before


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_link_to_the_input_is_not_written_through(scans, link):
    out = scans.parent / "out"
    out.mkdir()
    getattr(out / "a.png", link)(scans / "a.png")
    before = tree(scans)
    outcome = run(job(scans, inputs=[scans / "a.png"], overwrite=True), invert)
    assert outcome.count("refused") == 1
    assert tree(scans) == before


def test_a_dangling_link_in_the_output_is_not_followed(scans):
    out = scans.parent / "out"
    out.mkdir()
    (out / "a.png").symlink_to(scans.parent / "elsewhere.png")
    run(job(scans, overwrite=True), identity)
    assert not (scans.parent / "elsewhere.png").exists()


def test_overwrite_replaces_only_what_we_wrote(scans):
    run(job(scans), identity)
    other = {**SETTINGS, "model": "invert"}
    refused = run(job(scans, settings=other), invert)
    assert "--overwrite" in by_name(refused.records)["a.png"]["message"]
    (scans.parent / "out" / "b.jpg").write_bytes(b"edited by hand")
    outcome = by_name(run(job(scans, settings=other, overwrite=True), invert).records)
    assert outcome["a.png"]["status"] == "restored"
    assert outcome["b.jpg"]["status"] == "refused"
    assert (scans.parent / "out" / "b.jpg").read_bytes() == b"edited by hand"
    inverted = read(scans.parent / "out" / "a.png").pixels
    assert np.array_equal(inverted, 255 - read(scans / "a.png").pixels)


# The journal


def test_a_second_run_skips_what_is_finished(scans):
    first = run(job(scans), identity)
    asked = []
    second = run(job(scans), lambda path, shown: asked.append(path))  # pyright: ignore
    assert asked == []
    records = by_name(second.records)
    assert (records["a.png"]["status"], records["a.png"]["message"]) == ("skipped", "already done")
    assert records["a.png"]["output"] == by_name(first.records)["a.png"]["output"]
    assert second.exit_code == 1  # the broken one is judged again


def test_a_lost_output_is_made_again_to_the_same_bytes(scans):
    run(job(scans), identity)
    before = tree(scans.parent / "out")
    (scans.parent / "out" / "a.png").unlink()
    run(job(scans), identity)
    assert tree(scans.parent / "out") == before


def test_a_torn_journal_is_read_as_far_as_it_goes(scans):
    run(job(scans), identity)
    path = scans.parent / "out" / ".relume" / "journal.jsonl"
    path.write_text(path.read_text() + '{"key": "torn')
    assert run(job(scans), identity).count("skipped") == 2


def test_a_changed_input_is_another_job(scans):
    run(job(scans), identity)
    (scans / "a.png").write_bytes(encode(picture(8), "png"))
    outcome = run(job(scans, overwrite=True), identity)
    assert by_name(outcome.records)["a.png"]["status"] == "restored"


def test_settings_are_part_of_the_key(tmp_path):
    keys = {Journal(tmp_path / "j", {"strength": s}).key(b"bytes") for s in (0.5, 1.0)}
    assert len(keys) == 2


def test_several_at_once_give_the_same_bytes_and_order(scans):
    for seed in range(6):
        (scans / f"more{seed}.png").write_bytes(encode(picture(seed), "png"))
    one = run(job(scans), invert)
    many = run(job(scans, out=scans.parent / "four", jobs=4), invert)
    assert tree(scans.parent / "out") == tree(scans.parent / "four")
    assert [r["input"] for r in one.records] == [r["input"] for r in many.records]


# Report, sidecar, dry run, strength 0


def test_the_report_has_exactly_the_contracts_fields(scans):
    report = scans.parent / "run.jsonl"
    run(job(scans, report=report), identity)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    fields = ["input", "output", "status", "message", "announced", "seconds", "pixels", "model"]
    fields += ["model_sha256", "engine", "device", "strength", "prior", "guard"]
    assert all(list(line) == fields for line in lines)
    restored, refused = lines[0], lines[2]
    assert (restored["pixels"], restored["model"], restored["message"]) == (117, "identity", None)
    assert (refused["status"], refused["output"]) == ("refused", None)
    assert str(scans / "broken.png") in refused["message"]


def test_a_report_never_replaces_a_photograph(scans):
    with pytest.raises(UsageError, match="no report"):
        run(job(scans, report=scans / "b.jpg"), identity)
    assert read(scans / "b.jpg").format == "jpeg"


def test_a_sidecar_lies_beside_its_output(scans):
    run(job(scans, sidecar=True), identity)
    sidecar = scans.parent / "out" / "a.png.json"
    assert json.loads(sidecar.read_text())["status"] == "restored"


def test_a_dry_run_writes_nothing(scans):
    outcome = run(job(scans, dry_run=True), identity)
    assert not (scans.parent / "out").exists()
    assert "would be written" in by_name(outcome.records)["a.png"]["message"]


def test_strength_0_copies_the_bytes(scans):
    Image.fromarray(picture().pixels).save(scans / "still.gif")
    outcome = run(job(scans), identity, copy_input=True)
    same = tree(scans)
    assert tree(scans.parent / "out") == {n: same[n] for n in ("a.png", "b.jpg", "still.gif")}
    assert by_name(outcome.records)["broken.png"]["status"] == "refused"


def test_a_map_of_zeros_copies_the_bytes_of_that_picture(scans):
    run(job(scans), lambda path, shown: Answer(None))
    assert tree(scans.parent / "out")["b.jpg"] == tree(scans)["b.jpg"]


def test_bytes_are_never_copied_under_a_name_that_lies(scans):
    target = scans.parent / "copy.jpg"
    run(job(scans, inputs=[scans / "a.png"], out=target), identity, copy_input=True)
    assert read(target).format == "jpeg"


def test_an_animation_stays_one_and_a_stereo_jpeg_is_announced(scans):
    frames = [Image.fromarray(picture(seed).pixels) for seed in (1, 2)]
    frames[0].save(scans / "moves.gif", save_all=True, append_images=frames[1:])
    frames[0].save(scans / "pair.mpo", format="MPO", save_all=True, append_images=frames[1:])
    records = by_name(run(job(scans), identity).records)
    with Image.open(records["moves.gif"]["output"]) as moves:
        assert (moves.format, moves.n_frames) == ("PNG", 2)
    assert "only the first of 2" in records["pair.mpo"]["announced"][0]


def test_several_pages_never_become_one_unasked(scans):
    pages = [Image.fromarray(picture(seed).pixels) for seed in (1, 2)]
    pages[0].save(scans / "book.tif", save_all=True, append_images=pages[1:])
    target = scans.parent / "book.png"
    outcome = run(job(scans, inputs=[scans / "book.tif"], out=target), identity)
    assert "all but the first would be lost" in outcome.records[0]["message"]
    assert not target.exists()
    copied = run(
        job(scans, inputs=[scans / "book.tif"], out=scans.parent / "c"), identity, copy_input=True
    )
    assert Path(copied.records[0]["output"]).read_bytes() == (scans / "book.tif").read_bytes()


def test_notes_of_reading_and_writing_are_announced(scans):
    Image.fromarray(picture().pixels).convert("CMYK").save(scans / "press.tif")
    records = by_name(run(job(scans), identity).records)
    assert "CMYK became sRGB" in records["press.tif"]["announced"][0]


# What goes wrong


def test_one_bad_picture_never_stops_the_others(scans):
    def fails(path: Path, shown: Picture) -> Answer:
        if path.name == "a.png":
            raise {0: ValueError("a bug"), 1: MemoryError(), 2: PictureError("too odd")}[kind]
        return identity(path, shown)

    for kind in range(3):
        outcome = run(job(scans, out=scans.parent / f"out{kind}"), fails)
        records = by_name(outcome.records)
        assert records["a.png"]["status"] == "refused"
        assert str(scans / "a.png") in records["a.png"]["message"]
        assert records["b.jpg"]["status"] == "restored"
        assert outcome.exit_code == 1


def test_an_error_of_the_model_ends_the_run(scans):
    def refuses(path: Path, shown: Picture) -> Answer:
        raise ModelError("not a model")

    with pytest.raises(ModelError):
        run(job(scans), refuses)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_exit_3(scans):
    (scans.parent / "out").mkdir(mode=0o500)
    with pytest.raises(OutputError):
        run(job(scans), identity)


def test_an_output_that_cannot_be_written_is_exit_3_and_leaves_nothing(scans, monkeypatch):
    failed = threading.Event()

    def full(beside, path, *, replace=False):
        failed.set()
        raise OSError(28, "No space left on device")

    def patient(path, picture):  # what stands behind the first failure is begun after it
        assert not path.name.startswith("z") or failed.wait(60)
        return identity(path, picture)

    for number in range(12):
        (scans / f"z{number}.png").write_bytes(encode(picture(number), "png"))
    monkeypatch.setattr(placing, "name", full)
    outcome = run(job(scans), patient)
    assert outcome.exit_code == 3
    assert "No space left" in by_name(outcome.records)["a.png"]["message"]
    assert "not tried" in by_name(outcome.records)["z9.png"]["message"]
    assert tree(scans.parent / "out") == {}
    assert names(scans.parent / "out" / ".relume") == {"journal.jsonl"}
    monkeypatch.undo()
    assert run(job(scans), identity).count("restored") == 14


def test_a_file_system_without_hard_links_is_no_obstacle(scans, monkeypatch):
    def none(self, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", none)
    assert run(job(scans), identity).count("restored") == 2
    assert run(job(scans), identity).count("skipped") == 2


def test_progress_hears_of_every_input(scans):
    heard = []
    run(job(scans), identity, progress=lambda record, done, total: heard.append((done, total)))
    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_the_plan_does_not_depend_on_earlier_runs(scans):
    before = plan(job(scans))
    run(job(scans), identity)
    assert plan(job(scans)) == before


# Stopped at any moment (benchmarks/batch_stop.py does this at scale)

SLOW = """
import time
from relume.image import placing
def fill(file, pieces):
    for piece in pieces:
        for at in range(0, len(piece), 16):
            file.write(piece[at:at + 16])
            file.flush()
            time.sleep(0.005)
placing._fill = fill
"""


def started(scans: Path, *, slow: bool = False) -> subprocess.Popen:
    code = f"{SLOW if slow else ''}\nfrom relume.cli import main; main()"
    words = ["restore", str(scans), "-o", str(scans.parent / "out"), "--model", "identity"]
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_stopped_inside_a_write_leaves_whole_files_and_goes_on(scans, kind):
    (scans / "broken.png").unlink()
    for number in range(6):
        (scans / f"z{number}.png").write_bytes(encode(picture(number), "png"))
    assert run(job(scans, out=scans.parent / "whole"), identity).exit_code == 0
    whole, out = tree(scans.parent / "whole"), scans.parent / "out"
    stopped = started(scans, slow=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(out.glob(".relume/.relume-*")) and len(names(out)) > 2:
            break
        time.sleep(0.002)
    stopped.send_signal(kind)
    error = stopped.communicate()[1].decode()
    assert stopped.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143}[kind]
    assert "Traceback" not in error
    left = tree(out)
    assert left and left.items() < whole.items()
    kept = {name: (out / name).stat().st_mtime_ns for name in left}
    again = started(scans)
    again.communicate()
    assert again.returncode == 0
    assert tree(out) == whole
    assert {name: (out / name).stat().st_mtime_ns for name in left} == kept
    assert names(out / ".relume") == {"journal.jsonl"}


def test_a_half_written_line_does_not_spoil_the_next_one(scans):
    run(job(scans), identity)
    path = scans.parent / "out" / ".relume" / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    # Results arrive in any order: the last line is of either.
    last = json.loads(whole.splitlines()[-1])["output"]
    (scans.parent / "out" / last).unlink()
    assert run(job(scans), identity).count("restored") == 1
    assert run(job(scans), identity).count("skipped") == 2


def test_what_killed_runs_left_is_removed_and_nothing_else(scans):
    home = scans.parent / "out" / ".relume"
    home.mkdir(parents=True)
    (home / ".relume-123-0123456789ab").write_bytes(b"half")
    (home / ".relume-mine").write_bytes(b"mine")
    run(job(scans), identity)
    assert names(home) == {"journal.jsonl", ".relume-mine"}


def test_an_input_is_not_replaced_by_the_result_of_another(scans):
    run(job(scans, inputs=[scans / "a.png"]), identity)
    out = scans.parent / "out"
    before = (out / "a.png").read_bytes()
    again = job(scans, inputs=[scans / "a.png", out / "a.png"], overwrite=True)
    outcome = run(replace(again, settings={"model": "invert"}), invert)
    assert "an input too" in outcome.records[0]["message"]
    assert (out / "a.png").read_bytes() == before


def test_a_pipe_is_no_picture(scans):
    os.mkfifo(scans / "pipe.png")
    outcome = run(job(scans, inputs=[scans / "pipe.png"]), identity)
    assert "no regular file" in outcome.records[0]["message"]


def test_what_does_not_decode_is_not_given_a_name(scans, monkeypatch):
    honest = writer.render

    def cut(picture, format, quality=None):
        data, lost = honest(picture, format, quality)
        return data[: len(data) // 2], lost

    monkeypatch.setattr(writer, "render", cut)
    outcome = run(job(scans), identity)
    assert outcome.count("restored") == 0
    assert "does not decode" in by_name(outcome.records)["a.png"]["message"]
    assert names(scans.parent / "out") == {".relume"}


def test_a_dry_run_foretells_the_room_on_the_disk(scans):
    records = run(job(scans, dry_run=True), identity).records
    told = forecast(records, scans.parent / "out")
    run(job(scans), identity)
    taken = sum(p.stat().st_size for p in (scans.parent / "out").glob("*.*g"))
    assert told.bytes == pytest.approx(taken, rel=0.05)
    assert told.pixels == 2 * 9 * 13
    assert told.seconds > 0


# What is decoded apart, and ahead


def test_the_next_picture_is_decoded_while_one_is_restored(tmp_path, monkeypatch):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(encode(picture(number), "png"))
    fetched = {str(number): threading.Event() for number in range(3)}
    fetch = Worker.fetch

    def told(self, planned):
        found = fetch(self, planned)
        fetched[planned.source.stem].set()
        return found

    monkeypatch.setattr(Worker, "fetch", told)
    ahead = []

    def restore(path: Path, shown: Picture) -> Answer:
        later = str(min(2, int(path.stem) + 1))
        ahead.append(fetched[later].wait(20))
        return identity(path, shown)

    outcome = run(Job([tmp_path], tmp_path / "out", settings=SETTINGS), restore)
    assert outcome.exit_code == 0
    assert ahead == [True, True, True]
    assert [Path(record["input"]).stem for record in outcome.records] == ["0", "1", "2"]


def test_no_page_and_no_frame_of_an_input_is_decoded_in_this_process(tmp_path, monkeypatch):
    pages = [Image.fromarray(picture(seed).pixels) for seed in range(3)]
    for name in ("a.tif", "b.gif", "c.webp", "d.png"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])

    def here(*_, **__):
        raise AssertionError("decoded here")

    # What was written is: it is ours.
    monkeypatch.setattr(frames, "count", lambda whole: 3)
    for module, name in ((frames, "each"), (frames, "timing"), (reader, "decode")):
        monkeypatch.setattr(module, name, here)
    outcome = run(Job([tmp_path], tmp_path / "out", settings=SETTINGS), identity)
    assert [record["message"] for record in outcome.records] == [None] * 4
