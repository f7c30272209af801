"""Laws over every adapter and encoder of the tables, and over the restorer that joins them."""

import pytest
import torch
from tiny import dino_folder

from relume.errors import GuidanceError, RecipeError
from relume.guidance import Guidance, Guide
from relume.lab.adapters import ADAPTERS
from relume.lab.backbones.nafnet import NAFNet
from relume.lab.encoders import ENCODERS
from relume.lab.reach import measure_reach
from relume.lab.restorer import Restorer


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LABELS = torch.arange(8)[:, None].div(2, rounding_mode="floor").add(1).repeat(2, 1, 10).int()
KNOWN = Guidance(
    code=Guide(vector=drawn(2, 16)),
    rows=Guide(tokens=drawn(2, 5, 16)),
    regions=Guide(regions=LABELS),
    damage=Guide(maps=drawn(2, 2, 8, 10).sigmoid()),
)
ROWS = {"reads": "rows", "regions": "regions"}
DAMAGE = {"reads": "damage", "maps": 2}
BOTH = {"reads": ("rows", "code"), "level": 2}
AT_SITES = {
    "context": lambda: ADAPTERS["context"](12, 1, every=4, **DAMAGE),
    "film": lambda: ADAPTERS["film"](12, 16, reads="code"),
    "gate": lambda: ADAPTERS["gate"](12, 1, **DAMAGE),
    "maps": lambda: ADAPTERS["maps"](12, 1, **DAMAGE),
    "pgca": lambda: ADAPTERS["pgca"](12, (16, 16), heads=3, **BOTH),
    "prompt": lambda: ADAPTERS["prompt"](12, (16, 16), **BOTH),
    "region_shift": lambda: ADAPTERS["region_shift"](12, 16, 1, **ROWS),
    "spt": lambda: ADAPTERS["spt"](12, 16, 1, **ROWS),
}
FORMS = {
    "pgca, fixed": lambda: ADAPTERS["pgca"](12, (16, 16), residual="fixed", **BOTH),
    "pgca, the paper's whole block": lambda: ADAPTERS["pgca"](12, (16, 16), expansion=2, **BOTH),
    "pgca, release": lambda: ADAPTERS["pgca"](
        12, (16, 16), variant="release", expansion=2, bias=True, **BOTH
    ),
    "prompt, release": lambda: ADAPTERS["prompt"](12, (16, 16), variant="release", **BOTH),
}
JOINING = {
    "concat": lambda: ADAPTERS["concat"](reads="regions"),
    "map": lambda: ADAPTERS["map"](16, **ROWS),
}


def test_every_adapter_has_its_laws_tested():
    assert set(AT_SITES) | set(JOINING) == set(ADAPTERS)


@pytest.mark.parametrize("name", sorted({**AT_SITES, **FORMS}))
def test_a_new_adapter_changes_nothing(name):
    feat = torch.randn(2, 12, 8, 10)
    assert torch.equal({**AT_SITES, **FORMS}[name]()(feat, KNOWN), feat)


@pytest.mark.parametrize("name", sorted({**AT_SITES, **FORMS}))
def test_an_adapter_learns_at_the_first_step_and_all_of_it_moves_by_the_tenth(name):
    adapter = {**AT_SITES, **FORMS}[name]()
    feat, wanted = drawn(2, 12, 8, 10), drawn(2, 12, 8, 10, seed=2)
    before = {k: v.clone() for k, v in adapter.state_dict().items()}
    optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-2)
    for step in range(10):
        optimizer.zero_grad()
        (adapter(feat, KNOWN) - wanted).square().mean().backward()
        if step == 0:
            assert any(p.grad is not None and p.grad.abs().max() > 0 for p in adapter.parameters())
        optimizer.step()
    still = [k for k, v in adapter.state_dict().items() if torch.equal(v, before[k])]
    assert not still


@pytest.mark.parametrize("name", sorted(JOINING))
def test_what_joins_the_picture_has_its_size_and_channels(name):
    adapter = JOINING[name]()
    assert adapter(torch.rand(2, 3, 8, 10), KNOWN).shape == (2, adapter.channels, 8, 10)


@pytest.mark.parametrize("name", ["map", "region_shift", "spt"])
def test_region_adapters_refuse_what_are_no_rows(name):
    adapter = {**AT_SITES, **JOINING}[name]()
    wrong = KNOWN.with_guide("rows", Guide(vector=drawn(2, 16)))
    with pytest.raises(GuidanceError, match="token rows of 16"):
        adapter(torch.zeros(2, 12 if name != "map" else 3, 8, 10), wrong)


def test_film_refuses_what_it_cannot_read():
    film = AT_SITES["film"]()
    maps = Guidance(code=Guide(maps=torch.zeros(2, 16, 4, 4)))
    with pytest.raises(GuidanceError, match="as a vector of 16"):
        film(torch.zeros(2, 12, 4, 4), maps)
    with pytest.raises(GuidanceError, match="No guidance called 'code'"):
        film(torch.zeros(2, 12, 4, 4), Guidance())


def flat(encoder) -> Guidance:
    """What an encoder asks for, of a picture with nothing in it."""
    given = {
        "maps": lambda r: Guide(maps=torch.full((2, *r.shape), 0.5), whole=r.whole),
        "regions": lambda r: Guide(regions=torch.ones(2, 16, 16, dtype=torch.int32)),
    }
    return Guidance({r.prior: given[r.kind](r) for r in encoder.asks})


WITH = {"dino": lambda: {"weights": str(dino_folder()), "side": 28}}


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_an_encoder_survives_a_flat_picture(name):
    encoder = ENCODERS[name](**WITH.get(name, dict)())
    view = torch.full((2, 3, 16, 16), 0.5, requires_grad=True)
    guide = encoder(view, flat(encoder))
    assert guide.channels == encoder.dim
    shape = getattr(encoder, "shape", None)  # of what is said in so many rows, or in one vector
    assert shape is None or guide.array.shape[1:] == shape
    if name == "dino":  # frozen
        assert torch.isfinite(guide.array).all() and not guide.array.requires_grad
        return
    guide.array.sum().backward()
    grads = [p.grad for p in encoder.parameters()] + ([view.grad] if encoder.prepared else [])
    assert all(g is not None and torch.isfinite(g).all() for g in grads)


def test_a_thumbnail_encoder_in_doubt_believes_what_is_far_from_the_usual():
    torch.manual_seed(0)
    plain = ENCODERS["thumbnail"](dim=16).double().eval()  # its vectors hardly differ
    doubting = ENCODERS["thumbnail"](dim=16, doubt=2.0).double().eval()
    doubting.load_state_dict(plain.state_dict(), strict=False)

    def code(encoder, maps):
        return encoder(maps, Guidance(thumbnail=Guide(maps=maps, whole=True))).vector

    usual = 0.5 + 0.02 * torch.randn(20, 3, 96, 96).double()
    odd = torch.cat([usual[:1] + 1e-3, usual[:1] * 0.05])  # of the usual kind, and dark
    assert torch.allclose(code(doubting, odd), code(plain, odd), atol=1e-6)  # nothing is measured
    doubting.settle(Guidance(thumbnail=Guide(maps=usual, whole=True)))
    assert torch.allclose(doubting.usual, code(plain, usual).mean(0), atol=1e-6)
    apart = (code(plain, odd) - doubting.usual).norm(dim=1)
    left = (code(doubting, odd) - doubting.usual).norm(dim=1) / apart
    q = (apart / (2 * doubting.spread)) ** 6
    assert torch.allclose(left, q / (1 + q), atol=1e-4)
    assert left[0] < 0.5 < 0.99 < left[1]
    assert torch.equal(code(doubting.train(), odd), code(plain.train(), odd))


@pytest.mark.parametrize("doubt", [-1.0, float("nan"), "x", True])
def test_a_doubt_that_is_none_is_refused(doubt):
    with pytest.raises(RecipeError, match="doubt is a number from 0 on"):
        ENCODERS["thumbnail"](doubt=doubt)


def test_a_thumbnail_encoder_that_reads_none_looks_at_the_picture_itself():
    torch.manual_seed(0)
    of_crop = ENCODERS["thumbnail"](dim=4, width=4, reads="").eval()
    of_thumbnail = ENCODERS["thumbnail"](dim=4, width=4).eval()
    of_thumbnail.load_state_dict(of_crop.state_dict())
    assert not of_crop.asks
    lq = torch.rand(2, 3, 48, 33)
    small = torch.nn.functional.avg_pool2d(lq, 2, ceil_mode=True)
    told = of_thumbnail(lq, Guidance(thumbnail=Guide(maps=small, whole=True))).vector
    torch.testing.assert_close(of_crop(lq, Guidance()).vector, told)
    with pytest.raises(RecipeError, match="doubt is of thumbnails"):
        ENCODERS["thumbnail"](reads="", doubt=2.0)


def test_a_trained_thumbnail_encoder_knows_no_orientation():
    encoder = ENCODERS["thumbnail"](dim=16)
    small = torch.rand(2, 3, 96, 96)

    def vector(maps: torch.Tensor) -> torch.Tensor:
        return encoder(maps, Guidance(thumbnail=Guide(maps=maps, whole=True))).vector

    assert not torch.allclose(vector(small), vector(small.rot90(1, (2, 3))))  # in training
    encoder.eval()
    for turns in range(4):
        turned = small.rot90(turns, (2, 3))
        torch.testing.assert_close(vector(small), vector(turned))
        torch.testing.assert_close(vector(small), vector(turned.flip(-1)))


def restorer(**encoder) -> Restorer:
    backbone = NAFNet(
        width=4, enc_blocks=(1, 1), middle_blocks=1, dec_blocks=(1, 1), attention="none"
    )
    code = ENCODERS["thumbnail"](dim=16)
    film = {
        site: ADAPTERS["film"](backbone.sites[site].channels, 16, reads="code")
        for site in ("input", "middle", "decoder.0")
    }
    return Restorer(backbone, {"code": code}, film).eval()


def test_a_restorer_starts_as_its_backbone():
    model = restorer()
    lq = torch.rand(2, 3, 16, 20)
    known = Guidance(thumbnail=Guide(maps=torch.rand(2, 3, 96, 96), whole=True))
    assert torch.equal(model(lq, known), model.backbone(lq).image)


def test_a_restorer_tells_what_it_reads_and_how_far_it_looks():
    model = restorer()
    (reads,) = model.reads
    assert (reads.prior, reads.kind, reads.shape, reads.whole) == (
        "thumbnail",
        "maps",
        (3, 96, 96),
        True,
    )
    assert model.support == "local"
    assert model.reach == model.backbone.reach
    assert (model.scale, model.multiple_of) == (1, 4)


def test_an_unknown_site_or_prior_is_named():
    backbone = NAFNet(width=4, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,))
    film = ADAPTERS["film"](8, 16, reads="code")
    with pytest.raises(GuidanceError, match="Did you mean 'middle'"):
        Restorer(backbone, {"code": ENCODERS["thumbnail"](dim=16)}, {"midle": film})
    with pytest.raises(GuidanceError, match="no encoder"):
        Restorer(backbone, {}, {"middle": film})


# SPT's units.


def test_a_unit_reads_maps_as_it_reads_rows():
    unit = ADAPTERS["spt"](12, 16, 2, **ROWS)
    torch.nn.init.normal_(unit.out.weight, generator=torch.Generator().manual_seed(0))
    feat = drawn(2, 12, 4, 5)
    # Rows written back to the pixels by hand: blocks of 2 x 2 pixels lie within one region here.
    rows = KNOWN["rows"].tokens
    maps = torch.stack(
        [r[label.long()].movedim(-1, 0) for r, label in zip(rows, LABELS, strict=True)]
    )
    told = KNOWN.with_guide("rows", Guide(maps=maps))
    torch.testing.assert_close(unit(feat, told), unit(feat, KNOWN))
    with pytest.raises(GuidanceError, match="token rows of 16"):
        unit(feat, KNOWN.with_guide("rows", Guide(maps=maps[:, :8])))


def test_slots_see_the_masks_they_have_room_for():
    encoder, lq = ENCODERS["mask_slots"](dim=16, slots=2), torch.rand(2, 3, 8, 10)
    said = encoder(lq, KNOWN).maps
    assert said.shape == (2, 16, 8, 10)
    beyond = torch.where(LABELS > 2, 9, LABELS)
    other = torch.where(LABELS == 2, 1, LABELS)
    assert torch.equal(said, encoder(lq, Guidance(regions=Guide(regions=beyond))).maps)
    assert not torch.equal(said, encoder(lq, Guidance(regions=Guide(regions=other))).maps)


def test_a_restorer_with_slots_looks_as_much_further_as_they_do():
    backbone = NAFNet(width=4, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,), attention="none")
    unit = ADAPTERS["spt"](backbone.sites["input"].channels, 16, 1, **ROWS)
    model = Restorer(backbone, {"rows": ENCODERS["mask_slots"](dim=16)}, {"input": unit})
    assert model.reach == backbone.reach + 1 + 2
    assert measure_reach(model) <= model.reach


# SAM-Deblur's unit.


def sam_deblur(**means) -> Restorer:
    backbone = NAFNet(
        width=8, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,), attention="none", in_channels=5
    )
    encoder = ENCODERS["region_means"](**means)
    join = ADAPTERS["map"](encoder.dim, reads="means", regions="regions")
    return Restorer(backbone, {"means": encoder}, {}, {"map": join})


def test_the_published_networks_grow_by_638_and_288_parameters():
    def count(*parts) -> int:
        return sum(p.numel() for part in parts for p in part.parameters())

    plain, means = NAFNet(), ENCODERS["region_means"]()
    assert count(NAFNet(in_channels=5), means) - count(plain) == 638
    assert count(NAFNet(in_channels=4), JOINING["concat"]()) - count(plain) == 288


def masks_of(labels: torch.Tensor) -> torch.Tensor:
    return torch.stack([labels == r for r in range(1, int(labels.max()) + 1)], 1).float()


def map_unit(f: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The paper's unit mask by mask: sum of mean * mask, and one mean for the remainder."""
    out = torch.zeros_like(f)
    for mask in [*masks.unbind(1), 1 - masks.sum(1).clamp(0, 1)]:
        mean = (f * mask[:, None]).sum((2, 3)) / (mask.sum((1, 2)) + 1e-8)[:, None]
        out += mean[..., None, None] * mask[:, None]
    return out


@pytest.mark.parametrize("regions", [0, 1, 7, 300])
def test_the_map_unit_is_the_papers(regions):
    labels = torch.randint(0, regions + 1, (2, 24, 20), generator=torch.Generator().manual_seed(0))
    encoder, lq = ENCODERS["region_means"]().eval(), torch.rand(2, 3, 24, 20)
    known = Guidance(regions=Guide(regions=labels.int()))
    known = known.with_guide("rows", encoder(lq, known))
    got = ADAPTERS["map"](2, **ROWS)(lq, known)
    f = encoder.pre_seg_in(encoder.pre_seg(lq))
    wanted = map_unit(f, masks_of(labels)) if regions else f.mean((2, 3), keepdim=True).expand_as(f)
    torch.testing.assert_close(got, wanted, atol=2e-6, rtol=0)


def test_masks_divided_by_255_leave_almost_one_number():
    """The closed form of the published defect: T / 255 + 254 / 255 of the picture's mean."""
    known = Guidance(regions=Guide(regions=LABELS))
    lq = torch.rand(2, 3, 8, 10)
    encoder = ENCODERS["region_means"](mask_scale=1 / 255).eval()
    got = ADAPTERS["map"](2, **ROWS)(lq, known.with_guide("rows", encoder(lq, known)))
    f = encoder.pre_seg_in(encoder.pre_seg(lq))
    wanted = map_unit(f, masks_of(LABELS) / 255)
    torch.testing.assert_close(got, wanted, atol=2e-6, rtol=0)


def test_dropout_takes_an_exact_count_and_gives_them_one_mean():
    known = Guidance(regions=Guide(regions=LABELS))
    encoder, lq = ENCODERS["region_means"](dropout=0.5).train(), torch.rand(2, 3, 8, 10)
    before = LABELS.clone()
    rows = encoder(lq, known).tokens
    own = ENCODERS["region_means"](dropout=0.0)
    own.load_state_dict(encoder.state_dict())
    kept = (rows[:, 1:] == own(lq, known).tokens[:, 1:]).all(2)
    assert kept.sum(1).tolist() == [2, 2]  # of four regions
    for picture in range(2):
        dropped = rows[picture, 1:][~kept[picture]]
        assert torch.equal(dropped, rows[picture, :1].expand(2, -1))
    assert torch.equal(LABELS, before)


def test_tiles_gather_what_the_whole_picture_prepared():
    model = sam_deblur().eval()
    lq = torch.rand(1, 3, 32, 32)
    labels = torch.randint(1, 6, (1, 4, 4)).repeat_interleave(8, 1).repeat_interleave(8, 2).int()
    known = Guidance(regions=Guide(regions=labels))
    ready = model.prepare(lq, known)
    whole = model(lq, known)
    assert torch.equal(whole, model(lq, ready))
    tile = ready.with_guide("regions", Guide(regions=labels[:, 8:24, 8:24]))
    part = model(lq[..., 8:24, 8:24], tile)
    far = model.reach
    torch.testing.assert_close(
        part[..., far:-far, far:-far], whole[..., 8:24, 8:24][..., far:-far, far:-far]
    )


def test_region_statistics_tell_the_direction_of_edges_and_the_size():
    ramp = torch.linspace(0, 1, 32).expand(3, 32, 32)
    view = torch.stack([ramp, ramp.transpose(1, 2)])  # it changes along the rows, then down
    labels = torch.ones(2, 32, 32, dtype=torch.int32)
    labels[:, :8] = 2
    encoder = ENCODERS["region_statistics"]()
    rows = encoder(view, Guidance(regions=Guide(regions=labels))).tokens
    assert (rows[0, 1:, 5] > 0.9).all() and (rows[1, 1:, 5] < -0.9).all()
    assert (rows[:, 1, 7] > rows[:, 2, 7]).all()
    assert rows[:, 0].abs().max() == 0  # no pixel, nothing said


def test_a_backbone_must_be_built_for_what_joins():
    backbone = NAFNet(width=4, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,))
    with pytest.raises(GuidanceError, match="in_channels=4"):
        Restorer(backbone, {}, {}, {"concat": JOINING["concat"]()})
