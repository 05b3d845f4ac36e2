"""Networks by name, one file a family. To add one, write its file with `@register` and import it here."""

from . import alexnet, convnet, lenet, lenet5, mlp, resnet, resnet_cifar, vgg  # noqa: F401  (importing a network registers it)
from .registry import build, names, register, require

__all__ = ["build", "names", "register", "require"]
