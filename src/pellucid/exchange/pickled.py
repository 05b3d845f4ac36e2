"""What a pickle says, without unpickling it.

A pickle is a program for a small machine with a stack; Python's `pickle` runs it, and what it may call is anything that
can be imported. `pickle.Unpickler` with a `find_class` that admits a few names would stop that, but not the rest: it
sets attributes and states on whatever stands on the stack, grows its memo to any number that the file names, and lives
in C with all of the format. The part of the format that dictionaries of tensors need is small. So the standard
library's `pickletools` takes the file apart, which runs nothing, and the steps below, which only ever make dicts,
lists, tuples, texts and numbers, put it together. Names of functions and classes stay names: what they are to mean is
up to a table that the caller gives, and a name that is not in it is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

VALUES = frozenset((
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE",
    "SHORT_BINUNICODE",
))  # what is pushed as it is
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
ADVICE = "save the state_dict alone: torch.save(model.state_dict(), FILE)"
_MARK = object()


class Refused(ValueError):
    """A pickle that does or names something that is not allowed, or that is damaged. One line, without the file."""


@dataclass(frozen=True)
class Name:
    """The name of a function or class, as it stands in the pickle: "torch FloatStorage"."""

    text: str


def read(file: BinaryIO, calls: Mapping[str, Callable], persistent: Callable[[object], object]) -> object:
    """The value of the pickle that begins where `file` stands, which is left after its end.

    `calls` says by name what may be called, `persistent` what a reference to something outside the pickle is. `file`
    must be of bounded size: everything in it may be held. Raises Refused, and what those raise.
    """
    machine = _Machine(calls, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            machine.step(opcode.name, argument)
        return machine.result()
    except Refused:
        raise
    except (IndexError, KeyError, TypeError) as e:  # a step that found something else on the stack than it needs
        raise Refused(f"the pickle is damaged ({type(e).__name__})") from None
    except (ValueError, UnicodeDecodeError) as e:  # of pickletools
        raise Refused(f"the pickle is damaged or cut off ({str(e).splitlines()[0][:100]})") from None


class _Machine:
    def __init__(self, calls: Mapping[str, Callable], persistent: Callable[[object], object]):
        self.calls, self.persistent = calls, persistent
        self.stack: list = []
        self.memo: dict[int, object] = {}

    def result(self) -> object:
        (value,) = self.stack if len(self.stack) == 1 else (_MARK,)
        if value is _MARK:
            raise Refused("the pickle is damaged: it ends with a number of values that is not one")
        return value

    def step(self, name: str, argument) -> None:
        """Do what an opcode says, if it is one of those that tensors need."""
        stack = self.stack
        if name in VALUES:
            stack.append(CONSTANTS.get(name, argument))
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name in TUPLES:
            stack[-TUPLES[name]:] = [tuple(stack[-TUPLES[name]:])]
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(self.marked()))
        elif name in ("SETITEM", "SETITEMS"):
            items = self.marked() if name == "SETITEMS" else [stack.pop() for _ in range(2)][::-1]
            self.set_items(items)
        elif name in ("APPEND", "APPENDS"):
            items = self.marked() if name == "APPENDS" else [stack.pop()]
            self.top(list).extend(items)
        elif name == "GLOBAL":
            stack.append(Name(argument))
        elif name == "STACK_GLOBAL":
            function, module = stack.pop(), stack.pop()
            if not isinstance(module, str) or not isinstance(function, str):
                raise Refused("the pickle names a function by something that is no text; it is damaged")
            stack.append(Name(f"{module} {function}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            stack.append(self.called(function, arguments))
        elif name == "BINPERSID":
            stack.append(self.persistent(stack.pop()))
        elif name == "BUILD":
            stack.pop()  # attributes, such as the versions that a state_dict carries along
            self.top(dict)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise Refused(f"the pickle does {name}, which no dictionary of tensors needs; it is not read")

    def marked(self) -> list:
        """What stands above the last mark, taken from the stack with it."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise Refused("the pickle is damaged: a mark is missing")
        items = self.stack[at + 1:]
        del self.stack[at:]
        return items

    def top(self, kind: type) -> object:
        if type(self.stack[-1]) is not kind:
            raise Refused(f"the pickle changes something that is no {kind.__name__}; it is not read")
        return self.stack[-1]

    def set_items(self, items: list) -> None:
        target = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):  # the hash of nested tuples may take for ever
                raise Refused(f"a dictionary has a key of type {type(key).__name__}, expected a text; it is not read")
            target[key] = value

    def called(self, function: object, arguments: object) -> object:
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise Refused("the pickle calls something that is no function; it is not read")
        if function.text not in self.calls:
            raise Refused(f"it holds more than tensors: its pickle would call {function.text[:80]!r}, and "
                          f"nothing in a file is executed; {ADVICE}")
        return self.calls[function.text](*arguments)
