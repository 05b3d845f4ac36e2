"""Halide's C structures, as ctypes. Source: HalideRuntime.h of Halide 21 (halide_buffer_t and the metadata)."""

import ctypes as ct

import numpy as np


class Dimension(ct.Structure):
    """One dimension of a buffer; stride in elements."""

    _fields_ = [("min", ct.c_int32), ("extent", ct.c_int32), ("stride", ct.c_int32), ("flags", ct.c_uint32)]


class Type(ct.Structure):
    """Element type: code 0 is int, 1 unsigned, 2 float."""

    _fields_ = [("code", ct.c_uint8), ("bits", ct.c_uint8), ("lanes", ct.c_uint16)]

    def dtype(self) -> np.dtype:
        return np.dtype(f"{'iuf'[self.code]}{max(self.bits, 8) // 8}")

    @classmethod
    def of(cls, dtype: np.dtype):
        return cls("iuf".index(dtype.kind), dtype.itemsize * 8, 1)


class Buffer(ct.Structure):
    """halide_buffer_t. `host` points at the element whose every coordinate is the dimension's min."""

    _fields_ = [("device", ct.c_uint64), ("interface", ct.c_void_p), ("host", ct.c_void_p), ("flags", ct.c_uint64),
                ("type", Type), ("dimensions", ct.c_int32), ("dim", ct.POINTER(Dimension)), ("padding", ct.c_void_p)]


class Argument(ct.Structure):
    """halide_filter_argument_t. Kind 0 is a scalar, 1 an input buffer, 2 an output buffer."""

    _fields_ = [("name", ct.c_char_p), ("kind", ct.c_int32), ("dimensions", ct.c_int32), ("type", Type),
                ("scalar_def", ct.c_void_p), ("scalar_min", ct.c_void_p), ("scalar_max", ct.c_void_p),
                ("scalar_estimate", ct.c_void_p), ("buffer_estimates", ct.c_void_p)]


class Metadata(ct.Structure):
    """halide_filter_metadata_t."""

    _fields_ = [("version", ct.c_int32), ("num_arguments", ct.c_int32), ("arguments", ct.POINTER(Argument)),
                ("target", ct.c_char_p), ("name", ct.c_char_p)]


ERROR_HANDLER = ct.CFUNCTYPE(None, ct.c_void_p, ct.c_char_p)
