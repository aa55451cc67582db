"""Programs in containers that are shown the layers' own files, and hold leases of them: nothing is lost by that."""

from __future__ import annotations

import pytest
from support import tars
from support.guests import guests_in, nodes_in
from support.leases import leased
from support.rootfs import require_mounts

pytestmark = [pytest.mark.root, pytest.mark.overlay]


@pytest.mark.parametrize("backend", ["bind", "link"])
def test_layer_is_neither_damaged_nor_repaired_while_somebody_has_a_lease_of_its_file(tmp_path, backend):
    require_mounts()
    with guests_in(tmp_path) as guests:
        rootfs = guests.provision([tars.file(b"bin/sh", b"#!")], backend=backend, read_only=True)

        with leased(f"{rootfs.path}/bin/sh"):
            report = guests.check(deep=True)
            repaired = guests.repair(deep=True)

        assert report.faults == repaired.faults == repaired.taken_out == ()
        assert "bin/sh" in report.unchecked[0].reason
        assert nodes_in(guests.provision_image(rootfs.container.image)).keys() == {b"", b"bin", b"bin/sh"}
