"""What a watcher does with failures, signals, other watchers and a folder that changes under it."""

import json
import os
from collections import Counter
from dataclasses import replace

import pytest
from watching_for_tests import SETTINGS, Clock, World, outcome_of, records, scoring, watcher_in

from melanoma_infer.errors import (
    GpuLostError,
    MemoryExhaustedError,
    OutputError,
    SlideUnreadableError,
    Stopped,
    TransientIOError,
    UsageError,
)
from melanoma_infer.watching.leases import Leases
from melanoma_infer.watching.watchers import STALE_S, Watchers

ONCE = replace(SETTINGS, once=True)


@pytest.fixture
def place(tmp_path):
    """A folder with three slides, and an output folder."""
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / f"{name}.svs").write_text(f"slide {name}")
    return tmp_path / "in", tmp_path / "out"


def status(out):
    return json.loads((out / "watch" / "status.json").read_text())


def record(out, of, slide):
    (file,) = (out / "watch" / of).glob(f"{slide}-*.json")
    return json.loads(file.read_text())


def test_once_ends_when_every_slide_has_its_record_and_a_second_run_does_nothing(place):
    folder, out = place
    before = {path: (path.read_bytes(), path.stat()) for path in folder.iterdir()}
    scored = Counter()
    for _ in range(2):
        watcher = watcher_in(folder, out, Clock(World()), settings=ONCE)
        watcher.run(scoring(scored))
        assert watcher.failures == 0
    assert scored == Counter("abc")
    assert records(out, "done") == ["a", "b", "c"]
    assert status(out)["done"] == 3
    assert (status(out)["waiting"], status(out)["watchers"]) == (0, [])
    assert {path: (path.read_bytes(), path.stat()) for path in folder.iterdir()} == before


def test_a_slide_is_taken_when_it_has_been_unchanged_for_exactly_that_long(place):
    folder, out = place
    world, seen = World(), []
    world.at(5, lambda: (folder / "a.svs").write_text("more"))
    watcher = watcher_in(folder, out, Clock(world), settings=ONCE)

    def score(requests, idle):
        for request in requests:
            seen.append((request.case.id, world.s))
            yield outcome_of(request)

    watcher.run(score)
    assert seen == [("b", 30.0), ("c", 30.0), ("a", 40.0)]  # looks are 10 s apart


@pytest.mark.parametrize("code", [TransientIOError.exit_code, MemoryExhaustedError.exit_code])
def test_a_slide_that_fails_for_a_moment_is_tried_again_later_and_then_given_up(place, code):
    folder, out = place
    world, scored, told, at = World(), Counter(), [], []

    def code_of(request):
        if request.case.id != "a":
            return 0
        at.append(world.s)
        return code

    watcher = watcher_in(folder, out, Clock(world), settings=ONCE, told=told)
    watcher.run(scoring(scored, codes=code_of))
    assert scored == Counter(a=3, b=1, c=1)
    assert [60 <= at[1] - at[0] <= 70, 120 <= at[2] - at[1] <= 130] == [True, True]
    assert (records(out, "done"), records(out, "dead-letter"), records(out, "attempts")) == (["b", "c"], ["a"], [])
    given_up = record(out, "dead-letter", "a")
    assert (given_up["exit_code"], given_up["attempts"], given_up["message"]) == (code, 3, "why")
    assert watcher.failures == 1
    assert [event for event, _ in told if event.startswith("slide-r")] == ["slide-retry"] * 2
    assert status(out)["dead_letter"] == 1


def test_attempts_are_counted_over_restarts(place):
    folder, out = place
    scored, world = Counter(), World()

    def stop_after(number):
        return lambda: 15 if scored["a"] >= number else 0

    score = scoring(scored, codes=lambda request: 104 if request.case.id == "a" else 0)
    for number in (1, 2):
        watcher = watcher_in(folder, out, Clock(world), stop_signal=stop_after(number))
        with pytest.raises(Stopped):
            watcher.run(score)
        world.pass_to(world.s + 500)
    watcher_in(folder, out, Clock(world), settings=ONCE).run(score)
    assert scored["a"] == 3
    assert records(out, "dead-letter") == ["a"]


def test_a_slide_that_fails_is_not_tried_again_until_it_changes_or_its_record_is_removed(place):
    folder, out = place
    scored, world = Counter(), World()
    refused = SlideUnreadableError.exit_code

    def run(code):
        watcher = watcher_in(folder, out, Clock(world), settings=ONCE)
        watcher.run(scoring(scored, codes=lambda request: code if request.case.id == "a" else 0))
        return watcher.failures

    assert (run(refused), run(refused), scored["a"]) == (1, 0, 1)
    assert record(out, "failed", "a")["stage"] == "tiles"
    (folder / "a.svs").write_text("copied again")
    assert (run(refused), scored["a"]) == (1, 2)
    for file in (out / "watch" / "failed").iterdir():
        file.unlink()
    assert (run(0), scored["a"]) == (0, 3)
    assert records(out, "done") == ["a", "b", "c"]


def test_a_slide_that_does_not_open_is_waited_for_and_then_fails(place):
    folder, out = place
    world, scored, told, asked = World(), Counter(), [], []

    def opens(path):
        asked.append(path.stem)
        return "exit 10: cut" if path.stem == "a" else None

    watcher = watcher_in(
        folder, out, Clock(world), opens=opens, told=told, stop_signal=lambda: 15 if world.s > 700 else 0
    )
    with pytest.raises(Stopped):
        watcher.run(scoring(scored, codes=lambda request: 10 if request.case.id == "a" else 0))
    assert scored == Counter("abc")
    assert records(out, "failed") == ["a"]
    assert [facts for event, facts in told if event == "slide-waiting"] == [{"slide": "a", "why": "exit 10: cut"}]
    assert asked.count("a") == 20  # from 30 s to 600 s, every 30 s


@pytest.mark.parametrize("error", [OutputError, GpuLostError])
def test_a_failure_of_the_machine_ends_the_watch_and_costs_no_slide_an_attempt(place, error):
    folder, out = place
    scored = Counter()
    watcher = watcher_in(folder, out, Clock(World()))
    with pytest.raises(error, match="why"):
        watcher.run(scoring(scored, codes=lambda _request: error.exit_code))
    assert [records(out, of) for of in ("done", "failed", "dead-letter", "attempts")] == [[]] * 4
    assert list((out / "watch" / "leases").iterdir()) == []
    watcher_in(folder, out, Clock(World()), settings=ONCE).run(scoring(Counter()))
    assert [record(out, "done", name)["attempts"] for name in "abc"] == [1, 1, 1]


def test_a_signal_gives_back_what_was_begun_and_the_next_watcher_scores_it(place):
    folder, out = place
    world, scored, stop = World(), Counter(), []

    def interrupted(requests, idle):
        for request in requests:
            if request.case.id == "b":
                stop.append(15)
                idle()
            yield outcome_of(request)

    with pytest.raises(Stopped) as stopped:
        watcher_in(folder, out, Clock(world), stop_signal=lambda: sum(stop)).run(interrupted)
    assert stopped.value.exit_code == 143
    assert (records(out, "done"), records(out, "attempts")) == (["a"], [])
    assert list((out / "watch" / "leases").iterdir()) == []
    assert status(out)["watchers"] == []
    watcher_in(folder, out, Clock(world), settings=ONCE).run(scoring(scored))
    assert scored == Counter("bc")


def killed_during(folder, out, slide):
    """A watcher that was killed while it scored a slide; nothing of it was cleaned up."""
    watcher = watcher_in(folder, out, Clock(World()))

    def score(requests, idle):
        for request in requests:
            if request.case.id == slide:
                watcher._jobs.give_back = lambda: None
                watcher._watchers.remove = lambda name: None
                raise KeyboardInterrupt
            yield outcome_of(request)

    with pytest.raises(KeyboardInterrupt):
        watcher.run(score)


def test_a_slide_during_which_every_watcher_was_killed_is_given_up(place):
    folder, out = place
    scored, told = Counter(), []
    for _ in range(3):
        killed_during(folder, out, "b")
    watcher = watcher_in(folder, out, Clock(World()), settings=ONCE, told=told)
    watcher.run(scoring(scored))
    assert (scored, records(out, "done")) == (Counter(), ["a", "c"])
    given_up = record(out, "dead-letter", "b")
    assert (given_up["exit_code"], given_up["attempts"]) == (176, 3)
    assert "was killed 3 times during this slide" in given_up["message"]
    assert watcher.failures == 1


def test_a_lease_is_taken_over_only_when_its_holder_has_been_silent_for_long_enough(place):
    folder, out = place
    killed_during(folder, out, "a")
    world, at = World(), []
    watcher = watcher_in(folder, out, Clock(world, ahead_s=777), settings=ONCE)

    def score(requests, idle):
        for request in requests:
            at.append((request.case.id, world.s))
            yield outcome_of(request)

    watcher.run(score)
    assert [slide for slide, _ in at] == ["b", "c", "a"]
    assert STALE_S <= at[-1][1] <= STALE_S + 10
    assert list((out / "watch" / "watchers").iterdir()) == []


def test_a_watcher_that_was_suspended_does_not_record_what_another_has_taken_over(place):
    folder, out = place
    told = []
    watcher = watcher_in(folder, out, Clock(World()), settings=ONCE, told=told)

    def score(requests, idle):
        for request in requests:
            if request.case.id == "a" and not told[-1][1].get("attempt", 1) > 1:
                other = Leases(out / "watch" / "leases", "other")
                (job,) = [job for job, _ in other.held() if job.startswith("a-")]
                assert other.take_over(job, watcher._watchers.me)
            yield outcome_of(request)
        for path in (out / "watch" / "leases").glob("a-*/other"):
            path.unlink()
            path.parent.rmdir()

    watcher.run(score)
    assert [facts["slide"] for event, facts in told if event == "lease-lost"] == ["a"]
    assert records(out, "done") == ["a", "b", "c"]  # scored again when the other one gave it up


def test_a_slide_that_changes_or_goes_while_it_is_scored_has_no_record(place):
    folder, out = place
    world, told, scored = World(), [], Counter()
    watcher = watcher_in(folder, out, Clock(world), settings=ONCE, told=told)

    def score(requests, idle):
        for request in requests:
            scored[request.case.id] += 1
            if request.case.id == "a" and scored["a"] == 1:
                (folder / "a.svs").write_text("more of it")
            if request.case.id == "b":
                (folder / "b.svs").unlink()
            yield outcome_of(request, 10 if request.case.id == "b" else 0)

    watcher.run(score)
    assert scored == Counter(a=2, b=1, c=1)
    assert records(out, "done") == ["a", "c"]
    assert [(event, facts["slide"]) for event, facts in told if event in ("slide-changed", "slide-gone")] == [
        ("slide-changed", "a"),
        ("slide-gone", "b"),
    ]
    assert watcher.failures == 0


def test_two_watchers_with_other_models_do_not_share_an_output_folder(place):
    folder, out = place
    watcher_in(folder, out, Clock(World()), work="one")._watchers.beat({"work": "one"})
    with pytest.raises(UsageError, match="uses another model or other settings"):
        watcher_in(folder, out, Clock(World()), work="two")
    watcher_in(folder, out, Clock(World()), work="one")


def test_a_folder_that_is_away_for_a_while_loses_no_slide(place):
    folder, out = place
    world, told, scored = World(), [], Counter()
    away = folder.with_name("away")
    world.at(15, lambda: os.rename(folder, away))
    world.at(300, lambda: os.rename(away, folder))
    watcher = watcher_in(folder, out, Clock(world), told=told, stop_signal=lambda: 15 if world.s > 400 else 0)
    with pytest.raises(Stopped):
        watcher.run(scoring(scored))
    assert scored == Counter("abc")
    assert [event for event, _ in told if event == "folders-unreadable"] == ["folders-unreadable"]


def test_hidden_names_are_in_no_record_and_no_event(place):
    folder, out = place
    (folder / "a.svs").rename(folder / "CANARY.svs")
    told = []
    watcher = watcher_in(folder, out, Clock(World()), settings=replace(ONCE, hide_names=True), told=told)
    watcher.run(scoring(Counter()))
    assert len(list((out / "watch" / "done").iterdir())) == 3
    written = [path.name + path.read_text() for path in (out / "watch").rglob("*.json")]
    assert "CANARY" not in repr((written, told))


def test_a_watcher_is_alive_while_its_number_grows_and_dead_when_its_process_is_known_to_have_ended(tmp_path):
    ended = []
    seen_by = Watchers(tmp_path, lambda process: bool(ended))
    seen = Watchers(tmp_path)
    for second in range(0, 1000, 100):
        seen.beat({})
        assert not seen_by.is_dead(seen.me, second)
    assert not seen_by.is_dead(seen.me, 900 + STALE_S - 1)
    assert seen_by.is_dead(seen.me, 900 + STALE_S)
    seen.beat({})
    assert not seen_by.is_dead(seen.me, 2000)
    ended.append(True)
    assert seen_by.is_dead(seen.me, 2000)
