"""The tensorrt and tensorrt-rtx engines on a fake GPU: what they call, in which order, and how they handle failures.

No real engine runs here. Every call is bound to the signature of the installed bindings (tests/bindings_for_tests.py).
"""

from __future__ import annotations

import gc

import numpy as np
import pytest
from bundles_for_tests import expected_probability
from fake_cuda_for_tests import ILLEGAL_ADDRESS, Graph
from tensorrt_machine_for_tests import SIDE, assert_correct, some_tiles

from melanoma_infer.engines.golden import golden_failure
from melanoma_infer.engines.slots import BUCKETS, SLOTS, split
from melanoma_infer.errors import EngineUnavailableError, GpuLostError, MemoryExhaustedError

# What it computes, and in which order.


@pytest.mark.parametrize("count", [0, 1, 3, 33, 70])
def test_outputs_are_correct_for_any_number_of_tiles(machine, bundle, count):
    engine = machine.load(bundle)
    for seed in range(2):  # reused buffers give the same as new ones
        assert_correct(engine, some_tiles(count, seed))


def test_its_numerics_name_library_version_precision_and_gpu(machine, bundle):
    numerics = machine.load(bundle).numerics
    assert str(numerics) == f"{machine.api.name} {machine.api.version} fp32 on RTX A4000"


def test_tensorrt_replays_a_captured_graph_and_tensorrt_rtx_captures_its_own(new_machine, bundle):
    for name, launches in (("tensorrt", 2), ("tensorrt-rtx", 0)):
        machine = new_machine(name)
        engine = machine.load(bundle)
        machine.gpu.launches = 0
        engine.infer(some_tiles(129))
        assert machine.gpu.launches == launches


@pytest.mark.parametrize("raises", [False, True])
def test_an_engine_that_cannot_be_captured_runs_without_a_graph_and_says_so(new_machine, bundle, raises):
    machine = new_machine("tensorrt")
    machine.behaviour.fails_in_capture, machine.behaviour.raises_in_capture = True, raises
    engine = machine.load(bundle)
    assert_correct(engine, some_tiles(5))
    assert machine.gpu.launches == 0
    assert engine.remarks == ("no CUDA graph for batches of 1", "no CUDA graph for batches of 8")
    assert not any(isinstance(each, Graph) for each in machine.gpu.live.values())


def test_captured_graphs_are_the_only_ones_that_are_kept(new_machine, bundle):
    machine = new_machine("tensorrt")
    engine = machine.load(bundle)
    engine.infer(some_tiles(70))
    assert engine.remarks == ()
    graphs = [each for each in machine.gpu.live.values() if isinstance(each, Graph)]
    assert len(graphs) == len(machine.behaviour.contexts)


def test_tensorrt_uses_the_profile_of_the_batch_size(new_machine, bundle):
    machine = new_machine("tensorrt")
    engine = machine.load(bundle)
    engine.infer(some_tiles(70))
    assert machine.behaviour.profiles == len(BUCKETS)
    assert all(BUCKETS[getattr(each, "profile", 0)] == each.rows for each in machine.behaviour.contexts)


@pytest.mark.parametrize("number", range(SLOTS))
@pytest.mark.parametrize("rows", BUCKETS)
def test_a_program_of_any_batch_size_that_is_wrong_fails_the_golden_check(new_machine, bundle, rows, number):
    """The last tiles of a slide run in smaller batches, in any slot: these are proven at load, too."""
    machine = new_machine("tensorrt")
    engine = machine.load(bundle)
    assert golden_failure(bundle, engine) is None
    machine.behaviour.wrong_context = (rows, number)
    assert "golden probabilities" in str(golden_failure(bundle, engine))


def test_everything_that_was_created_is_freed(machine, bundle):
    engine = machine.load(bundle)
    engine.infer(some_tiles(40))
    assert machine.gpu.live
    machine.behaviour.contexts.clear()
    del engine
    gc.collect()
    assert machine.gpu.live == {}


@pytest.mark.parametrize("library", ["tensorrt-rtx", "tensorrt"])
def test_every_call_is_on_the_chosen_gpu_whatever_the_program_uses(new_machine, bundle, library):
    """Building, loading and computing: the fake GPU refuses a call while another device is current."""
    machine = new_machine(library, gpus=3)
    engine = machine.load(bundle, device="cuda:2")
    for other in (0, 1):
        machine.gpu.current = other
        assert_correct(engine, some_tiles(40))
    assert machine.behaviour.built_on == [2]
    assert {each.device for each in machine.gpu.live.values()} == {None, 2}


def test_a_call_allocates_nothing_and_copies_each_tile_and_each_output_once(machine, bundle):
    engine, tiles = machine.load(bundle), some_tiles(70)
    engine.infer(tiles)
    machine.gpu.copies.clear()
    machine.gpu.allocations.clear()
    engine.infer(tiles)
    assert machine.gpu.allocations == []
    up, down = (
        [each.nbytes for each in machine.gpu.copies if each.kind == kind] for kind in ("HostToDevice", "DeviceToHost")
    )
    batches = [(batch.size, batch.bucket) for batch in split(70, engine.buckets)]
    assert up == [bucket * SIDE * SIDE * 3 for _, bucket in batches]
    assert down == [size * 2 * 4 for size, _ in batches]
    assert len(machine.gpu.copies) == 2 * len(batches)


def test_tiles_in_frames_are_uploaded_from_there_with_one_copy_for_each_part_of_a_block(machine, bundle):
    engine, tiles, tile_bytes = machine.load(bundle), some_tiles(8 + 7), SIDE * SIDE * 3

    def in_frames():
        for number, tile in enumerate(tiles):
            frame = engine.frames.take(tile_bytes)
            frame.memory[:] = tile.reshape(-1)
            if number == 2:
                engine.frames.take(tile_bytes)  # of a tile that could not be read
            yield frame

    for _ in range(2):
        machine.gpu.copies.clear()
        outputs = np.concatenate([each["probabilities"] for each in engine.infer_each(in_frames())])
        assert np.array_equal(outputs[:, 1], expected_probability(tiles).astype(np.float32))
        up = [each.nbytes for each in machine.gpu.copies if each.kind == "HostToDevice"]
        assert up == [3 * tile_bytes, 5 * tile_bytes, 7 * tile_bytes]  # batches of 8, the first with a gap


# Failures.


def test_a_gpu_with_little_memory_computes_in_smaller_batches(new_machine, bundle):
    machine = new_machine(memory_bytes=2 * 4 * SIDE * SIDE * 3 + 40_000)
    engine = machine.load(bundle)
    assert_correct(engine, some_tiles(9))
    assert engine.buckets[-1] < BUCKETS[-1]


def test_a_gpu_without_memory_for_one_tile_is_exit_175(new_machine, bundle):
    machine = new_machine(memory_bytes=100)
    with pytest.raises(MemoryExhaustedError) as caught:
        machine.load(bundle)
    assert caught.value.exit_code == 175


def test_an_engine_that_does_not_fit_is_exit_175(machine, bundle):
    machine.behaviour.fails_on_load = "Error Code 2: OutOfMemory (Requested size was 4 bytes.)"
    with pytest.raises(MemoryExhaustedError, match="OutOfMemory"):
        machine.load(bundle)


def test_a_lost_gpu_is_exit_177(machine, bundle):
    engine = machine.load(bundle)
    machine.gpu.sticky = ILLEGAL_ADDRESS
    with pytest.raises(GpuLostError, match="IllegalAddress") as caught:
        engine.infer(some_tiles(1))
    assert caught.value.exit_code == 177


def test_another_failure_is_exit_21_with_the_library_s_message(new_machine, bundle):
    machine = new_machine("tensorrt-rtx")
    engine = machine.load(bundle)
    machine.behaviour.fails_on_run = "Error Code 1: Myelin (no kernel)\nat line 3"
    with pytest.raises(EngineUnavailableError, match=r"no kernel.*--engine openvino") as caught:
        engine.infer(some_tiles(1))
    assert caught.value.exit_code == 21
    machine.behaviour.fails_on_run = None
    assert_correct(engine, some_tiles(3))
