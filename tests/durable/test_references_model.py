"""References against a dict: whatever is done, by whichever replica, they hold the same images."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pykka_imagestore.core.digest import DiffID, sha256
from pykka_imagestore.core.image import DockerImage
from pykka_imagestore.core.image_name import ImageName, without_label
from pykka_imagestore.core.journal import Frame, pack_frame
from pykka_imagestore.core.paths import StorePaths
from pykka_imagestore.durable.disk import Disk, ForgetfulDisk
from pykka_imagestore.durable.layout import make_store
from pykka_imagestore.durable.references import Put, References, Remove
from pykka_imagestore.fs.remove_tree import remove_tree

LAYERS = [DiffID(sha256(b"%d" % number)) for number in range(3)]
BY_DIGEST = sha256(b"manifest")
names = st.sampled_from(["a:latest", "b:1", "quay.io/team/c:2", f"d@{BY_DIGEST}", f"d:1@{BY_DIGEST}"])
images = st.builds(DockerImage, names, st.lists(st.sampled_from(LAYERS), max_size=2).map(tuple))
removals = st.builds(lambda name: Remove(ImageName.parse(name)), names)
removals_of_one = st.builds(lambda image: Remove(ImageName.parse(image.name), only=image), images)
changes = images.map(Put) | removals | removals_of_one
replicas = st.integers(0, 1)
tails = st.binary(max_size=30) | st.integers(0, 67).map(lambda length: pack_frame(Frame(1, 0, bytes(40)))[:length])


class Model(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.paths = StorePaths(Path(tempfile.mkdtemp(prefix="imagestore-test-")))
        make_store(self.paths, Disk())
        for layer in LAYERS:
            self.paths.layer(layer).mkdir()
        self.expected: dict[str, DockerImage] = {}
        self.replicas: list[References] = []

    def teardown(self) -> None:
        remove_tree(str(self.paths.root))

    @initialize()
    def start(self) -> None:
        self.replicas = [References(self.paths, ForgetfulDisk()) for _ in range(2)]

    @rule(replica=replicas, changes=st.lists(changes, max_size=4))
    def commit(self, replica: int, changes: list[Put | Remove]) -> None:
        expected = [self.expect(change) for change in changes]

        assert self.replicas[replica].commit(changes) == tuple(expected)

    def expect(self, change: Put | Remove) -> DockerImage | None:
        if isinstance(change, Put):
            self.expected[without_label(change.image.name)] = change.image
            return change.image
        before = self.expected.get(change.name.stored)
        if before is None or change.only not in (None, before):
            return None
        return self.expected.pop(change.name.stored)

    @rule(replica=replicas, closing=st.booleans())
    def compact(self, replica: int, closing: bool) -> None:
        self.replicas[replica].compact(closing)

    @rule(replica=replicas)
    def refresh(self, replica: int) -> None:
        self.replicas[replica].refresh()

    @rule(replica=replicas, name=names)
    def find(self, replica: int, name: str) -> None:
        parsed = ImageName.parse(name)

        assert self.replicas[replica].find(parsed) == self.expected.get(parsed.stored)

    @rule(replica=replicas)
    def close(self, replica: int) -> None:
        self.replicas[replica].close()

    @rule(replica=replicas)
    def reopen(self, replica: int) -> None:
        self.replicas[replica] = References(self.paths, ForgetfulDisk())

    @rule(tail=tails)
    def tear(self, tail: bytes) -> None:
        if self.paths.journal.exists():
            with open(self.paths.journal, "ab") as journal:
                journal.write(tail)

    @invariant()
    def holds_the_same_images(self) -> None:
        expected = tuple(sorted(self.expected.values(), key=lambda image: image.name))

        assert References(self.paths, ForgetfulDisk()).list() == expected


class FollowingModel(Model):
    """As Model, and each replica looks after each step; in Model it may sleep through many."""

    @invariant()
    def all_replicas_hold_the_same_images(self) -> None:
        expected = tuple(sorted(self.expected.values(), key=lambda image: image.name))

        assert all(replica.list() == expected for replica in self.replicas)


TestReferences = Model.TestCase
TestReferences.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestFollowingReferences = FollowingModel.TestCase
TestFollowingReferences.settings = TestReferences.settings
