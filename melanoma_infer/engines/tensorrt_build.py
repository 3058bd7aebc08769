"""An ONNX graph → a TensorRT or TensorRT-RTX engine that computes what the graph says.

The network is strongly typed: no layer's precision is the builder's choice. After parsing it is walked, because the
parser changes types that it does not know: UINT8 zero points become INT8 with a mere warning, and the engine that
follows builds and is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.bundle.graph_checks import self_contained_model
from melanoma_infer.card import Precision
from melanoma_infer.engines.batching import BUCKETS
from melanoma_infer.engines.engine_file import EngineFile, EngineManifest, Origin, TensorSpec
from melanoma_infer.engines.tensorrt_api import Api, Heard, in_one_line
from melanoma_infer.errors import BundleError, EngineUnavailableError, MemoryExhaustedError

if TYPE_CHECKING:
    import onnx

DEFAULTING = ("default", "uint8", "clamp", "cast down", "casting down", "out of range")
"""Words of a warning that a type or a value was replaced by another."""
OUT_OF_MEMORY = ("out of memory", "outofmemory", "alloc_failed", "failed_allocation", "bad_alloc", "memoryerror")
"""How CUDA, the libraries and Python say it."""
MUST_BE_FOUND = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "QuantizeLinear", "DequantizeLinear"})
"""Nodes whose result must stand in the network under its own name, or their type could not be compared."""
FLAGS = ("no-tf32", "strict-nans")
"""float32 keeps its 24 bits; a NaN is never optimised away."""
RTX_FLAGS = ("distributive-independence", "require-user-allocation")
"""A tile's numbers depend on no other tile of its batch; memory is the caller's, which graph capture needs."""
STRIPPED = "strip-weights"
"""The weights stay in the bundle."""


@dataclass(frozen=True)
class Built:
    """An engine, and for TensorRT what the builder learnt of this GPU."""

    file: EngineFile
    timing_cache: bytes | None


def origin_of(
    api: Api,
    bundle: Bundle,
    precision: Precision,
    targets: Sequence[str],
    *,
    gpu: str | None = None,
    strip_weights: bool = False,
) -> Origin:
    """What an engine of this bundle's graph is built from.

    Raises:
        EngineUnavailableError: the bundle has no graph of that precision.
    """
    return Origin(
        runtime=api.name,
        runtime_version=api.version,
        onnx_sha256=hashlib.sha256(graph_of(bundle, precision)).hexdigest(),
        precision=precision,
        targets=tuple(targets),
        gpu=gpu,
        flags=(*FLAGS, *(RTX_FLAGS if api.is_rtx else ()), *((STRIPPED,) if strip_weights else ())),
    )


def graph_of(bundle: Bundle, precision: Precision) -> bytes:
    """The bytes of the bundle's graph.

    Raises:
        EngineUnavailableError: it has none of that precision.
    """
    if precision not in bundle.graphs:
        raise EngineUnavailableError(
            f"The bundle has no {precision} graph (it has {', '.join(bundle.precisions)}). Choose one of these, or add "
            "one: mminfer export BUNDLE --to onnx --precision fp16 (or int8) --out NEW.mminfer."
        )
    return bundle.graphs[precision]


def build(api: Api, graph: bytes, origin: Origin, *, timing_cache: bytes | None = None) -> Built:
    """The engine of a bundle's graph; TensorRT needs the GPU for it, TensorRT-RTX none.

    Args:
        api: the library.
        graph: the ONNX file's verified bytes, whose SHA-256 the origin names.
        origin: what to build for.
        timing_cache: what TensorRT learnt before; not used by TensorRT-RTX, which would ask for a GPU.

    Raises:
        BundleError: a type of the network is not the one in the ONNX file.
        EngineUnavailableError: the parser or the builder refuses the graph.
        MemoryExhaustedError: there was not enough memory to build.
    """
    model = self_contained_model(graph)
    with api.listening() as heard:
        builder = _builder(api, heard)
        network = _parsed(api, builder, graph, heard)
        check_types(api.trt, network, model)
        _refuse_defaulting(api, heard)
        buckets = buckets_of(model)
        config = _config(api, builder, origin)
        _add_profiles(api, builder, config, model, buckets)
        cache = None if api.is_rtx else _use_timing_cache(config, timing_cache)
        plan = _plan(api, builder, network, config, origin, heard)
        _refuse_defaulting(api, heard)
    manifest = EngineManifest(
        origin=origin, engine_sha256=hashlib.sha256(plan).hexdigest(), engine_bytes=len(plan), buckets=buckets,
        inputs=tuple(_specs(_inputs(model))), outputs=tuple(_specs(model.graph.output)),
    )  # fmt: skip
    return Built(EngineFile(plan, manifest), None if cache is None else bytes(cache.serialize()))


def buckets_of(model: onnx.ModelProto) -> tuple[int, ...]:
    """The batch sizes to build for: those of `batching`, or the only one where the graph has a fixed batch."""
    batch = _inputs(model)[0].type.tensor_type.shape.dim[0]
    return (int(batch.dim_value),) if batch.HasField("dim_value") else BUCKETS


def _builder(api: Api, heard: Heard) -> Any:
    try:
        return api.trt.Builder(api.logger)
    except (TypeError, RuntimeError) as error:  # the factory returns nullptr where CUDA does not start
        raise EngineUnavailableError(
            f"{api.title} cannot build here ({in_one_line([*heard.errors, str(error)])}). Does nvidia-smi show a GPU? "
            "If not, build on the machine that has it."
        ) from error


def _parsed(api: Api, builder: Any, graph: bytes, heard: Heard) -> Any:
    trt = api.trt
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # TensorRT 11 knows nothing else
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, api.logger)
    if not parser.parse(graph):
        reasons = [_parser_reason(parser.get_error(index)) for index in range(parser.num_errors)]
        raise EngineUnavailableError(
            f"{api.title} {api.version} does not read this graph: {in_one_line([*reasons, *heard.errors])}. "
            "Export the model with other operators, or use --engine openvino."
        )
    return network


def _parser_reason(error: Any) -> str:
    name = error.node_name()
    return f"{error.node_operator()}{f' {name!r}' if name else ''}: {error.desc()}"


def check_types(trt: Any, network: Any, model: onnx.ModelProto) -> None:
    """Nothing, when every tensor of the network that the ONNX file names has the ONNX file's type.

    Raises:
        BundleError: one has another, or a matrix product or quantiser is not found.
    """
    wanted = _types(trt, model)
    found: dict[str, Any] = {}
    for name, kind in _tensors(trt, network):
        found.setdefault(name, kind)
        if name in wanted and kind != wanted[name]:
            raise BundleError(
                f"The graph's {name!r} is {_word(wanted[name])}, but the network that was read has {_word(kind)}: its "
                "numbers would be wrong. Quantise with int8 zero points of 0: mminfer export BUNDLE --to onnx "
                "--precision int8 --out NEW.mminfer."
            )
    for node in model.graph.node:
        if node.op_type in MUST_BE_FOUND and node.output[0] not in found:
            raise BundleError(
                f"The result {node.output[0]!r} of a {node.op_type} is not in the network that was read, so its type "
                "cannot be compared. Export the model again."
            )


def _types(trt: Any, model: onnx.ModelProto) -> Mapping[str, Any]:
    """The API's type of every value and stored tensor whose ONNX type is known; None where the API has none."""
    from onnx import TensorProto
    from onnx.shape_inference import infer_shapes

    kinds = {
        TensorProto.FLOAT: trt.DataType.FLOAT,
        TensorProto.FLOAT16: trt.DataType.HALF,
        TensorProto.BFLOAT16: trt.DataType.BF16,
        TensorProto.INT8: trt.DataType.INT8,
        TensorProto.UINT8: trt.DataType.UINT8,
        TensorProto.INT32: trt.DataType.INT32,
        TensorProto.INT64: trt.DataType.INT64,
        TensorProto.BOOL: trt.DataType.BOOL,
    }
    graph = infer_shapes(model, data_prop=False).graph
    values = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {name: kinds.get(kind) for name, kind in (values | stored).items() if kind}


def _tensors(trt: Any, network: Any) -> Iterator[tuple[str, Any]]:
    """Names and types: inputs, outputs of layers, stored tensors (a constant layer has the tensor's name), outputs."""
    for index in range(network.num_inputs):
        yield network.get_input(index).name, network.get_input(index).dtype
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for place in range(layer.num_outputs):
            tensor = layer.get_output(place)
            yield tensor.name, tensor.dtype
            if layer.type == trt.LayerType.CONSTANT:
                yield layer.name, tensor.dtype
    for index in range(network.num_outputs):
        yield network.get_output(index).name, network.get_output(index).dtype


def _word(kind: Any) -> str:
    return "of a type that it does not know" if kind is None else str(kind).rpartition(".")[2].lower()


def _refuse_defaulting(api: Api, heard: Heard) -> None:
    """Refuse what was built with a warning that something became something else.

    Raises:
        BundleError: there was one.
    """
    found = [text for text in heard.warnings if any(word in text.lower() for word in DEFAULTING)]
    if found:
        raise BundleError(
            f"{api.title} replaced a type or value of this graph ({in_one_line(found)}), so its numbers would be "
            "wrong. Export the bundle again: mminfer export BUNDLE --to onnx."
        )


def _config(api: Api, builder: Any, origin: Origin) -> Any:
    trt, config = api.trt, builder.create_builder_config()
    flags = trt.BuilderFlag
    config.clear_flag(flags.TF32)
    config.set_flag(flags.STRICT_NANS)
    if STRIPPED in origin.flags:
        config.set_flag(flags.STRIP_PLAN)
        config.set_flag(flags.REFIT)
    if api.is_rtx:
        config.set_flag(flags.DISTRIBUTIVE_INDEPENDENCE)
        config.set_flag(flags.REQUIRE_USER_ALLOCATION)
        config.num_compute_capabilities = len(origin.targets)
        for index, target in enumerate(origin.targets):
            if not config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), index):
                raise EngineUnavailableError(f"{api.title} {api.version} does not build for {target}. Leave it out.")
    return config


def _add_profiles(api: Api, builder: Any, config: Any, model: onnx.ModelProto, buckets: tuple[int, ...]) -> None:
    """Profiles for the batch sizes; none where the batch is fixed.

    TensorRT gets one for each bucket, whose kernels it then tries out. TensorRT-RTX gets one for all, and compiles for
    a shape where it runs: with one for each, the demo's engine for three targets is 50 MB instead of 3.4 MB.
    """
    value = _inputs(model)[0]
    if value.type.tensor_type.shape.dim[0].HasField("dim_value"):
        return
    tile = tuple(int(dim.dim_value) for dim in value.type.tensor_type.shape.dim[1:])
    # Most batches of a slide are of the largest size.
    ranges = [(buckets[0], buckets[-1])] if api.is_rtx else [(bucket, bucket) for bucket in buckets]
    for least, most in ranges:
        profile = builder.create_optimization_profile()
        profile.set_shape(value.name, (least, *tile), (most, *tile), (most, *tile))
        if config.add_optimization_profile(profile) < 0:
            raise EngineUnavailableError(f"{api.title} refuses batches of {least} to {most} tiles. Use openvino.")


def _use_timing_cache(config: Any, content: bytes | None) -> Any:
    """The builder's cache, filled from before where that fits; one that does not is left unused."""
    cache = config.create_timing_cache(content or b"")
    config.set_timing_cache(cache, False)
    return cache


def _plan(api: Api, builder: Any, network: Any, config: Any, origin: Origin, heard: Heard) -> bytes:
    plan = builder.build_serialized_network(network, config)
    if plan is not None:
        return bytes(plan)
    reason = in_one_line(heard.errors)
    if any(word in reason.lower() for word in OUT_OF_MEMORY):
        raise MemoryExhaustedError(f"{api.title} ran out of memory while building ({reason}). Stop other programs.")
    raise EngineUnavailableError(
        f"{api.title} {api.version} cannot build the {origin.precision} engine for {', '.join(origin.targets)}: "
        f"{reason}. {_advice(reason, origin)}"
    )


def _advice(reason: str, origin: Origin) -> str:
    if "FP32 GEMM is not supported" in reason:
        return "Choose --precision fp16 or int8, or leave sm75 out of --target."
    if STRIPPED in origin.flags:
        return "Weights could not be stripped on a machine without a GPU: leave --strip-weights out."
    return "Try --precision fp16, fewer targets, or --engine openvino."


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def _specs(values: Sequence[onnx.ValueInfoProto]) -> Iterator[TensorSpec]:
    from onnx import helper

    for value in values:
        kind = value.type.tensor_type
        shape = tuple(int(dim.dim_value) if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
        dtype = str(helper.tensor_dtype_to_np_dtype(kind.elem_type))
        yield TensorSpec(name=value.name, dtype=dtype, shape=shape)
