"""What a worker process imports for a job: each megabyte and each millisecond of it is paid by every worker."""

from __future__ import annotations

import subprocess
import sys

import pytest

NEVER = {
    "asyncio",
    "concurrent",
    "email",
    "http",
    "logging",
    "multiprocessing",
    "pykka",
    "random",
    "rich",
    "shutil",
    "ssl",
    "subprocess",
    "tempfile",
    "unittest",
}
SELDOM = {"bz2", "gzip", "isal", "lzma"}  # only for a layer that is compressed so
PROTOBUF = {"google"}  # only to read records
OF_EVERY_PUT = NEVER | SELDOM | PROTOBUF | {"pathlib"}
JOBS = {
    "fs.remove_tree": OF_EVERY_PUT,
    "jobs.check_configs": NEVER | SELDOM | PROTOBUF,
    "jobs.check_layer": NEVER | SELDOM,
    "jobs.export_tar": OF_EVERY_PUT,
    "jobs.fill_rootfs": OF_EVERY_PUT,
    "jobs.hash_layer": OF_EVERY_PUT,
    "jobs.help_unpack": OF_EVERY_PUT,
    "jobs.unpack_into": NEVER | SELDOM | PROTOBUF,
    "jobs.untar_image": OF_EVERY_PUT,
    "jobs.untar_layer": OF_EVERY_PUT,
    "rootfs.namespace_process": NEVER | SELDOM | PROTOBUF,
    "runtime.worker": OF_EVERY_PUT | {"selectors", "socket", "typing"},
}
IMPORT = "import importlib, sys; importlib.import_module(sys.argv[1]); print(*sys.modules)"


@pytest.mark.parametrize(("job", "unwanted"), JOBS.items(), ids=JOBS)
def test_a_job_imports_nothing_that_it_does_not_need(job, unwanted):
    command = [sys.executable, "-c", IMPORT, f"pykka_imagestore.{job}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    assert {name.partition(".")[0] for name in done.stdout.split()} & unwanted == set()
