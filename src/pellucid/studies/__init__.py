"""The lecture's claims about convolutional networks, measured: one claim a file.

A study is a function of a model and images that returns a `Study`: numbers, a sentence that says what was found, and
figures. `MODEL_STUDIES` lists them by name; to add one, write its file and import it here.
"""

from .depth import Depth, depth
from .result import MODEL_STUDIES, DoesNotApply, Study
from .sharing import Sharing, sharing
from .templates import Templates, templates

__all__ = ["MODEL_STUDIES", "Depth", "DoesNotApply", "Sharing", "Study", "Templates", "depth", "sharing",
           "templates"]
