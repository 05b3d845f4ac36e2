"""ONNX's own test cases for its operators, each as a network: what comes out must be what ONNX says, or be refused.

A case's first input stands for the images; its others become constants of the graph, as a network has them. A tensor of
one axis is the features of one image.
"""

from __future__ import annotations

import warnings

import numpy as np
import onnx

from pellucid.engine.parameters import ParameterBuffer
from pellucid.engine.plan import Plan
from pellucid.exchange.onnx.importer import Importer
from pellucid.exchange.onnx.operators import OPERATORS
from pellucid.exchange.onnx.proto import checked
from pellucid.network import INPUT

NOT_LAYERS = {"Cast"}  # changes types, of which there is one here

# Why cases are refused: a part of the error, and the cases' names. Everything else must pass.
REFUSED = {
    # All values become the upper bound, by ONNX's rule.
    "low must be below high": "clip_min_greater_than_max",
    # Volumes: images have two axes of places.
    "has 5 axes":
        "averagepool_3d_default averagepool_3d_dilations_small "
        "averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_True "
        "averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_False "
        "averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True "
        "averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_False maxpool_3d_default "
        "maxpool_3d_dilations maxpool_3d_dilations_use_ref_impl maxpool_3d_dilations_use_ref_impl_large",
    # Whole numbers, sequences, optional values.
    "does not hold real numbers":
        "add_int8 add_uint8 clip_default_int8_min clip_default_int8_max clip_default_int8_inbounds "
        "clip_default_int8_inbounds_expanded div_int8 div_int32_trunc div_uint8 identity_sequence identity_opt "
        "maxpool_2d_uint8 mul_int8 mul_uint8 edge_pad reflect_pad wrap_pad sub_int8 sub_uint8",
    # Types of whole numbers that no network's constants have.
    "is of the type":
        "add_int16 add_uint16 add_uint32 add_uint64 div_int16 div_uint16 div_uint32 div_uint64 mul_int16 mul_uint16 "
        "mul_uint32 mul_uint64 sub_int16 sub_uint16 sub_uint32 sub_uint64",
    # Training.
    "normalises by the batch": "batchnorm_example_training_mode batchnorm_epsilon_training_mode",
    # Training.
    "drops values at inference":
        "training_dropout_default training_dropout_default_mask training_dropout training_dropout_mask",
    # A second input, which is a constant here, beside the images.
    "putting constants beside":
        "concat_1d_axis_0 concat_1d_axis_negative_1 concat_2d_axis_0 concat_2d_axis_1 concat_2d_axis_negative_2 "
        "concat_2d_axis_negative_1 concat_3d_axis_0 concat_3d_axis_1 concat_3d_axis_2 concat_3d_axis_negative_3 "
        "concat_3d_axis_negative_2 concat_3d_axis_negative_1",
    # A second input as large as the images, or along their places.
    "differs between places":
        "add add_bcast div div_bcast mul mul_bcast prelu_example prelu_broadcast sub sub_bcast",
    # The images' axis becomes part of another.
    "mix the images":
        "flatten_axis0 flatten_axis2 flatten_axis3 flatten_negative_axis4 flatten_negative_axis2 "
        "flatten_negative_axis1 reshape_reordered_all_dims reshape_one_dim reshape_negative_extended_dims "
        "reshape_allowzero_reordered squeeze",
    # The images' axis is moved.
    "in an order that":
        "transpose_default transpose_all_permutations_2 transpose_all_permutations_3 transpose_all_permutations_4 "
        "transpose_all_permutations_5",
    # The images' axis is moved.
    "an axis before the images": "unsqueeze_axis_0",
    # The images' axis is summed over.
    "adds up over the images": "gemm_transposeA gemm_all_attributes",
    # A bias that differs between images.
    "not one number for each output": "gemm_default_matrix_bias",
    # Over images or places.
    "a softmax over the axes": "softmax_axis_0 softmax_axis_2 softmax_negative_axis softmax_default_axis",
    # Axes of places cut or joined.
    "would need a layer that makes":
        "reshape_reordered_last_dims reshape_extended_dims reshape_negative_dim squeeze_negative_axes",
    # Products with a tensor, or along an axis of places.
    "more than a matrix": "matmul_1d_3d matmul_1d_1d matmul_3d matmul_4d matmul_bcast matmul_4d_1d",
    # A product of two values.
    "(gates)": "hardswish_expanded",
    # Padding that is not zero.
    "not by zeros": "constant_pad constant_pad_axes constant_pad_negative_axes",
    # Another function than GELU's exact one.
    "tanh approximation": "gelu_tanh_1 gelu_tanh_2",
}


def cases():
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the cases' own arithmetic
        found = collect_testcases("")
    known = set(OPERATORS) - NOT_LAYERS
    return [c for c in found if {n.op_type for n in c.model.graph.node} <= known
            and all(n.domain in ("", "ai.onnx") for n in c.model.graph.node)]


def answer(case) -> tuple[np.ndarray, np.ndarray]:
    """(what the imported network computes, what ONNX says), in the graph's shape."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph, (inputs, outputs) = model.graph, case.data_sets[0]
    for info, values in zip(graph.input[1:], inputs[1:], strict=False):
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), info.name))
    x, expected = (np.asarray(v) if np.ndim(v) != 1 else np.asarray(v)[None] for v in (inputs[0], outputs[0]))
    if np.ndim(inputs[0]) == 1:
        graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info(
            graph.input[0].name, graph.input[0].type.tensor_type.elem_type, x.shape))
    del graph.output[1:]
    # A layer that changes nothing, for graphs that only move axes.
    graph.node.append(onnx.helper.make_node("LeakyRelu", [graph.output[0].name], ["the end"], alpha=1.0))
    graph.output[0].name = "the end"
    read = Importer(checked(model))
    buffer = ParameterBuffer(read.network.parameters())
    for name, values in read.parameters.items():
        buffer.arrays[name][...] = values
    x, begin = x.astype(np.float32), read.values[read.graph.proto.input[0].name]
    ours = ("N", *begin.spatial, "C")
    plan = Plan(read.network, buffer, len(x))
    plan.prepare()
    y = plan.outputs(np.ascontiguousarray(np.transpose(x, [begin.axes.index(a) for a in ours]))).copy()
    end = read.values["the end"]
    made = ("N", *end.spatial, "C")
    y = np.transpose(y, [made.index(a) for a in end.axes if a != "1"])
    assert begin.node == INPUT
    return y.reshape(end.sizes), expected


def test_onnx_cases_pass_or_are_refused_for_a_reason(capsys):
    listed = {f"test_{name}": reason for reason, names in REFUSED.items() for name in names.split()}
    passed, refused, wrong = [], {}, []
    for case in cases():
        try:
            got, expected = answer(case)
        except ValueError as e:
            refused[case.name] = str(e)
            continue
        # The tolerances of ONNX's own runner.
        same = got.shape == expected.shape and np.allclose(got, expected, rtol=1e-3, atol=1e-7)
        (passed if same else wrong).append(case.name)
    with capsys.disabled():
        print(f"\nONNX's cases of {len(set(OPERATORS) - NOT_LAYERS)} operators: {len(passed)} pass, "
              f"{len(refused)} are refused")
    assert not wrong
    assert refused.keys() == listed.keys()
    assert {name for name, text in refused.items() if listed[name] not in text} == set()
    assert len(passed) > 100
