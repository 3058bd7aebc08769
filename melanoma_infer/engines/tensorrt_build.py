"""Builds a TensorRT or TensorRT-RTX engine that computes exactly what an ONNX graph specifies.

The network is strongly typed, so the builder cannot choose the precision of a layer; `tensorrt_types` checks the types
that the parser may have changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from melanoma_infer.bundle.bundle import Bundle
from melanoma_infer.bundle.graph_checks import self_contained_model
from melanoma_infer.engines.engine_file import EngineFile, EngineManifest, Origin, TensorSpec
from melanoma_infer.engines.slots import BUCKETS
from melanoma_infer.engines.tensorrt_api import Api, Heard, in_one_line, is_out_of_memory
from melanoma_infer.engines.tensorrt_types import check_types
from melanoma_infer.errors import BundleError, EngineUnavailableError, MemoryExhaustedError
from melanoma_infer.tolerances import Precision

if TYPE_CHECKING:
    import onnx

REPLACEMENTS = (
    "Defaulting to INT8 instead",  # a uint8 zero point
    "is not set. Defaulting to",  # the type or the block size of a quantiser
    "Setting a default quantization params because quantization data is missing for",
    "Missing scale and zero-point for tensor",
    "Attempting to cast down to INT32",  # int64 weights, before TensorRT 10
    "was clamped",  # "One or more weights outside the range of FLOAT was clamped"
    "is out of range. Clamping to:",
    "had the following issues when converted to",  # weights that are subnormal or infinite in a narrower type
    "Casting BatchNormalization parameters to the same type as input",
)
"""Sentences of the parsers and builders which say that a type or a value was replaced by another. A single word, such
as "default", would also refuse a graph for a default stream or an unused default profile."""
NO_TF32 = "no-tf32"
"""float32 keeps its 24-bit significand, instead of TF32's 11."""
STRICT_NANS = "strict-nans"
"""NaN handling is never optimised away."""
RTX_FLAGS = ("distributive-independence", "require-user-allocation")
"""A tile's numbers do not depend on the rest of its batch; the caller allocates memory, which graph capture needs."""
STRIPPED = "strip-weights"
"""The engine contains no weights; they are taken from the bundle when it is loaded."""
HALF_AROUND = "fp16-around-int8"
"""What an int8 graph leaves in float32 was converted to fp16, but for what `bundle.half` calls delicate."""
PLUGINS = "plugins"
"""The tail of the graph was built from plugins with this project's kernels."""


@dataclass(frozen=True)
class PluginTail:
    """The end of a graph that is added to the network layer by layer, instead of being parsed."""

    front: bytes
    """The ONNX graph without it."""
    add: Callable[[Any], None]
    """Adds it to the network of the front, and marks the network's outputs."""


@dataclass(frozen=True)
class Built:
    """An engine and, for TensorRT, the builder's timing cache for this GPU."""

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
    plugins: bool = False,
) -> Origin:
    """The origin of an engine that is built from this bundle's graph.

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
        flags=(
            NO_TF32, STRICT_NANS, *(RTX_FLAGS if api.is_rtx else ()), *((HALF_AROUND,) if precision == "int8" else ()),
            *((STRIPPED,) if strip_weights else ()), *((PLUGINS,) if plugins else ()),
        ),
    )  # fmt: skip


def as_built(graph: bytes, origin: Origin) -> bytes:
    """The graph that an engine of this origin is built from, and takes its weights from.

    That of the bundle, except for int8: in float32, the convolutions that were not quantised would, by arithmetic, take
    longer than all of an fp16 graph. CPUs run them in float32, so the bundle keeps them so.

    Args:
        graph: the bytes of the bundle's ONNX file.
        origin: of the engine.

    Raises:
        BundleError: fp16 cannot hold a weight or scale of the graph.
    """
    if HALF_AROUND not in origin.flags:
        return graph
    from melanoma_infer.bundle.half import to_half

    return to_half(graph)


def graph_of(bundle: Bundle, precision: Precision) -> bytes:
    """The bytes of the bundle's ONNX graph.

    Raises:
        EngineUnavailableError: the bundle has no graph of that precision.
    """
    if precision not in bundle.graphs:
        raise EngineUnavailableError(
            f"The bundle has no {precision} graph. Choose a precision that it has ({', '.join(bundle.precisions)}), or "
            "add one: mminfer export BUNDLE --to onnx --precision fp16 (or int8) --out NEW.mminfer."
        )
    return bundle.graphs[precision]


def build(
    api: Api, graph: bytes, origin: Origin, *, timing_cache: bytes | None = None, tail: PluginTail | None = None
) -> Built:
    """The engine for a bundle's graph. TensorRT builds on the target GPU; TensorRT-RTX needs no GPU.

    Args:
        api: the library.
        graph: the bytes of the verified ONNX file, whose SHA-256 is in the origin; what is built is `as_built` of it.
        origin: what to build for.
        timing_cache: TensorRT's timing cache from an earlier build; TensorRT-RTX ignores it, because it would need a
            GPU to use it.
        tail: the end of `as_built`'s graph, if it is built from plugins.

    Raises:
        BundleError: a type in the network differs from the ONNX file, or fp16 cannot hold one of its weights.
        EngineUnavailableError: the parser or the builder rejects the graph.
        MemoryExhaustedError: there was not enough memory to build.
    """
    whole = as_built(graph, origin)
    model = self_contained_model(whole)
    parsed = whole if tail is None else tail.front
    with api.listening() as heard:
        builder, network = _parsed(api, parsed, heard)
        check_types(api.trt, network, self_contained_model(parsed))
        if tail is not None:
            tail.add(network)
        _refuse_defaulting(api, heard)
        buckets = buckets_of(model)
        config = _config(api, builder, origin, _inputs(model)[0], buckets)
        cache = None if api.is_rtx else config.create_timing_cache(timing_cache or b"")
        if cache is not None:
            config.set_timing_cache(cache, False)  # False: a cache of another GPU or version is not used
        plan = _plan(api, builder, network, config, origin, heard)
        _refuse_defaulting(api, heard)
    manifest = EngineManifest(
        origin=origin, engine_sha256=hashlib.sha256(plan).hexdigest(), engine_bytes=len(plan), buckets=buckets,
        inputs=tuple(_specs(_inputs(model))), outputs=tuple(_specs(model.graph.output)),
    )  # fmt: skip
    return Built(EngineFile(plan, manifest), None if cache is None else bytes(cache.serialize()))


def buckets_of(model: onnx.ModelProto) -> tuple[int, ...]:
    """The batch sizes to build for: those of `batching`, or the graph's own if its batch size is fixed."""
    batch = _inputs(model)[0].type.tensor_type.shape.dim[0]
    return (int(batch.dim_value),) if batch.HasField("dim_value") else BUCKETS


def _parsed(api: Api, graph: bytes, heard: Heard) -> tuple[Any, Any]:
    """A builder, and its network of the graph."""
    trt = api.trt
    try:
        builder = trt.Builder(api.logger)
    except (TypeError, RuntimeError) as error:  # its factory returns nullptr if CUDA does not start
        raise EngineUnavailableError(
            f"{api.title} cannot build here ({in_one_line([*heard.errors, str(error)])}). Check that nvidia-smi shows "
            "a GPU; if not, build on a machine that has one."
        ) from error
    # TensorRT 11 removed the flag: all its networks are strongly typed.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, api.logger)
    if parser.parse(graph):
        return builder, network
    reasons = []
    for found in map(parser.get_error, range(parser.num_errors)):
        name = f" {found.node_name()!r}" if found.node_name() else ""
        reasons.append(f"{found.node_operator()}{name}: {found.desc()}")
    raise EngineUnavailableError(
        f"{api.title} {api.version} cannot parse this graph: {in_one_line([*reasons, *heard.errors])}. Export the "
        "model with other operators, or use --engine openvino."
    )


def _refuse_defaulting(api: Api, heard: Heard) -> None:
    """Raise if the library warned that it replaced a type or a value.

    Raises:
        BundleError: it did.
    """
    found = [text for text in heard.warnings if any(sentence in text for sentence in REPLACEMENTS)]
    if found:
        raise BundleError(
            f"{api.title} replaced a type or value of this graph ({in_one_line(found)}), so its numbers would be "
            "wrong. Export the bundle again: mminfer export BUNDLE --to onnx."
        )


def _config(api: Api, builder: Any, origin: Origin, tiles: onnx.ValueInfoProto, buckets: tuple[int, ...]) -> Any:
    """The builder's settings, with optimisation profiles for the batch sizes; none if the batch size is fixed.

    TensorRT gets one profile per bucket, and tunes kernels for each. TensorRT-RTX gets a single profile, because it
    compiles for each shape at load time: one profile per bucket would make the demo's engine for three targets 50 MB
    instead of 3.4 MB.
    """
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
                raise EngineUnavailableError(
                    f"{api.title} {api.version} cannot build for {target}. Remove it from --target."
                )
    batch, *side = tiles.type.tensor_type.shape.dim
    if batch.HasField("dim_value"):
        return config
    tile = tuple(int(dim.dim_value) for dim in side)
    # A profile is optimised for its largest batch size, because most batches of a slide have that size.
    ranges = [(buckets[0], buckets[-1])] if api.is_rtx else [(bucket, bucket) for bucket in buckets]
    for least, most in ranges:
        profile = builder.create_optimization_profile()
        profile.set_shape(tiles.name, (least, *tile), (most, *tile), (most, *tile))
        if config.add_optimization_profile(profile) < 0:
            raise EngineUnavailableError(
                f"{api.title} rejects batches of {least} to {most} tiles. Use --engine openvino."
            )
    return config


def _plan(api: Api, builder: Any, network: Any, config: Any, origin: Origin, heard: Heard) -> bytes:
    """The serialized engine."""
    plan = builder.build_serialized_network(network, config)
    if plan is not None:
        return bytes(plan)
    reason = in_one_line(heard.errors)
    if is_out_of_memory(reason):
        raise MemoryExhaustedError(
            f"{api.title} ran out of memory while building ({reason}). Stop other programs and try again."
        )
    advice = "Try --precision fp16, fewer targets, or --engine openvino."
    if STRIPPED in origin.flags:
        advice = "Weights cannot be stripped on a machine without a GPU: omit --strip-weights."
    if "FP32 GEMM is not supported" in reason:
        advice = "Choose --precision fp16 or int8, or remove sm75 from --target."
    raise EngineUnavailableError(
        f"{api.title} {api.version} cannot build the {origin.precision} engine for {', '.join(origin.targets)}: "
        f"{reason}. {advice}"
    )


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
