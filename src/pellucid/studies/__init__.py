"""The lecture's claims about convolutional networks, measured: one claim a file.

A study of a model is a function of the model and images that returns a `Study`: numbers, a sentence that says what was
found, and figures. `MODEL_STUDIES` lists them by name; to add one, write its file and import it here. What is measured
of data, by training networks on them, `generalisation` brings together.
"""

# The order is that of `MODEL_STUDIES`: from what the graph alone says to what becomes of the answers and of gradients.
from .depth import Depth, depth  # isort: skip
from .sharing import Sharing, sharing  # isort: skip
from .templates import Templates, templates  # isort: skip
from .hierarchy import Hierarchy, hierarchy  # isort: skip
from .fields import Fields, fields  # isort: skip
from .equivariance import Equivariance, equivariance  # isort: skip
from .invariance import Invariance, invariance  # isort: skip
from .identity import Identity, identity  # isort: skip
from .result import MODEL_STUDIES, DoesNotApply, Study  # isort: skip

__all__ = ["MODEL_STUDIES", "Depth", "DoesNotApply", "Equivariance", "Fields", "Hierarchy", "Identity", "Invariance",
           "Sharing", "Study", "Templates", "depth", "equivariance", "fields", "hierarchy", "identity", "invariance",
           "sharing", "templates"]
