"""What a store does with archives and layers, mostly in its pools, each imported when it is first used.

What they need, tar and compression and checks, takes longer to import than the rest of the library. A program that
imports `LocalStore` has it once it starts a store or puts an image, not before.
"""

from __future__ import annotations

from pykka_imagestore.runtime.lazy import lazy_names

TYPE_CHECKING = False  # typing's takes longer to import than a worker process to start
if TYPE_CHECKING:
    from pykka_imagestore.core.formats.docker_archive import legacy_config
    from pykka_imagestore.core.plan_put import plan_put
    from pykka_imagestore.fs.remove_tree import remove_tree
    from pykka_imagestore.jobs.check.findings import LayerCheck
    from pykka_imagestore.jobs.check_configs import CheckConfigs, check_configs
    from pykka_imagestore.jobs.check_layer import CheckLayer, check_layer
    from pykka_imagestore.jobs.check_stack import CheckStack, check_stack
    from pykka_imagestore.jobs.export_tar import ExportTar, export_tar
    from pykka_imagestore.jobs.fill_rootfs import fill_rootfs
    from pykka_imagestore.jobs.find_archive import find_archive
    from pykka_imagestore.jobs.hash_layer import hash_layer
    from pykka_imagestore.jobs.help_unpack import HelpUnpack, help_unpack
    from pykka_imagestore.jobs.make_stack import MakeStack, make_stack
    from pykka_imagestore.jobs.measure_containers import MeasureContainers, measure_containers
    from pykka_imagestore.jobs.move_layer import MoveLayer, move_layer
    from pykka_imagestore.jobs.unpack.leader import MAX_PEERS, PeerLostError
    from pykka_imagestore.jobs.unpack.limiter import require_space
    from pykka_imagestore.jobs.untar_image import UntarImage, untar_image
    from pykka_imagestore.jobs.untar_layer import UntarLayer, untar_layer

__all__ = [
    "MAX_PEERS",
    "CheckConfigs",
    "CheckLayer",
    "CheckStack",
    "ExportTar",
    "HelpUnpack",
    "LayerCheck",
    "MakeStack",
    "MeasureContainers",
    "MoveLayer",
    "PeerLostError",
    "UntarImage",
    "UntarLayer",
    "check_configs",
    "check_layer",
    "check_stack",
    "export_tar",
    "fill_rootfs",
    "find_archive",
    "hash_layer",
    "help_unpack",
    "legacy_config",
    "make_stack",
    "measure_containers",
    "move_layer",
    "plan_put",
    "remove_tree",
    "require_space",
    "untar_image",
    "untar_layer",
]

_HOMES = {
    "CheckConfigs": "jobs.check_configs",
    "CheckLayer": "jobs.check_layer",
    "CheckStack": "jobs.check_stack",
    "ExportTar": "jobs.export_tar",
    "HelpUnpack": "jobs.help_unpack",
    "LayerCheck": "jobs.check.findings",
    "MakeStack": "jobs.make_stack",
    "MAX_PEERS": "jobs.unpack.leader",
    "MeasureContainers": "jobs.measure_containers",
    "MoveLayer": "jobs.move_layer",
    "PeerLostError": "jobs.unpack.leader",
    "UntarImage": "jobs.untar_image",
    "UntarLayer": "jobs.untar_layer",
    "check_configs": "jobs.check_configs",
    "check_layer": "jobs.check_layer",
    "check_stack": "jobs.check_stack",
    "export_tar": "jobs.export_tar",
    "fill_rootfs": "jobs.fill_rootfs",
    "find_archive": "jobs.find_archive",
    "hash_layer": "jobs.hash_layer",
    "help_unpack": "jobs.help_unpack",
    "legacy_config": "core.formats.docker_archive",
    "measure_containers": "jobs.measure_containers",
    "make_stack": "jobs.make_stack",
    "move_layer": "jobs.move_layer",
    "plan_put": "core.plan_put",
    "remove_tree": "fs.remove_tree",
    "require_space": "jobs.unpack.limiter",
    "untar_image": "jobs.untar_image",
    "untar_layer": "jobs.untar_layer",
}

__getattr__ = lazy_names(__name__, "pykka_imagestore", _HOMES)
