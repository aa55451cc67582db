"""The process as a whole: signals, terminals, pipes, and what it imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from support.commands import unwritable_output
from support.images import long_layer
from support.processes import TIMEOUT, names, session_processes, unpacks, wait_for


@pytest.mark.parametrize(
    ("number", "to_all", "status"),
    [(signal.SIGINT, True, 130), (signal.SIGTERM, True, 143), (signal.SIGTERM, False, 143)],
)
def test_signal_during_a_put_stops_it_and_leaves_nothing(imagestore, archive, long_archive, number, to_all, status):
    run = imagestore.start("put", long_archive)
    wait_for(lambda: unpacks(imagestore.store))

    (os.killpg if to_all else os.kill)(run.pid, number)

    output, errors = run.communicate(timeout=TIMEOUT)
    assert (run.returncode, output) == (status, b"")
    assert errors in (b"imagestore: interrupted\n", b"imagestore: stopped by SIGTERM\n")
    assert names(imagestore.store / "staging") == []
    assert names(imagestore.store / "layers") == []
    wait_for(lambda: session_processes(run.pid) == [])
    assert imagestore("put", archive).returncode == 0


@pytest.mark.parametrize("existed", [True, False])
def test_signal_during_an_unpack_empties_the_directory(imagestore, tmp_path, existed):
    layer_file, directory = tmp_path / "layer.tar", tmp_path / "rootfs"
    layer_file.write_bytes(long_layer(120_000))
    if existed:
        directory.mkdir()
    run = imagestore.start("unpack", layer_file, directory)
    wait_for(lambda: directory.exists() and names(directory))

    os.killpg(run.pid, signal.SIGINT)

    _, errors = run.communicate(timeout=TIMEOUT)
    assert (run.returncode, errors) == (130, b"imagestore: interrupted\n")
    assert (names(directory) == []) if existed else not directory.exists()
    wait_for(lambda: session_processes(run.pid) == [])


def test_killed_put_leaves_no_worker_and_the_next_put_sweeps_up(imagestore, archive, long_archive):
    run = imagestore.start("put", long_archive)
    wait_for(lambda: unpacks(imagestore.store))

    run.kill()

    run.communicate(timeout=TIMEOUT)
    wait_for(lambda: session_processes(run.pid) == [])
    assert imagestore("put", archive).returncode == 0
    wait_for(lambda: names(imagestore.store / "staging") == [])


@pytest.mark.parametrize("verb", [["list"], ["list", "--json"], ["--help"]])
@pytest.mark.parametrize("where", ["closed pipe", "full disk"])
def test_output_that_cannot_be_written_is_one_sentence(filled, verb, where):
    with unwritable_output(where) as target:
        done = filled(*verb, capture_output=False, stdout=target, stderr=subprocess.PIPE)

    assert done.returncode == 1
    assert done.stderr.startswith("imagestore: standard output: ")
    assert done.stderr.count("\n") == 1


def test_reading_verbs_start_neither_actors_nor_workers(filled):
    program = """
import sys
from pykka_imagestore.cli import main
status = main(["get", "app:1"])
print(status, sorted({"pykka", "pykka_imagestore.jobs.unpack.extractor", "importlib.metadata"} & set(sys.modules)))
"""

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=filled.environment, check=True
    )

    assert done.stdout.splitlines()[-1] == "0 []"
