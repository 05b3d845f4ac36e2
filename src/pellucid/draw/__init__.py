"""Pictures of numbers, as SVG: text that stays text, readable on light and dark, in colours that all can tell apart.

Each function takes arrays and texts and returns a `Picture`, which shows itself in a notebook and can be saved.
"""

from .architecture import architecture
from .bars import bars
from .calibration import reliability
from .confusion import confusion
from .convolution import convolution_step
from .curves import curves
from .images import gallery, heatmap, image, overlay
from .maps import feature_maps, filters, tensor
from .matrix import sparse_matrix
from .scatter import Panel, scatter
from .svg import Picture
from .views import convolution_views

__all__ = [
    "Panel", "Picture", "architecture", "bars", "confusion", "convolution_step", "convolution_views", "curves",
    "feature_maps", "filters", "gallery", "heatmap", "image", "overlay", "reliability", "scatter", "sparse_matrix",
    "tensor",
]
