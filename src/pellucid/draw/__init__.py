"""Pictures of numbers, as SVG: text that stays text, readable on light and dark, in colours that all can tell apart.

Each function takes arrays and texts and returns a `Picture`, which shows itself in a notebook and can be saved.
"""

from .bars import bars
from .curves import curves
from .images import gallery, heatmap, image, overlay
from .scatter import scatter
from .svg import Picture

__all__ = ["Picture", "bars", "curves", "gallery", "heatmap", "image", "overlay", "scatter"]
