"""Batching: padded, in a ring of slots, and correct for every order in which a GPU may run different streams."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_infer.engines.batching import BatchRunner
from melanoma_infer.engines.device import DeviceError, DeviceLostError, DeviceMemoryError, Stream
from melanoma_infer.engines.frames import Frames
from melanoma_infer.engines.slots import BUCKETS, split
from melanoma_infer.errors import EngineUnavailableError, GpuLostError, MemoryExhaustedError, UsageError
from melanoma_infer.records import NativeTile
from melanoma_infer.tiles.pixels import resized

SIDE = 4
SHAPES = {"score": (), "map": (2, 3)}
SCHEDULES = [frozenset(s) for size in range(4) for s in itertools.combinations(Stream, size)]
CALLS = ("pinned", "buffer", "program", "upload", "launch", "download", "record", "wait", "synchronize")


@dataclass
class Work:
    """Work on a stream, and the work that must be done before it."""

    do: Callable[[], None]
    after: list[Work]
    is_done: bool = False

    def finish(self) -> None:
        if self.is_done:
            return
        for earlier in self.after:
            earlier.finish()
        self.do()
        self.is_done, self.do, self.after = True, lambda: None, []


@dataclass
class FakeDevice:
    """A device that runs work as late as allowed, on `eager` streams as early as allowed; memory starts as garbage.

    So a missing wait gives wrong numbers in some schedule. `deaf` streams ignore their waits (None: the host ignores
    its waits), to show that.
    """

    eager: frozenset[Stream] = frozenset()
    deaf: frozenset[Stream | None] = frozenset()
    memory_rows: int = 1000
    """The largest batch size that fits."""
    fail: dict[str, tuple[int, BaseException]] = field(default_factory=dict)
    """For each call by name: which one fails, counted from 1, and with which error."""
    log: list[str] = field(default_factory=list)
    """The work that was done, in order."""
    computed: list[np.ndarray] = field(default_factory=list)
    """The rows that each program got, padding included."""
    programs_made: list[int] = field(default_factory=list)
    held_at_release: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._last = {stream: Work(lambda: None, []) for stream in Stream}
        self._awaited: dict[Stream, list[Work]] = {stream: [] for stream in Stream}
        self._arrays: list[weakref.ref[np.ndarray]] = []

    def pinned(self, shape, dtype):
        self._maybe_fail("pinned")
        return self._rubbish(shape, dtype)

    def buffer(self, shape, dtype):
        self._maybe_fail("buffer")
        return self._rubbish(shape, dtype)

    def program(self, tiles, outputs, rows):
        self._maybe_fail("program")
        if rows > self.memory_rows:
            raise DeviceMemoryError(f"{rows} rows do not fit")
        self.programs_made.append(rows)
        self._give(Stream.COMPUTE, "try", lambda: self._compute(tiles[:rows], outputs, rows))
        self.computed.clear()
        return tiles, outputs, rows

    def upload(self, source, target, first=0):
        self._maybe_fail("upload")
        seen = source.view()  # the device keeps no memory from being used again
        self._give(Stream.UPLOAD, "upload", lambda: target.__setitem__(slice(first, first + len(seen)), seen))

    def launch(self, program):
        self._maybe_fail("launch")
        tiles, outputs, rows = program
        self._give(Stream.COMPUTE, "compute", lambda: self._compute(tiles[:rows], outputs, rows))

    def download(self, source, target):
        self._maybe_fail("download")
        self._give(Stream.DOWNLOAD, "download", lambda: target.__setitem__(slice(None), source[: len(target)]))

    def record(self, stream):
        self._maybe_fail("record")
        return self._last[stream]

    def wait(self, stream, event):
        self._maybe_fail("wait")
        if stream not in self.deaf:
            self._awaited[stream].append(event)

    def synchronize(self, event):
        self._maybe_fail("synchronize")
        if None not in self.deaf:
            event.finish()

    def release(self):
        for last in self._last.values():
            last.finish()
        self.held_at_release.append(sum(array() is not None for array in self._arrays))

    def _give(self, stream, label, do):
        def logged():
            do()
            self.log.append(label)

        self._last[stream] = Work(logged, [self._last[stream], *self._awaited[stream]])
        self._awaited[stream] = []
        if stream in self.eager:
            self._last[stream].finish()

    def _compute(self, tiles, outputs, rows):
        self.computed.append(tiles.copy())
        for name, values in network(tiles).items():
            outputs[name][:rows] = values

    def _rubbish(self, shape, dtype):
        array = np.full(shape, 77 if dtype is np.uint8 else np.nan, dtype)
        self._arrays.append(weakref.ref(array))
        return array

    def _maybe_fail(self, call):
        if call in self.fail:
            left, error = self.fail[call]
            self.fail[call] = (left - 1, error)
            if left == 1:
                raise type(error)(*error.args)  # a new one: a raised error refers to frames


def network(tiles: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs that differ between tiles and do not depend on other tiles."""
    weights = np.arange(1, SIDE * SIDE * 3 + 1).reshape(SIDE, SIDE, 3)
    score = (tiles.astype(np.float64) * weights).sum((1, 2, 3)).astype(np.float32)
    return {"score": score, "map": score[:, None, None] * np.arange(6, dtype=np.float32).reshape(2, 3)}


def some_tiles(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def runner_on(device: FakeDevice, buckets: tuple[int, ...] = (1, 2, 4)) -> BatchRunner:
    return BatchRunner(device, tile_px=SIDE, outputs=SHAPES, buckets=buckets)


def assert_correct(outputs, tiles):
    expected = network(tiles)
    assert list(outputs) == list(SHAPES)
    for name, values in outputs.items():
        assert values.dtype == np.float32
        assert values.shape == (len(tiles), *SHAPES[name])
        assert np.array_equal(values, expected[name]), name


@pytest.mark.parametrize("count", [0, 1, 11, 12, 13, 37])
def test_a_stream_of_tiles_fills_all_slots_and_keeps_its_order(count):
    runner, tiles, taken = runner_on(FakeDevice()), some_tiles(count), []
    assert runner.tiles_at_once == 12

    def noted():
        for tile in tiles:
            taken.append(tile)
            yield tile

    done = 0
    for outputs in runner.infer_each(noted()):
        assert len(taken) <= done + 12
        size = len(outputs["score"])
        assert_correct(outputs, tiles[done : done + size])
        done += size
    assert len(taken) == done == count


@given(st.integers(0, 500), st.sets(st.integers(1, 64), min_size=1).map(sorted))
def test_batches_cover_all_tiles_once_and_only_the_last_is_padded_by_less_than_half(tiles, buckets):
    batches = list(split(tiles, buckets))
    assert [i for batch in batches for i in range(tiles)[batch.rows]] == list(range(tiles))
    assert all(batch.bucket in buckets for batch in batches)
    assert all(batch.size == batch.bucket for batch in batches[:-1])
    assert all(batch.bucket == buckets[0] or 2 * batch.size > batch.bucket for batch in batches)
    assert sorted((batch.bucket for batch in batches), reverse=True) == [batch.bucket for batch in batches]


@pytest.mark.parametrize(
    ("tiles", "sizes"),
    [
        (1, [1]),
        (4, [1] * 4),
        (5, [8]),
        (33, [32, 1]),
        (64, [32, 32]),
        (65, [128]),
        (300, [128, 128, 32, 8, 1, 1, 1, 1]),
    ],
)
def test_the_last_tiles_of_a_slide_take_few_small_batches(tiles, sizes):
    assert [batch.bucket for batch in split(tiles, BUCKETS)] == sizes


@pytest.mark.parametrize("bucket", BUCKETS)
def test_so_many_tiles_as_a_batch_size_are_one_batch_also_after_a_full_one(bucket):
    """What the golden check relies on to run each program."""
    for before in ([], [BUCKETS[-1]]):
        assert [batch.bucket for batch in split(sum(before) + bucket, BUCKETS)] == [*before, bucket]


def test_less_than_half_of_a_batch_is_padding():
    assert all(2 * batch.size > batch.bucket for tiles in range(1, 200) for batch in split(tiles, BUCKETS))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: "+".join(sorted(each.value for each in s)) or "late")
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 40])
def test_outputs_are_correct_for_any_number_of_tiles_and_any_order_of_work(schedule, count):
    runner = runner_on(FakeDevice(schedule))
    for seed in range(3):  # reused buffers give the same as new ones
        tiles = some_tiles(count, seed)
        assert_correct(runner.infer(tiles), tiles)


@pytest.mark.parametrize("ignored", [Stream.COMPUTE, Stream.DOWNLOAD, None])
def test_each_wait_is_needed(ignored):
    """The test above can fail: without any one of the waits, some order of work gives wrong numbers."""
    tiles = some_tiles(13)
    wrong = 0
    for schedule in SCHEDULES:
        outputs = runner_on(FakeDevice(schedule, deaf=frozenset({ignored}))).infer(tiles)
        wrong += not np.array_equal(outputs["score"], network(tiles)["score"])
    assert wrong


def test_the_next_batch_is_uploaded_while_one_is_computed():
    device = FakeDevice(frozenset({Stream.UPLOAD}))
    runner = runner_on(device)
    runner.infer(some_tiles(12))
    device.log.clear()
    runner.infer(some_tiles(16))
    assert device.log[:5] == ["upload", "upload", "upload", "compute", "download"]
    assert device.log[6:8] == ["upload", "compute"]  # the fourth is uploaded while the second is computed


def test_padding_is_zero_and_is_not_returned():
    """A batch is not padded with tiles of another batch."""
    device = FakeDevice()
    runner = runner_on(device)
    runner.infer(some_tiles(4))
    device.computed.clear()
    tiles = some_tiles(3, seed=1)
    outputs = runner.infer(tiles)
    assert_correct(outputs, tiles)
    (rows,) = device.computed
    assert np.array_equal(rows[:3], tiles)
    assert not rows[3:].any()
    assert len(rows) == 4


def test_a_bucket_gets_exactly_one_program_in_each_slot():
    device = FakeDevice()
    runner = runner_on(device)
    for _ in range(3):
        runner.infer(some_tiles(13))
    assert sorted(device.programs_made) == [1, 4, 4, 4]


def test_returned_outputs_do_not_change_later():
    device = FakeDevice()
    runner = runner_on(device)
    tiles = some_tiles(9)
    outputs = runner.infer(tiles)
    runner.infer(some_tiles(9, seed=1))
    assert_correct(outputs, tiles)
    buffers = [array() for array in device._arrays]
    assert not any(np.shares_memory(values, buffer) for values in outputs.values() for buffer in buffers)


def test_tiles_may_be_a_view_with_any_strides():
    tiles = some_tiles(10)[::-2, ::-1, :, ::-1]
    assert_correct(runner_on(FakeDevice()).infer(tiles), tiles)


@pytest.mark.parametrize(
    "tiles",
    [
        np.zeros((2, SIDE, SIDE, 3), np.float32),
        np.zeros((2, SIDE, SIDE), np.uint8),
        np.zeros((2, 1, 1, 3), np.uint8),
        np.zeros((2, 3, SIDE, SIDE), np.uint8),
    ],
    ids=lambda tiles: f"{tiles.dtype} {tiles.shape}",
)
def test_tiles_of_another_shape_or_dtype_are_refused_not_broadcast_or_cast(tiles):
    with pytest.raises(UsageError, match=r"uint8 \('N', 4, 4, 3\)"):
        runner_on(FakeDevice()).infer(tiles)


@pytest.mark.parametrize("fits", [1, 2, 3, 4])
def test_buckets_that_do_not_fit_the_memory_are_dropped_for_good(fits):
    device = FakeDevice(memory_rows=fits)
    runner = runner_on(device)
    tiles = some_tiles(13)
    for _ in range(2):
        assert_correct(runner.infer(tiles), tiles)
        assert runner.buckets == tuple(bucket for bucket in (1, 2, 4) if bucket <= fits)
    assert max(device.programs_made) == runner.buckets[-1]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("time", [1, 2, 3, 5])
def test_running_out_of_memory_in_any_call_drops_one_bucket_and_loses_no_tile(call, time):
    for schedule in SCHEDULES:
        device = FakeDevice(schedule, fail={call: (time, DeviceMemoryError("full"))})
        runner = runner_on(device)
        for seed in range(2):
            tiles = some_tiles(13, seed)
            assert_correct(runner.infer(tiles), tiles)
        happened = device.fail[call][0] <= 0
        assert runner.buckets == ((1, 2) if happened else (1, 2, 4))
        assert happened or call == "program"  # 13 tiles in twos need three programs


def test_nothing_refers_to_the_buffers_when_memory_is_freed():
    """Not even the error, whose frames would keep them alive."""
    device = FakeDevice(fail={"launch": (3, DeviceMemoryError("full"))})
    runner_on(device).infer(some_tiles(13))
    waited, released = device.held_at_release
    assert waited > 0
    assert released == 0


def test_no_memory_for_one_tile_is_exit_175_and_the_runner_still_works_later():
    device = FakeDevice(memory_rows=0)
    runner = runner_on(device)
    for _ in range(2):
        with pytest.raises(MemoryExhaustedError, match=r"1 rows do not fit.*--engine openvino") as caught:
            runner.infer(some_tiles(3))
        assert caught.value.exit_code == 175
    device.memory_rows = 8  # another program ended
    assert_correct(runner.infer(some_tiles(3)), some_tiles(3))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("error", "seen", "code"),
    [
        (DeviceLostError("an illegal memory access"), GpuLostError, 177),
        (DeviceError("no kernel image"), EngineUnavailableError, 21),
    ],
)
def test_every_failure_of_a_device_becomes_an_error_with_advice(call, error, seen, code):
    runner = runner_on(FakeDevice(fail={call: (2, error)}))
    with pytest.raises(seen, match=f"{error}.*--engine openvino") as caught:
        runner.infer(some_tiles(13))
    assert caught.value.exit_code == code
    assert isinstance(caught.value.__cause__, type(error))


def test_a_gpu_lost_while_memory_is_freed_is_reported_as_lost():
    device = FakeDevice(memory_rows=1)

    def lost() -> None:
        raise DeviceLostError("gone")

    device.release = lost  # type: ignore[method-assign]
    with pytest.raises(GpuLostError, match="gone"):
        runner_on(device).infer(some_tiles(3))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("time", [1, 2])
def test_after_an_interruption_of_any_call_the_next_one_is_correct(call, time):
    for schedule in SCHEDULES:
        device = FakeDevice(schedule)
        runner = runner_on(device)
        if call not in ("pinned", "buffer", "program"):  # these are only called the first time
            runner.infer(some_tiles(13))
        device.fail = {call: (time, KeyboardInterrupt())}
        with pytest.raises(KeyboardInterrupt):
            runner.infer(some_tiles(13, seed=1))
        device.fail = {}
        assert_correct(runner.infer(some_tiles(13, seed=2)), some_tiles(13, seed=2))


# A stream of tiles, native or resized.


class ResizingDevice(FakeDevice):
    """A fake device that resizes as the CPU does, when the upload stream gets there."""

    def resize(self, tiles, target, first):
        self._maybe_fail("resize")
        seen = [replace(tile, owner=None) for tile in tiles]  # the device keeps no tile's memory from being used again
        assert all(seen[0].matches(tile) for tile in seen)

        def do():
            for row, tile in enumerate(seen, start=first):
                target[row] = resized(tile)

        self._give(Stream.UPLOAD, "resize", do)


def resizing_runner(device, buckets=(1, 2, 4)):
    return BatchRunner(device, tile_px=SIDE, outputs=SHAPES, buckets=buckets, resize=device.resize)


def native_tiles(count, frames=None, seed=0):
    """Tiles of 9 pixels in frames; every fifth is in RGB."""
    random = np.random.default_rng(seed)
    for number in range(count):
        shape = (9, 9, 3 if number % 5 == 4 else 4)
        content = random.integers(0, 256, shape, np.uint8)
        frame = frames.take(9 * 9 * 4) if frames else None
        pixels = content if frame is None else frame.memory[: content.size].reshape(shape)
        pixels[...] = content
        yield NativeTile(pixels, (9, 9), (0.25, 0.5, 8.25, 8.5), 1, SIDE, owner=frame)


def expected_of_native(count, seed=0):
    return np.stack([resized(tile) for tile in native_tiles(count, seed=seed)])


def whole(outputs):
    outputs = list(outputs)
    return {name: np.concatenate([each[name] for each in outputs]) for name in SHAPES}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: "+".join(sorted(each.value for each in s)) or "late")
@pytest.mark.parametrize("count", [1, 4, 13, 61])
def test_a_stream_is_correct_for_any_number_of_tiles_and_any_order_of_work(schedule, count):
    runner = runner_on(FakeDevice(schedule))
    for seed in range(2):
        tiles = some_tiles(count, seed)
        assert_correct(whole(runner.infer_each(tiles)), tiles)


@pytest.mark.parametrize("kind", ["resized", "native"])
@pytest.mark.parametrize(("count", "rows"), [(44, [32, 8, 1, 1, 1, 1]), (33, [32, 1]), (63, [32, 32]), (5, [8])])
def test_the_last_tiles_of_a_stream_take_few_small_batches_in_any_order_of_work(kind, count, rows):
    for schedule in SCHEDULES:
        device = ResizingDevice(schedule)
        runner = resizing_runner(device, (1, 8, 32, 128))
        for seed in range(2):  # the second time all programs exist
            device.computed.clear()
            tiles = expected_of_native(count, seed)
            given = tiles if kind == "resized" else native_tiles(count, seed=seed)
            assert_correct(whole(runner.infer_each(given)), tiles)
        assert [len(each) for each in device.computed] == rows
        if kind == "resized":
            assert not device.computed[-1][count - sum(rows[:-1]) :].any()  # padding is zero


@pytest.mark.parametrize("kind", ["resized", "native"])
def test_the_last_batches_wait_for_one_another(kind):
    """The test above can fail: if a slot's next batch does not wait, its tiles replace those being computed."""
    wrong = 0
    for schedule in SCHEDULES:
        device = ResizingDevice(schedule, deaf=frozenset({None}))
        tiles = expected_of_native(44)
        given = tiles if kind == "resized" else native_tiles(44)
        outputs = whole(resizing_runner(device, (1, 8, 32, 128)).infer_each(given))
        wrong += not np.array_equal(outputs["score"], network(tiles)["score"])
    assert wrong


@pytest.mark.parametrize("kind", ["resized", "native"])
@pytest.mark.parametrize("time", [2, 3, 4])
def test_last_batches_whose_programs_do_not_fit_are_one_batch(kind, time):
    device = ResizingDevice(fail={"program": (time, DeviceMemoryError("full"))})
    runner, tiles = resizing_runner(device, (1, 8, 32, 128)), expected_of_native(44)
    assert_correct(whole(runner.infer_each(tiles if kind == "resized" else native_tiles(44))), tiles)
    assert len(device.computed[-1]) == 128
    assert runner.buckets == (1, 8, 32, 128)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: "+".join(sorted(each.value for each in s)) or "late")
@pytest.mark.parametrize("count", [1, 13, 150])
def test_native_tiles_are_resized_into_their_rows_and_their_memory_is_kept_until_then(schedule, count):
    device = ResizingDevice(schedule)
    runner, frames = resizing_runner(device, (1, 16)), Frames(device.pinned, block_bytes=324)
    outputs = whole(runner.infer_each(native_tiles(count, frames)))
    assert_correct(outputs, expected_of_native(count))
    assert frames._allocated <= 25 * 324  # two groups on their way, one being filled, one tile ahead


def test_native_memory_must_be_kept_until_it_is_uploaded():
    """The test above can fail: without the wait for an upload, a frame is filled again too early."""
    device = ResizingDevice(deaf=frozenset({None}))
    runner, frames = resizing_runner(device, (1, 16)), Frames(device.pinned, block_bytes=324)
    outputs = whole(runner.infer_each(native_tiles(150, frames)))
    assert not np.array_equal(outputs["score"], network(expected_of_native(150))["score"])


TILE_BYTES = SIDE * SIDE * 3


def in_frames(tiles, frames, *, unread=()):
    """Each tile in a frame that was taken for it; those in `unread` leave theirs unused."""
    for number, tile in enumerate(tiles):
        frame = frames.take(TILE_BYTES)
        if number not in unread:
            frame.memory[:] = tile.reshape(-1)
            yield frame


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: "+".join(sorted(each.value for each in s)) or "late")
@pytest.mark.parametrize("count", [1, 4, 13, 61, 300])
@pytest.mark.parametrize("a_block", [1, 7, 1000])
def test_tiles_in_frames_are_uploaded_from_there_and_their_memory_is_kept_until_then(schedule, count, a_block):
    device = FakeDevice(schedule)
    runner, frames = runner_on(device, (1, 16)), Frames(device.pinned, block_bytes=a_block * TILE_BYTES)
    for seed in range(2):
        tiles = some_tiles(count, seed)
        assert_correct(whole(runner.infer_each(in_frames(tiles, frames))), tiles)
    # Three batches in progress, one being filled, the tile after it, and the ends of blocks.
    assert frames._allocated <= (4 * 16 + 1 + 2 * a_block) * TILE_BYTES


def test_frames_must_be_kept_until_they_are_uploaded():
    """The test above can fail: if nothing waits for a batch, its frames are filled again too early."""
    device = FakeDevice(deaf=frozenset({None}))
    runner, frames = runner_on(device, (1, 16)), Frames(device.pinned, block_bytes=TILE_BYTES)
    tiles = some_tiles(300)
    assert not np.array_equal(whole(runner.infer_each(in_frames(tiles, frames)))["score"], network(tiles)["score"])


def test_what_is_uploaded_is_the_memory_that_the_readers_wrote_in_as_few_pieces_as_it_has():
    uploaded = []

    class Noting(FakeDevice):
        def upload(self, source, target, first=0):
            uploaded.append(source)
            super().upload(source, target, first)

    device = Noting(frozenset(Stream))
    runner, frames = runner_on(device, (1, 16)), Frames(device.pinned, block_bytes=24 * TILE_BYTES)
    tiles, given = some_tiles(48), []

    def noted():
        for frame in in_frames(tiles, frames, unread={5}):
            given.append(frame)
            yield frame

    assert_correct(whole(runner.infer_each(noted())), np.delete(tiles, 5, axis=0))
    # The first batch has a gap after 5 tiles, the second and the third go on in another block, and 15 are left.
    assert [len(each) for each in uploaded] == [5, 11, 7, 9, 15]
    place = 0
    for source in uploaded:
        for row in source:
            assert row.ctypes.data == given[place].memory.ctypes.data
            place += 1
    assert place == len(given) == 47


def test_a_frame_of_another_size_is_refused():
    with pytest.raises(UsageError, match="A frame of 50 bytes is no tile"):
        list(runner_on(FakeDevice()).infer_each([Frames(np.empty).take(50)]))


def test_one_native_tile_is_resized_for_comparison():
    runner = resizing_runner(ResizingDevice())
    (tile,) = native_tiles(1)
    assert np.array_equal(runner.resized(tile), resized(tile))


def test_a_stream_of_one_kind_only():
    runner = resizing_runner(ResizingDevice())
    native, array, frame = next(native_tiles(1)), some_tiles(1)[0], Frames(np.zeros).take(TILE_BYTES)
    for pair in itertools.permutations([native, array, frame], 2):
        with pytest.raises(UsageError, match="mixes"):
            list(runner.infer_each(pair))


def test_an_engine_that_does_not_resize_takes_no_native_tiles():
    with pytest.raises(UsageError, match="does not resize"):
        list(runner_on(FakeDevice()).infer_each(native_tiles(2)))


@pytest.mark.parametrize("fits", [1, 2, 3, 4])
def test_a_stream_drops_buckets_that_do_not_fit_the_memory(fits):
    device = FakeDevice(memory_rows=fits)
    runner = runner_on(device)
    tiles = some_tiles(13)
    for _ in range(2):
        assert_correct(whole(runner.infer_each(tiles)), tiles)
        assert runner.buckets == tuple(bucket for bucket in (1, 2, 4) if bucket <= fits)


@pytest.mark.parametrize("call", ["pinned", "buffer", "program"])
@pytest.mark.parametrize("time", [1, 2, 3])
def test_a_stream_that_runs_out_of_memory_loses_no_tile(call, time):
    for schedule in SCHEDULES:
        device = FakeDevice(schedule, fail={call: (time, DeviceMemoryError("full"))})
        runner, tiles = runner_on(device), some_tiles(29)
        assert_correct(whole(runner.infer_each(tiles)), tiles)
        assert device.fail[call][0] <= 0


def test_a_smaller_program_that_does_not_fit_is_replaced_by_the_larger_one():
    device = FakeDevice(fail={"program": (2, DeviceMemoryError("full"))})
    runner, tiles = runner_on(device), some_tiles(1)
    assert_correct(whole(runner.infer_each(tiles)), tiles)
    assert (device.programs_made, runner.buckets) == ([4], (1, 2, 4))


def test_no_memory_for_one_tile_of_a_stream_is_exit_175():
    with pytest.raises(MemoryExhaustedError):
        list(runner_on(FakeDevice(memory_rows=0)).infer_each(some_tiles(3)))


def test_a_tile_of_a_stream_is_copied_once_on_the_host():
    """Into page-locked memory; a second copy would take as long as the first."""
    device = FakeDevice(frozenset(Stream))
    runner = runner_on(device)
    list(runner.infer_each(some_tiles(4)))
    written = []

    class Spied(np.ndarray):
        def __setitem__(self, rows, value):
            written.append(np.shape(value))
            super().__setitem__(rows, value)

    slots = runner._slots
    slots._slots[:] = [replace(each, host_tiles=each.host_tiles.view(Spied)) for each in slots._slots]
    tiles = some_tiles(4, seed=1)
    assert_correct(whole(runner.infer_each(tiles)), tiles)
    assert [shape for shape in written if shape] == [(SIDE, SIDE, 3)] * 4


# Frames.


def test_a_frame_is_used_again_when_nothing_refers_to_it():
    asked = []

    def pinned(shape, dtype):
        asked.append(shape)
        return np.zeros(shape, dtype)

    frames = Frames(pinned, block_bytes=250)
    first, second, third = (frames.take(100) for _ in range(3))
    assert second.follows(first)
    assert not third.follows(second)
    second.memory[:] = 5
    assert not first.memory.any()
    address = first.memory.ctypes.data
    del first
    fourth, fifth = frames.take(100), frames.take(100)
    assert asked == [(250,)] * 3  # the second tile still holds the first block
    del second
    sixth, seventh = frames.take(150), frames.take(100)
    assert (fourth.follows(third), sixth.follows(fifth)) == (True, True)
    assert seventh.memory.ctypes.data == address
    assert asked == [(250,)] * 3


def test_frames_beyond_the_limit_are_ordinary_memory():
    asked = []

    def pinned(shape, dtype):
        asked.append(shape)
        return np.zeros(shape, dtype)

    frames = Frames(pinned, most_bytes=250, block_bytes=100)
    held = [frames.take(100) for _ in range(4)]
    assert (len(asked), len(held)) == (2, 4)


def test_smaller_frames_of_another_slide_are_replaced():
    asked = []

    def pinned(shape, dtype):
        asked.append(shape)
        return np.zeros(shape, dtype)

    frames = Frames(pinned, most_bytes=250, block_bytes=100)
    frames.take(100)
    assert frames.take(200).memory.nbytes == 200
    assert asked == [(100,), (200,)]


def test_frames_do_without_page_locked_memory_that_cannot_be_had():
    frames = Frames(FakeDevice(fail={"pinned": (1, DeviceMemoryError("full"))}).pinned)
    assert frames.take(10).memory.nbytes == 10
