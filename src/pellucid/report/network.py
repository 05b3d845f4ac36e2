"""The network of a report: its layers to scale, and their counts."""

from __future__ import annotations

from .. import draw
from ..network import Network
from ..summary import HEADINGS, MEANING, rows
from .shell import Section, section


def network(net: Network) -> Section:
    """The section about a network."""
    layers = [("input", "", net.input_shape)]
    layers += [(node.name, type(node.layer).__name__, net.shapes[node.name]) for node in net.nodes]
    return section("The network", "network", "classifier/network.html", picture=draw.architecture(layers),
                   headings=HEADINGS, rows=rows(net), meaning=MEANING, parameters=net.parameter_count,
                   macs=sum(net.macs.values()), layers=len(net.nodes))
