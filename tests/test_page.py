"""Pages: self-contained, escaped, and right about where pictures differ."""

import re

import numpy as np
import pytest

from relume import page
from relume.errors import UsageError
from relume.image import Picture


@pytest.fixture
def pair(photo):
    spoiled = photo.copy()
    spoiled[..., 10:40, 70:100] += 0.3
    spoiled[..., 80:90, 5:15] += 0.1
    return photo, np.clip(spoiled, 0, 1)


def test_a_page_asks_for_nothing_from_outside(pair):
    case = page.Case("a", [("before", pair[0]), ("after", pair[1])])
    text = page.html([case], title="t")
    assert not re.search(r"https?://|//cdn|@import|url\(", text)
    sources = re.findall(r'src="([^"]*)"', text)
    assert sources
    assert all(source.startswith("data:image/") for source in sources)


def test_a_hostile_name_shows_as_text(pair):
    name = '"><script>alert(1)</script>.png'
    case = page.Case(name, [(name, pair[0]), ("b", pair[1])], note=name)
    text = page.html([case], title=name, intro=name, outro=name)
    assert "<script>alert" not in text
    assert text.count("<script>") == 1


def test_a_name_that_is_no_utf_8_is_shown(pair):
    case = page.Case("a\udcff.png", [("a\udcff.png", pair[0]), ("b", pair[1])])
    assert b"<h2>a\\udcff.png</h2>" in page.coded(page.html([case], title="t"))


def test_the_worst_places_come_worst_first_and_apart(pair):
    places = page.worst(*pair, side=20, count=3)
    (top, left), *others = places
    assert 10 <= top <= 20
    assert 70 <= left <= 80
    assert all(abs(top - t) >= 20 or abs(left - at) >= 20 for t, at in others)


def test_equal_pictures_have_no_worst_place(photo):
    assert page.worst(photo, photo) == []
    text = page.html([page.Case("same", [("a", photo), ("b", photo)])], title="t")
    assert "b equals a" in text


def test_heat_is_black_where_nothing_differs(pair):
    heat, top = page.heat(*pair)
    assert heat.shape == pair[0].shape
    assert heat[..., 60:70, 40:60].max() == 0
    assert heat[..., 25, 85].max() == 1
    assert 0.1 < top <= 0.3 + 1e-6


def test_psnr_is_that_of_eight_bit_pictures(photo):
    assert page.psnr(photo, photo) == 60
    black, gray = np.zeros((1, 3, 4, 4)), np.full((1, 3, 4, 4), 25.5 / 255)
    assert page.psnr(gray, black) == pytest.approx(20 * np.log10(255 / 26))  # 25.5 rounds to 26


def test_pictures_of_half_the_size_are_enlarged(photo):
    small = Picture.from_rgb(photo[..., ::2, ::2])
    case = page.compare([("a", Picture.from_rgb(photo)), ("b", small)])
    assert case.pictures[1][1].shape == photo.shape


def test_pictures_of_foreign_sizes_are_refused(photo):
    with pytest.raises(UsageError, match="b is 100x96"):
        page.compare([("a", Picture.from_rgb(photo)), ("b", Picture.from_rgb(photo[..., :100]))])
    with pytest.raises(UsageError, match="at least two"):
        page.compare([("a", Picture.from_rgb(photo))])


def test_a_strip_holds_all_pictures(pair):
    sheet = page.strip(page.Case("a", [("x", pair[0]), ("y", pair[1]), ("z", pair[0])]))
    assert sheet.shape[1] == 3
    assert sheet.shape[3] >= 3 * 128
    assert np.array_equal(sheet[..., :96, :128], pair[0])
