"""The benchmarks run, on tiny inputs. What they measure is nobody's condition here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from support.processes import TIMEOUT
from support.rootfs import require_mounts

pytestmark = pytest.mark.combinations

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SVG = "{http://www.w3.org/2000/svg}"
ROWS = {  # of each script, some that its result must have
    "budget": ["run 1: a task", "run 1: until the budget holds"],
    "hostile": ["10: stored", "2,000: AmbiguousImageError"],
    "durability": ["nothing synced", "syncfs for each layer, beside", "fsync of each file"],
    "latency": ["put again"],
    "layers": ["GNU tar", "ours, 2 workers", "rm -rf", "remove_tree, 2 workers"],
    "references": [
        "append and fdatasync, 10 images",
        "put, 10 images",
        "recover, 10 images",
        "put of a tiny image beside 10 images",
    ],
    "rootfs_copy": ["copy, 2 workers", "copy, 1 worker", "cp -a", "link, 2 workers", "cp -al"],
    "sharing": ["put, 1 process", "put, 2 processes, durable", "prune, until its caller may go on", "rm -rf"],
    "stages": ["index", "read", "inflate, gzip (isal)", "hash", "parse", "write", "untar_layer, zstd"],
}


@pytest.mark.parametrize("name", ROWS)
def test_benchmark_measures_all_its_rows_in_seconds(tmp_path, name):
    result = _run(tmp_path, name)

    assert result["machine"]["cpus"]
    assert result["file_system"]["type"]
    rows = {row: values for group in result["results"].values() for row, values in group.items()}
    assert rows.keys() >= set(ROWS[name])
    for values in rows.values():
        assert min(values["seconds"]) <= values["median_seconds"] <= max(values["seconds"])


@pytest.mark.skipif(
    os.geteuid() != 0 and shutil.which("skopeo") is not None, reason="skopeo reads an OCI archive for root alone"
)
def test_put_measures_each_form_and_says_who_is_absent(tmp_path):
    result = _run(tmp_path, "put")

    for rows in result["results"].values():
        assert rows.keys() >= {"GNU tar, bare layers, two at a time", "GNU tar, Mesos' way", "ours, put, 2 workers"}
    assert [re.sub(r".*: (\S+), .*", r"\1", group) for group in result["results"]] == ["docker-archive", "oci-archive"]
    assert not result["failed"]
    for tool in ("podman", "skopeo"):
        for group, rows in result["results"].items():
            form = "oci-archive" if "oci-archive" in group else "docker-archive"
            assert any(row.startswith(tool) for row in rows) != (f"{tool}, {form}" in result["absent"])


@pytest.mark.root
@pytest.mark.overlay
def test_rootfs_measures_each_situation_and_says_who_is_absent(tmp_path):
    require_mounts()
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"], check=False).returncode != 0:
        pytest.skip("this machine lets us have no namespaces")

    result = _run(tmp_path, "rootfs")

    assert not result["failed"]
    situations = ["right after a put", "1 at a time, beside 1", "2 at a time, beside 1", "1 at a time, beside 3"]
    for situation in situations:
        rows = result["results"][f"provision, {situation}"]
        assert rows.keys() == result["results"][f"destroy, {situation}"].keys()
        assert rows.keys() >= {"ours, API", "ours, API, not durable", "ours, command"}
        for tool in ("podman", "buildah", "ctr"):
            assert any(row.startswith(tool) for row in rows) != any(row.startswith(tool) for row in result["absent"])
    assert result["results"]["provision, copies, 1 at a time"].keys() >= {"ours, API, copy", "cp -a; rm -rf"}
    assert not any(result["left"].values())
    assert {bound["what"] for bound in result["bounds"] if bound["holds"] is None} <= {
        bound["what"] for bound in result["bounds"] if "podman" in bound["what"] or "ctr" in bound["what"]
    }


@pytest.mark.parametrize("name", ["runtime", "pool"])
def test_benchmark_of_the_runtime_runs(tmp_path, name):
    assert _run(tmp_path, name)["rows"]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_file_costs_four_system_calls(tmp_path):
    calls = _run(tmp_path, "syscalls")["results"]["ours, one process"]

    assert sum(calls.values()) < 4.5
    assert calls["openat"] == pytest.approx(1, abs=0.1)


def test_chart_is_xml_and_has_each_name_and_number(tmp_path):
    rows = {
        "ours <&>": {"median_seconds": 1.25, "seconds": [1.0, 1.25, 2.5]},
        "others": {"median_seconds": 0.0125, "seconds": [0.0125]},
        "left out": {"median_seconds": 5, "seconds": [5]},
    }
    result = {"title": "Seconds of <this>", "results": {"one & all": rows, "empty": {}}}
    (tmp_path / "result.json").write_text(json.dumps(result))

    command = [sys.executable, BENCHMARKS / "chart.py", tmp_path / "result.json", tmp_path / "chart.svg"]
    subprocess.run([*command, "--only", "ours|others"], check=True, timeout=TIMEOUT)

    chart = ET.parse(tmp_path / "chart.svg").getroot()
    texts = [text.text for text in chart.iter(f"{SVG}text")]
    assert texts == ["Seconds of <this>", "one & all", "others", "12.5 ms", "ours <&>", "1.25 s"]
    assert chart.findtext(f"{SVG}title") == "Seconds of <this>"
    widths = [float(bar.attrib["width"]) for bar in chart.iter(f"{SVG}rect")]
    assert widths[1] == pytest.approx(100 * widths[0], rel=0.05)


def _run(directory: Path, name: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / f"{name}.py", "--quick", "--json", directory / "result.json"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    return json.loads((directory / "result.json").read_text())
