from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.jobs.check.directory_marks import DirectoryMarks

PATHS = st.sampled_from([b"", b"a", b"a/b", b"a/b/c", b"ab", b"b"])
STEPS = st.lists(st.tuples(st.sampled_from(["opaque", "xattrs", "drop"]), PATHS), max_size=20)


@given(STEPS)
def test_marks_are_what_a_plain_table_of_paths_says(steps):
    marks, opaque, xattrs = DirectoryMarks(), set(), {}
    for number, (step, path) in enumerate(steps):
        if step == "opaque":
            marks.make_opaque(path)
            opaque.add(path)
        elif step == "xattrs":
            marks.add_xattrs(path, {b"k%d" % (number % 3): b"%d" % number})
            xattrs[path] = {**xattrs.get(path, {}), b"k%d" % (number % 3): b"%d" % number}
        elif path:
            marks.drop(path)
            opaque = {other for other in opaque if not (other + b"/").startswith(path + b"/")}
            xattrs = {other: each for other, each in xattrs.items() if not (other + b"/").startswith(path + b"/")}

    assert set(marks.opaque()) == opaque
    for path in (b"", b"a", b"a/b", b"a/b/c", b"ab", b"b"):
        assert marks.xattrs(path, {b"k0": b"last"}) == {**xattrs.get(path, {}), b"k0": b"last"}
    assert not marks.forgot


def test_more_attributes_than_may_be_remembered_are_forgotten():
    marks = DirectoryMarks()
    for number in range(100):
        marks.add_xattrs(b"d%d" % number, {b"user.k": bytes(100_000)})

    assert marks.forgot
