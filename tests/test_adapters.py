"""Laws over every adapter and encoder of the tables, and over the restorer that joins them."""

import pytest
import torch

from relume.errors import GuidanceError
from relume.guidance import Guidance, Guide
from relume.lab.adapters import ADAPTERS
from relume.lab.backbones.nafnet import NAFNet
from relume.lab.encoders import ENCODERS
from relume.lab.restorer import Restorer

VECTOR = Guidance(code=Guide(vector=torch.randn(2, 16, generator=torch.Generator().manual_seed(1))))
MADE = {"film": lambda: ADAPTERS["film"](12, 16, reads="code")}


def test_every_adapter_has_its_laws_tested():
    assert set(MADE) == set(ADAPTERS)


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_a_new_adapter_changes_nothing(name):
    feat = torch.randn(2, 12, 8, 10)
    assert torch.equal(MADE[name]()(feat, VECTOR), feat)


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_an_adapter_learns_from_guidance_at_the_first_step(name):
    adapter = MADE[name]()
    adapter(torch.randn(2, 12, 8, 8), VECTOR).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in adapter.parameters())


def test_film_refuses_what_it_cannot_read():
    film = MADE["film"]()
    maps = Guidance(code=Guide(maps=torch.zeros(2, 16, 4, 4)))
    with pytest.raises(GuidanceError, match="as a vector of 16"):
        film(torch.zeros(2, 12, 4, 4), maps)
    with pytest.raises(GuidanceError, match="No guidance called 'code'"):
        film(torch.zeros(2, 12, 4, 4), Guidance())


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_an_encoder_survives_a_flat_picture(name):
    encoder = ENCODERS[name](dim=8)
    flat = Guide(maps=torch.full((2, *encoder.shape), 0.5), whole=encoder.whole)
    vector = encoder(flat).vector
    vector.sum().backward()
    assert vector.shape == (2, 8)
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters())


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
