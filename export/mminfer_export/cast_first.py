"""Lets a graph cast its uint8 tiles before anything else, which changes no number.

TensorRT-RTX cannot transpose uint8, and the exporters put Shape, Transpose or Reshape before the Cast as it suits them.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from melanoma_infer.bundle.graph_edit import consumers, rename_input

MOVES = frozenset({"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Slice"})
"""They move values of any type, so they may come after the Cast."""
ANY_TYPE = frozenset({"Cast", "Shape", "Size"})
"""What they give does not depend on the type of the values 0 to 255."""


def cast_first(graph: onnx.GraphProto) -> None:
    """Put one Cast to float32 before every other node that takes `tiles`, where they only move or cast them.

    A graph that computes with uint8 stays as it is: TensorRT-RTX says what it cannot read.
    """
    takers = consumers(graph)
    if len(takers.get("tiles", [])) == 1 and takers["tiles"][0].op_type == "Cast":
        cast = onnx.NodeProto.FromString(takers["tiles"][0].SerializeToString())
        graph.node.remove(takers["tiles"][0])
        graph.node.insert(0, cast)
        return
    waiting, moved = ["tiles"], list[str]()
    while waiting:
        moved.append(waiting.pop())
        for node in takers.get(moved[-1], []):
            if node.op_type in MOVES:
                waiting += node.output
            elif node.op_type not in ANY_TYPE:
                return
    if {value.name for value in graph.output}.intersection(moved):
        return
    for node in takers.get("tiles", []):
        rename_input(node, "tiles", "tiles/float32")
    graph.node.insert(0, helper.make_node("Cast", ["tiles"], ["tiles/float32"], "tiles/Cast", to=TensorProto.FLOAT))
