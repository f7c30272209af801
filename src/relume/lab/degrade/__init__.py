"""Damage that knows what it did: drawn once per photograph, applied to any view of it.

    chain = parse("haze:beta=0.15..0.6+noise:sigma=25+jpeg")
    sampled = chain.sample(rng, (height, width), regions)
    degraded = chain.apply(gt, sampled, View(top, left, 64, 64))    # lq, gt, truth, params

A new kind is a `Damage` in one file and one row of the table below.
"""

from .blur import Blur, Defocus, Lens, RegionBlur
from .chain import Chain, Degraded, Sampled
from .codec import Down, Jpeg, Resize
from .damage import Damage, Parameter, Range, generator
from .fade import Fade
from .light import LowLight
from .noise import Noise, Poisson, Sensor
from .scan import Dust, Scratch
from .spec import camera_order, parse
from .view import View
from .weather import Haze, Rain, Raindrop

__all__ = [
    "DEGRADATIONS",
    "Chain",
    "Damage",
    "Degraded",
    "Parameter",
    "Range",
    "Sampled",
    "View",
    "camera_order",
    "generator",
    "parse",
]

# In the order in which a camera meets them: the photograph's own softness, light, optics, sensor,
# codec. `camera_order` sorts by it. A print or negative exists once the picture was taken: its dyes
# fade, it is scratched, and dust lies on it when it is scanned. The scanner sees all that, with its
# own resolution, noise and codec.
DEGRADATIONS: dict[str, type[Damage]] = {
    "lens": Lens,
    "resize": Resize,
    "haze": Haze,
    "rain": Rain,
    "regionblur": RegionBlur,
    "blur": Blur,
    "defocus": Defocus,
    "raindrop": Raindrop,
    "lowlight": LowLight,
    "fade": Fade,
    "scratch": Scratch,
    "dust": Dust,
    "down": Down,
    "poisson": Poisson,
    "sensor": Sensor,
    "noise": Noise,
    "jpeg": Jpeg,
}
