"""How a run ends: stops that come twice, output that nobody reads, streams that are closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from support.commands import unwritable_output
from support.images import docker_save, long_layer
from support.processes import TIMEOUT, Program, names, session_processes, unpacks, wait_for

pytestmark = pytest.mark.combinations

BEFORE = "import os, signal, sys\nfrom pykka_imagestore.cli import main\nfrom pykka_imagestore.cli.verbs import put\n"


def run_program(imagestore, text, *arguments):
    """Run a program of a test's own that calls ``main``, and tells what that returned."""
    program = [sys.executable, "-c", BEFORE + text, *map(str, arguments)]
    return subprocess.run(
        program, capture_output=True, text=True, env=imagestore.environment, timeout=TIMEOUT, check=False
    )


# -- signals


@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)]
)
@pytest.mark.parametrize("existed", [True, False])
def test_one_stop_that_arrives_as_two_signals_is_undone(imagestore, tmp_path, numbers, existed):
    layer_file, directory = tmp_path / "layer.tar", tmp_path / "rootfs"
    layer_file.write_bytes(long_layer(120_000))
    if existed:
        directory.mkdir(mode=0o750)
    run = imagestore.start("unpack", layer_file, directory)
    wait_for(lambda: directory.exists() and names(directory))

    for number in numbers:
        run.send_signal(number)
        time.sleep(0.01)  # as they come; either order of what follows is right

    _, errors = run.communicate(timeout=TIMEOUT)
    # On a busy machine both are there at once: the handler of the second may interrupt that of the first.
    assert run.returncode in {128 + number for number in numbers}
    assert errors.count(b"\n") == 1
    assert (names(directory) == []) if existed else not directory.exists()
    assert not existed or directory.stat().st_mode & 0o7777 == 0o750


STUBBORN = """
from pykka_imagestore.cli.stop_signals import StopSignals
from pykka_imagestore.runtime import Promise, undiscardable
promise = Promise()
with StopSignals() as signals:
    print("waiting", flush=True)
    signals.wait(undiscardable(promise.future))
"""


def test_signal_a_second_after_the_first_ends_the_program_at_once():
    with Program(STUBBORN) as program:
        program.line()
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            program.process.send_signal(number)
            time.sleep(0.1)
        assert program.process.poll() is None

        time.sleep(1)
        program.process.send_signal(signal.SIGINT)

        assert program.process.wait(TIMEOUT) == 130


@pytest.mark.parametrize("to_all", [False, True])
@pytest.mark.parametrize("verb", ["put", "unpack"])
def test_hangup_is_undone_and_told_in_one_sentence(imagestore, tmp_path, verb, to_all):
    archive, directory = tmp_path / "long.tar", tmp_path / "rootfs"
    data = long_layer(240_000)  # so that it is not done before the signal comes, however busy the machine is
    if verb == "put":
        run = imagestore.start("put", docker_save(archive, {"long:1": [data]}))
    else:
        archive.write_bytes(data)
        run = imagestore.start("unpack", archive, directory)
    wait_for(lambda: unpacks(imagestore.store) or (directory.exists() and names(directory)))

    (os.killpg if to_all else os.kill)(run.pid, signal.SIGHUP)

    output, errors = run.communicate(timeout=TIMEOUT)
    assert (run.returncode, output) == (129, b"")
    assert errors == b"imagestore: stopped by SIGHUP\n"
    assert not directory.exists()
    assert verb == "unpack" or names(imagestore.store / "staging") == names(imagestore.store / "layers") == []
    wait_for(lambda: session_processes(run.pid) == [])


STOPPED_LATE = """
import time
from pykka_imagestore.durable.references import References

def late(*arguments):
    answer = real(*arguments)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)
    return answer

owner, name = {target}
real = getattr(owner, name)
setattr(owner, name, late)
status = main(["put", *sys.argv[1:]])
print("status", status)
"""


@pytest.mark.parametrize(
    "target",
    [
        'References, "commit"',
        'put.LocalStore, "swept"',
        'put.LocalStore, "close"',
        'put, "print_images"',
    ],
)
@pytest.mark.parametrize("options", [[], ["--name", "app:1"]])
def test_put_that_is_stored_when_a_signal_comes_ends_with_0(imagestore, archive, target, options):
    done = run_program(imagestore, STOPPED_LATE.format(target=target), archive, *options)

    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["NAME", "app:1", "status"]
    assert done.stdout.endswith("status 0\n")
    assert "app:1" in imagestore("list").stdout


# -- output


@pytest.mark.parametrize("where", ["closed pipe", "full disk", "closed"])
def test_put_that_is_stored_and_cannot_say_so_ends_with_0(imagestore, archive, where):
    command = imagestore.command if where != "closed" else ["sh", "-c", 'exec "$@" >&-', "sh", *imagestore.command]

    with unwritable_output(where) as target:
        done = subprocess.run(
            [*command, "put", archive],
            stdout=target,
            stderr=subprocess.PIPE,
            env=imagestore.environment,
            timeout=TIMEOUT,
            check=False,
        )

    assert done.returncode == 0
    assert done.stderr.startswith(b"imagestore: done, but standard output")
    assert done.stderr.count(b"\n") == 1
    assert "app:1" in imagestore("list").stdout


# -- closed streams


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_put_with_closed_standard_streams(imagestore, archive, closed):
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *imagestore.command, "put", archive],
        capture_output=True,
        env=imagestore.environment,
        timeout=TIMEOUT,
        check=False,
    )

    assert done.returncode == 0
    assert "app:1" in imagestore("list").stdout
    assert imagestore("check", "--deep").returncode == 0


CLOSED_STREAMS = """
report = os.dup(1)
for stream in range(3):
    os.close(stream)
status = main(["put", sys.argv[1]])
for stream in range(3):
    os.write(stream, b"x") if stream else os.read(stream, 1)
os.write(report, repr([status, *(os.readlink(f"/proc/self/fd/{stream}") for stream in range(3))]).encode())
"""


def test_no_file_of_the_store_becomes_a_standard_stream(imagestore, archive):
    done = run_program(imagestore, CLOSED_STREAMS, archive)

    assert done.stdout == str([0, "/dev/null", "/dev/null", "/dev/null"])


@pytest.mark.parametrize(("redirection", "words"), [("<&-", "is closed"), ("0>/dev/null", "is open for writing only")])
def test_standard_input_that_cannot_be_read_is_one_sentence(imagestore, redirection, words):
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *imagestore.command, "put", "-"],
        capture_output=True,
        text=True,
        env=imagestore.environment,
        timeout=TIMEOUT,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"imagestore: standard input {words}; an archive should come through it\n"


# -- working directory


@pytest.mark.parametrize(
    "arguments",
    [["--store", "store", "list"], ["put", "a.tar"], ["unpack", "l.tar", "d"], ["put", "/a", "--sandbox", "s"]],
)
def test_relative_path_in_a_deleted_directory_is_one_sentence(imagestore, tmp_path, arguments):
    (tmp_path / "gone").mkdir()
    line = 'cd "$0" && rmdir "$0" && exec "$@"'
    command = [
        "sh",
        "-c",
        line,
        str(tmp_path / "gone"),
        sys.executable,
        "-P",  # as for an installed command; else Python 3.13.0 itself fails to import from a directory that is gone
        "-c",
        "from pykka_imagestore.cli import main; exit(main())",
    ]

    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, env=imagestore.environment, timeout=TIMEOUT, check=False
    )

    assert done.returncode == 1
    assert done.stderr.endswith(": the working directory was deleted; name an absolute path\n")
    assert done.stderr.count("\n") == 1
