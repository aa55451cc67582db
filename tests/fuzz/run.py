"""Runs one fuzz target: ``python tests/fuzz/run.py extractor -max_total_time=60``.

With atheris, guided by what each input reaches; what follows the target are libFuzzer's options. New inputs lie in
``.fuzz/<target>/inputs``, and what is wrong in ``.fuzz/<target>/``. With files named, or without atheris, checks each
file once: those named, else the corpus.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
# As little as still holds some entries with bodies: large inputs are slow and find no more.
# Python ignores SIGXFSZ, so that a file too large is an error; libFuzzer would take it for a crash.
OPTIONS = ("-max_len=16384", "-timeout=120", "-rss_limit_mb=512", "-print_final_stats=1", "-handle_xfsz=0")

MAX_CPU_SECONDS = 10  # libFuzzer's own limit counts a machine's pauses too, and is for what never ends


def corpus_of(target: str) -> Path:
    """Return the directory of the inputs that a target begins with; layers are tars, so two targets share them."""
    return HERE / "corpus" / ("archives" if target == "archive_index" else "layers")


def replay(target: str, files: list[Path]) -> None:
    check = importlib.import_module(f"fuzz_{target}").check
    for file in files:
        print(file, flush=True)
        check(file.read_bytes())


def fuzz(target: str, options: list[str]) -> None:
    import atheris  # noqa: PLC0415 - not to be had for every Python

    with atheris.instrument_imports(include=["pykka_imagestore"]):
        module = importlib.import_module(f"fuzz_{target}")

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        return module.mutate(data, max_size, random.Random(seed), atheris.Mutate)

    def check(data: bytes) -> None:
        started = time.process_time()
        module.check(data)
        assert time.process_time() - started < MAX_CPU_SECONDS

    work = Path(".fuzz", target)
    (work / "inputs").mkdir(parents=True, exist_ok=True)
    directories = [str(work / "inputs"), str(corpus_of(target))]
    atheris.Setup(
        [f"fuzz_{target}", *OPTIONS, f"-artifact_prefix={work}/", *options, *directories],
        check,
        custom_mutator=mutate,
    )
    atheris.Fuzz()


def fuzz_and_clean_up(target: str, options: list[str]) -> int:
    """Fuzz in a process of its own: libFuzzer ends one without letting Python remove what it made."""
    directory = tempfile.tempdir = tempfile.mkdtemp(prefix="fuzz-")
    if (child := os.fork()) == 0:
        fuzz(target, options)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        importlib.import_module("pykka_imagestore.fs.remove_tree").remove_tree(directory)


def main(target: str, *arguments: str) -> int:
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    if os.access("/dev/shm", os.W_OK):
        os.environ.setdefault("TMPDIR", "/dev/shm")  # thousands of small files a second
    files = [Path(argument) for argument in arguments if not argument.startswith("-")]
    if files or importlib.util.find_spec("atheris") is None:
        replay(target, files or sorted(corpus_of(target).iterdir()))
        return 0
    return fuzz_and_clean_up(target, list(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
