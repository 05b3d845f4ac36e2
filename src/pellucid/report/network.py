"""The network of a report: its layers to scale, and their counts."""

from __future__ import annotations

from .. import draw
from ..network import Network
from ..summary import HEADINGS, MEANING, rows
from .shell import Section, section

STRIP = 24  # layers drawn


def network(net: Network) -> Section:
    """The section about a network."""
    return section("The network", "network", "classifier/network.html", picture=draw.architecture(strip(net)),
                   headings=HEADINGS, rows=rows(net), meaning=MEANING, parameters=net.parameter_count,
                   macs=sum(net.macs.values()), layers=len(net.nodes))


def strip(net: Network) -> list[tuple[str, str, tuple[int, ...]]]:
    """The layers to draw: those that change the shape; where these are many, the last of each spatial size."""
    found = [("input", "", net.input_shape)]
    for node in net.nodes:
        if net.shapes[node.name] != found[-1][2]:
            found.append((node.name, type(node.layer).__name__, net.shapes[node.name]))
    if len(found) > STRIP:
        found = [layer for i, layer in enumerate(found)
                 if i in (0, len(found) - 1) or len(found[i + 1][2]) == 1 or found[i + 1][2][:-1] != layer[2][:-1]]
    return found
