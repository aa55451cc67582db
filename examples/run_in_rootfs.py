"""Run an image's command in a fresh root file system, as root. Usage: run_in_rootfs.py [ARCHIVE of docker save].

It has the user, environment and directory that the image wants, and sees no other files. But a chroot is no sandbox:
for one, attach it, and hand ``rootfs.path`` to bubblewrap or to a container runtime.
"""

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from pykka_imagestore import LocalStore, Provisioner

ENTER = """
import json, os, sys, warnings  # here: once inside, Python would import what the image has
root, directory, uid, groups, command, environment = json.loads(sys.argv[1])
os.fchdir(root), os.chroot("."), os.close(root)  # which would lead out again
os.setgroups(groups), os.setresgid(*groups[:1] * 3), os.setresuid(uid, uid, uid), os.chdir(directory)
os.execvpe(command[0], command, environment)
"""


def tar_of(members: dict[str, bytes]) -> bytes:
    with tarfile.open(fileobj=(data := io.BytesIO()), mode="w") as tar:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(body), 0o755
            tar.addfile(member, io.BytesIO(body))
    return data.getvalue()


def docker_save(path: Path) -> Path:
    """Make an archive of an image with this machine's shell, as docker save does."""
    libraries = re.findall(r"(/\S+) \(0x", subprocess.check_output(["ldd", "/bin/sh"], text=True))
    files = {name: Path(name).read_bytes() for name in ("/bin/sh", *libraries)}
    layer = tar_of({**files, "etc/passwd": b"guest:x:1234:1234::/srv:/bin/sh\n"})
    run = {"User": "guest", "WorkingDir": "/etc", "Env": ["GREETING=Hello"], "Entrypoint": ["/bin/sh", "-c"]}
    run["Cmd"] = ['echo "$GREETING from $PWD; at home in $HOME; here are" *; while read a; do echo "$a"; done < passwd']
    config = {"config": run, "rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}}
    documents = {"manifest.json": [{"Config": "config.json", "Layers": ["layer.tar"]}], "config.json": config}
    path.write_bytes(tar_of({n: json.dumps(d).encode() for n, d in documents.items()} | {"layer.tar": layer}))
    return path


with TemporaryDirectory(prefix="imagestore-demo-") as work:
    given = Path(sys.argv[1]) if sys.argv[1:] else docker_save(Path(work, "shell.tar"))
    with LocalStore.start(Path(work, "store")) as store, Provisioner.start(store) as provisioner:
        store.put("given", given).get(timeout=600)
        rootfs = provisioner.provision("demo", "given", attach=False).get(timeout=60)  # a mount that nobody else sees
        config, user = rootfs.config, rootfs.find_user()
        environment = {"HOME": user.home, **dict(config.environment)}  # nothing of ours, nor of theirs for our Python
        order = (rootfs.fd, config.working_directory, user.uid, user.groups, config.command, environment)
        subprocess.run([sys.executable, "-I", "-c", ENTER, json.dumps(order)], pass_fds=[rootfs.fd], check=True)
        provisioner.destroy("demo").get(timeout=60)
