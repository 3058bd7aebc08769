"""The fake GPU that the tests of the TensorRT engines rely on: wrong calls and misuse are detected."""

from __future__ import annotations

import pytest
from bindings_for_tests import WrongCallError, check_cuda_call, check_trt_attribute, check_trt_call, runtime, trt
from fake_cuda_for_tests import FakeCuda, MisuseError
from tensorrt_machine_for_tests import some_tiles

from melanoma_infer.engines.tensorrt_device import TensorRTDevice

# Calls that the bindings would refuse.


@pytest.mark.parametrize(
    ("owner", "name", "args"),
    [
        ("IExecutionContext", "execute_async_v3", ()),
        ("IExecutionContext", "execute_async_v3", ("stream",)),
        ("IExecutionContext", "execute_async_v4", (1,)),
        ("IExecutionContext", "set_tensor_address", (7, "tiles")),
        ("IExecutionContext", "set_input_shape", ("tiles", 8)),
        ("ICudaEngine", "create_execution_context", (trt.CudaGraphStrategy.DISABLED,)),
        ("IBuilderConfig", "set_timing_cache", ("cache",)),
    ],
)
def test_a_wrong_call_of_the_library_is_detected(owner, name, args):
    with pytest.raises(WrongCallError):
        check_trt_call(owner, name, *args)


def test_a_wrong_call_of_the_cuda_runtime_is_detected():
    for name, *args in (("cudaMemcpy2", 1), ("cudaMalloc",), ("cudaMemcpyAsync", 1, 2, 3, 4, 5)):
        with pytest.raises(WrongCallError):
            check_cuda_call(name, *args)
    with pytest.raises(WrongCallError):
        check_trt_attribute("ICudaEngine", "num_profiles")


def test_correct_calls_are_accepted():
    check_trt_call("IExecutionContext", "set_input_shape", "tiles", (1, 2))
    check_trt_call("ICudaEngine", "create_execution_context", trt.ExecutionContextAllocationStrategy.STATIC)
    check_cuda_call("cudaMemcpyAsync", 1, 2, 3, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice, 5)


# Calls that the bindings would take, and a program must not make.

ROW_BYTES = 8


class Program:
    """The calls of a program on device 0 that uploads one row, reads it back, and has made no mistake so far."""

    def __init__(self) -> None:
        self.gpu = FakeCuda(gpus=2)
        self.stream = self.call("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking)
        self.event = self.call("cudaEventCreateWithFlags", 0)
        self.row = self.call("cudaMalloc", ROW_BYTES)
        self.host = self.call("cudaHostAlloc", ROW_BYTES, 0)

    def call(self, name: str, *args: object) -> object:
        error, *values = getattr(self.gpu, name)(*args)
        assert not error
        return values[0] if values else None

    def copy(self, target: int, source: int, kind: str, nbytes: int = ROW_BYTES) -> None:
        kind = getattr(runtime.cudaMemcpyKind, f"cudaMemcpy{kind}")
        self.call("cudaMemcpyAsync", target, source, nbytes, kind, self.stream)

    def finish(self) -> None:
        self.call("cudaStreamSynchronize", self.stream)


@pytest.fixture
def program() -> Program:
    return Program()


def test_a_correct_program_is_let_through(program):
    program.copy(program.row, program.host, "HostToDevice")
    program.call("cudaEventRecord", program.event, program.stream)
    program.copy(program.host, program.row, "DeviceToHost")
    program.finish()


@pytest.mark.parametrize(
    "make",
    [
        lambda program: program.copy(program.row, program.host, "HostToDevice"),
        lambda program: program.call("cudaEventRecord", program.event, program.stream),
        lambda program: program.call("cudaStreamSynchronize", program.stream),
        lambda program: program.call("cudaMemset", program.row, 0, ROW_BYTES),
    ],
    ids=["copy", "record", "synchronize", "memset"],
)
def test_a_call_while_another_device_is_current_is_detected(program, make):
    program.gpu.current = 1
    with pytest.raises(MisuseError, match="of device 0 is used while device 1 is current"):
        make(program)


def test_memory_that_was_released_is_detected_when_it_is_used(program):
    program.copy(program.row, program.host, "HostToDevice")
    program.call("cudaFree", program.row)
    with pytest.raises(MisuseError, match="not, or no longer, inside one buffer"):
        program.copy(program.row, program.host, "HostToDevice")
    with pytest.raises(MisuseError, match="freed before"):
        program.call("cudaFree", program.row)


def test_a_graph_that_outlives_its_memory_is_detected_when_it_runs(program):
    program.call(
        "cudaStreamBeginCapture", program.stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    )
    program.copy(program.row, program.host, "HostToDevice")
    graph = program.call("cudaGraphInstantiate", program.call("cudaStreamEndCapture", program.stream), 0)
    program.call("cudaGraphLaunch", graph, program.stream)
    program.finish()
    program.call("cudaFreeHost", program.host)
    program.call("cudaGraphLaunch", graph, program.stream)
    with pytest.raises(MisuseError, match="no longer, inside one buffer"):
        program.finish()


def test_a_copy_beyond_the_end_or_in_the_wrong_direction_is_detected(program):
    with pytest.raises(MisuseError, match="9 bytes"):
        program.copy(program.row, program.host, "HostToDevice", ROW_BYTES + 1)
    program.copy(program.row, program.host, "DeviceToHost")
    with pytest.raises(MisuseError, match="leads from and to HostDevice"):
        program.finish()


def test_outputs_that_nothing_has_written_are_detected_when_they_are_downloaded(program):
    program.copy(program.host, program.row, "DeviceToHost")
    with pytest.raises(MisuseError, match="before a program has written them"):
        program.finish()


def test_a_handle_that_was_destroyed_is_detected(program):
    program.call("cudaEventDestroy", program.event)
    with pytest.raises(MisuseError, match="no Recorded, or was destroyed"):
        program.call("cudaEventRecord", program.event, program.stream)


@pytest.mark.parametrize("library", ["tensorrt-rtx", "tensorrt"])
def test_a_launch_before_its_upload_is_detected(new_machine, bundle, library, monkeypatch):
    machine = new_machine(library)
    engine = machine.load(bundle)
    monkeypatch.setattr(TensorRTDevice, "upload", lambda *_: None)
    with pytest.raises(MisuseError, match="before its tiles are uploaded"):
        engine.infer(some_tiles(1))
    machine.gpu.forget_work()


@pytest.mark.parametrize("library", ["tensorrt-rtx", "tensorrt"])
def test_a_launch_that_does_not_wait_for_its_upload_is_detected(new_machine, bundle, library, monkeypatch):
    machine = new_machine(library)
    engine = machine.load(bundle)
    monkeypatch.setattr(TensorRTDevice, "wait", lambda *_: None)
    with pytest.raises(MisuseError):
        engine.infer(some_tiles(1))
    machine.gpu.forget_work()
