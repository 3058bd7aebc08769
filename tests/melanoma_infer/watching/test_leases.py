"""Leases: one holder at any time, also when many processes want one at once."""

import multiprocessing
from collections import Counter

import pytest

from melanoma_infer.runtime.files import part_of
from melanoma_infer.watching.leases import Leases
from melanoma_infer.watching.watchers import Watchers

JOBS = [f"slide{number}" for number in range(200)]


def take_all(folder, name, start, queue):
    leases = Leases(folder, name)
    start.wait()
    queue.put([job for job in JOBS if leases.take(job)])


def take_over_all(folder, name, start, queue):
    leases = Leases(folder, name)
    start.wait()
    queue.put([job for job in JOBS if leases.take_over(job, "dead")])


@pytest.mark.parametrize("do", [take_all, take_over_all])
def test_of_processes_that_want_a_lease_at_once_one_gets_it(tmp_path, do):
    if do is take_over_all:
        dead = Leases(tmp_path, "dead")
        assert all(dead.take(job) for job in JOBS)
    context = multiprocessing.get_context("spawn")
    start, queue = context.Barrier(4), context.Queue()
    processes = [context.Process(target=do, args=(tmp_path, f"w{number}", start, queue)) for number in range(4)]
    for process in processes:
        process.start()
    got = Counter(job for _ in processes for job in queue.get(timeout=120))
    for process in processes:
        process.join(timeout=60)
    assert got == Counter(JOBS)
    held = dict(Leases(tmp_path, "other").held())
    assert set(held) == set(JOBS)
    assert set(held.values()) <= {"w0", "w1", "w2", "w3"}
    assert not list(tmp_path.glob(".*"))


def test_a_lease_that_was_taken_over_is_not_released_by_its_old_holder(tmp_path):
    old, new = Leases(tmp_path, "old"), Leases(tmp_path, "new")
    assert old.take("a")
    assert not new.take("a")
    assert new.take_over("a", "old")
    assert (old.holds("a"), new.holds("a"), old.holder("a")) == (False, True, "new")
    old.release("a")
    assert new.holds("a")
    assert not old.take("a")
    new.release("a")
    assert old.holder("a") is None
    assert old.take("a")


def test_a_lease_whose_holder_died_while_it_left_can_be_taken_over(tmp_path):
    dead, other = Leases(tmp_path, "dead"), Leases(tmp_path, "other")
    assert dead.take("a")
    (tmp_path / "a" / "dead").rename(tmp_path / "a" / "leaving.dead")
    assert other.holder("a") == "dead"
    assert other.take_over("a", "dead")
    (tmp_path / ".dead-7").mkdir()
    other.clean_up_after("dead")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_watcher_that_was_killed_while_it_showed_itself_leaves_nothing(tmp_path):
    killed, other = Watchers(tmp_path), Watchers(tmp_path)
    killed.beat({})
    part_of(tmp_path / f"{killed.me}.json").write_text("{")
    other.remove(killed.me)
    assert list(tmp_path.iterdir()) == []
