"""Whether a process has ended: a number that another process has got since is not the same process."""

import subprocess
import sys
from dataclasses import replace

import pytest

from melanoma_infer.watching.process import Process, is_known_dead, this_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a process was started")


def test_a_process_is_dead_when_it_has_ended_and_not_before():
    code = (
        "import json, dataclasses; from melanoma_infer.watching.process import this_process\n"
        "print(json.dumps(dataclasses.asdict(this_process())), flush=True); input()"
    )
    import json

    with subprocess.Popen(
        [sys.executable, "-P", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    ) as child:  # fmt: skip
        process = Process(**json.loads(child.stdout.readline()))
        assert process.number == child.pid
        assert not is_known_dead(process)
        child.kill()
        child.wait()
        assert is_known_dead(process)


def test_a_process_of_another_computer_or_of_an_unknown_one_is_never_known_to_be_dead():
    own = this_process()
    assert not is_known_dead(own)
    assert is_known_dead(replace(own, started="1"))  # the number belongs to another process now
    assert not is_known_dead(replace(own, machine="another", started="1"))
    assert not is_known_dead(Process("", 1, "1"))
