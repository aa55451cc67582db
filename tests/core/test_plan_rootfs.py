from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tar_model import (
    Layer,
    RefusedError,
    Step,
    View,
    apply_all,
    forms,
    merge,
    seen,
    stacks,
    with_fix_ups,
)

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.plan_rootfs import FixDirectory, FixLink, FixUps, plan_rootfs
from pykka_imagestore.core.rootfs import Reads, stack_id
from pykka_imagestore.errors import StackError

TRUSTED, USER, FILES = WhiteoutFormat.OVERLAY_TRUSTED, WhiteoutFormat.OVERLAY_USER, WhiteoutFormat.FILES


@settings(max_examples=1000)
@given(stacks, st.lists(forms, min_size=4, max_size=4), st.sampled_from(Reads))
def test_a_merge_with_the_fix_ups_is_the_tars_one_after_the_other(layers, forms, reads):
    views = [View(layer, form) for layer, form in zip(layers, forms, strict=False)]
    try:
        meant = apply_all(layers)
    except RefusedError:
        with pytest.raises(StackError):
            plan_rootfs(views, reads)
        return

    fix_ups = plan_rootfs(views, reads)

    assert seen(merge(with_fix_ups([view.directory for view in views], fix_ups), reads)) == seen(meant)


def view(*steps, form=TRUSTED):
    return View(Layer.of(steps), form)


def file(path, **fields):
    return Step("file", path, **fields)


def directory(path, **fields):
    return Step("directory", path, **{"mode": 0o755, **fields})


def link(path, target):
    return Step("hard_link", path, target)


def whiteout(path):
    return Step("whiteout", path)


def opaque(path):
    return Step("opaque", path)


def symlink(path, target):
    return Step("symlink", path, target)


def plan(*views, reads=Reads.TRUSTED):
    return plan_rootfs(views, reads)


def test_nothing_is_needed_where_all_is_read_and_nothing_is_implied():
    lower = view(directory(b""), directory(b"d"), file(b"d/f"), file(b"gone"))
    upper = view(directory(b""), directory(b"d"), opaque(b"d"), whiteout(b"gone"))

    assert plan(lower, upper).is_empty
    assert (lower.walks, upper.walks) == (0, 0)


def test_directory_that_is_implied_gets_the_attributes_from_below():
    fix_ups = plan(view(directory(b"tmp", mode=0o1777)), view(file(b"tmp/x")))

    assert fix_ups == FixUps((FixDirectory(b"", 1), FixDirectory(b"tmp", 0)))


def test_directories_that_all_layers_imply_need_nothing():
    assert plan(view(file(b"tmp/x")), view(file(b"tmp/y")), view(file(b"tmp/z"))).is_empty


def test_root_that_is_implied_gets_its_attributes_from_below():
    assert plan(view(directory(b"", mode=0o700)), view(file(b"f"))) == FixUps((FixDirectory(b"", 0),))


@pytest.mark.parametrize("below", [file(b"d"), symlink(b"d", b"e"), whiteout(b"d")])
def test_directory_that_is_implied_where_none_is_below_is_a_new_one(below):
    assert plan(view(directory(b"e", mode=0o1777), below), view(file(b"d/x"))).is_empty


def test_directory_that_is_implied_where_its_parent_hides_the_one_below_is_a_new_one():
    lower, upper = view(directory(b"d/e", mode=0o1777)), view(directory(b"d"), opaque(b"d"), file(b"d/e/f"))

    assert plan(lower, upper).is_empty


def test_directory_that_hides_what_is_below_and_is_implied_keeps_its_attributes():
    lower, upper = view(directory(b"d", mode=0o1777), file(b"d/f")), view(opaque(b"d"), file(b"d/g"))

    assert plan(lower, upper).directories == (FixDirectory(b"", 1), FixDirectory(b"d", 0))


@pytest.mark.parametrize(
    ("form", "reads"), [(TRUSTED, Reads.USER), (USER, Reads.TRUSTED), (FILES, Reads.USER), (FILES, Reads.TRUSTED)]
)
def test_what_a_form_that_is_not_read_hides_is_hidden_anew(form, reads):
    lower = view(directory(b"d"), directory(b"d/e"), file(b"d/e/f"), file(b"d/g"))
    upper = view(directory(b"d"), opaque(b"d"), file(b"d/e/h"), form=form)

    fix_ups = plan(lower, upper, reads=reads)

    assert set(fix_ups.whiteouts) - {b"d/.wh..wh..opq"} == {b"d/e/f", b"d/g"}
    assert {fix.path for fix in fix_ups.directories} == {b"", b"d", b"d/e"}


def test_files_that_hide_are_hidden_themselves():
    fix_ups = plan(view(file(b"d/f"), file(b"d/g")), view(whiteout(b"d/f"), whiteout(b"d/nothing"), form=FILES))

    assert fix_ups.whiteouts == (b"d/.wh.f", b"d/.wh.nothing", b"d/f")


def test_merge_of_our_own_reads_every_form():
    lower = view(directory(b"d"), file(b"d/f"), file(b"g"))
    uppers = [view(directory(b"d"), opaque(b"d"), form=form) for form in (TRUSTED, USER, FILES)]

    assert plan(lower, *uppers, view(whiteout(b"g"), form=FILES), reads=Reads.ANY).whiteouts == ()
    assert sum(each.walks for each in uppers) == 0


@pytest.mark.parametrize("reads", Reads)
def test_what_an_opaque_root_hides_is_hidden_anew_where_the_kernel_does_not_look(reads):
    fix_ups = plan(view(directory(b"d"), file(b"d/f"), file(b"g")), view(opaque(b""), file(b"h")), reads=reads)

    assert set(fix_ups.whiteouts) - {b".wh..wh..opq"} == (set() if reads is Reads.ANY else {b"d", b"g"})


# -- devices that nothing but the merge of several directories hides


@pytest.mark.parametrize("reads", [Reads.TRUSTED, Reads.USER])
@pytest.mark.parametrize("form", [TRUSTED, USER])
def test_directory_of_one_layer_alone_that_hides_something_is_made_one_of_several(form, reads):
    lower, upper = view(file(b"f")), view(directory(b"d"), directory(b"d/e", mode=0o700), whiteout(b"d/e/f"), form=form)

    fix_ups = plan(lower, upper, reads=reads)

    assert fix_ups == FixUps((FixDirectory(b"", 1), FixDirectory(b"d", 1), FixDirectory(b"d/e", 1)))
    assert upper.walks == (0 if (form == TRUSTED) == (reads is Reads.TRUSTED) else 1)


def test_opaque_directory_that_hides_something_by_name_is_made_one_of_several():
    lower, upper = view(file(b"d/f")), view(directory(b"d"), opaque(b"d"), whiteout(b"d/f"))

    assert plan(lower, upper).directories == (FixDirectory(b"", 1), FixDirectory(b"d", 1))


def test_layer_that_comes_twice_is_merged_once():
    twice = view(directory(b"d"), whiteout(b"d/f"))

    assert plan(twice, view(file(b"g")), twice).directories == (FixDirectory(b"", 2), FixDirectory(b"d", 2))


@pytest.mark.parametrize(
    "layers",
    [
        [[whiteout(b"f")]],
        [[directory(b"d")], [directory(b"d"), whiteout(b"d/f")]],
        [[directory(b"d"), whiteout(b"d/f")], [directory(b"d")]],
        [[directory(b"d"), whiteout(b"d/f")], [whiteout(b"d")]],
        [[directory(b"d"), whiteout(b"d/f")], [directory(b"d"), opaque(b"d"), file(b"d/g")]],
    ],
    ids=["the root", "a directory below", "a directory above", "hidden", "covered"],
)
def test_what_hides_something_and_is_merged_or_not_shown_needs_nothing(layers):
    assert plan(*(view(*steps) for steps in layers)).is_empty


def test_merge_of_our_own_lists_no_device():
    assert plan(view(directory(b"d"), whiteout(b"d/f")), reads=Reads.ANY).is_empty


# -- hard links


def test_hard_link_to_a_lower_file_makes_one_file_of_all_its_names():
    lower = view(file(b"f"), link(b"g", b"f"), link(b"hidden", b"f"))
    upper = view(whiteout(b"hidden"), link(b"l", b"g"), link(b"d/m", b"l"))

    fix_ups = plan(lower, upper)

    assert fix_ups.links == (FixLink(0, b"f", (b"d/m", b"f", b"g", b"l")),)
    assert [fix.path for fix in fix_ups.directories] == [b"", b"d"]


def test_hard_link_finds_its_target_through_symlinks_of_lower_layers():
    lower = view(file(b"usr/bin/f"), symlink(b"bin", b"/usr/bin"))

    assert plan(lower, view(link(b"l", b"bin/f"))).links == (FixLink(0, b"usr/bin/f", (b"l", b"usr/bin/f")),)


def test_hard_link_to_a_symlink_is_a_symlink():
    fix_ups = plan(view(symlink(b"s", b"nowhere")), view(link(b"l", b"s")), view(symlink(b"d", b"x"), link(b"m", b"l")))

    assert fix_ups.links == (FixLink(0, b"s", (b"l", b"m", b"s")),)


def test_hard_link_to_what_its_own_layer_deletes_leads_there_all_the_same():
    fix_ups = plan(view(file(b"f")), view(whiteout(b"f"), link(b"l", b"f")))

    assert fix_ups.links == (FixLink(0, b"f", (b"l",)),)


def test_hard_link_that_is_gone_needs_nothing():
    assert plan(view(file(b"f")), view(link(b"d/l", b"f")), view(whiteout(b"d/l"))).links == ()


def test_directory_in_the_place_of_a_hard_link_has_nothing_of_the_one_below_it():
    fix_ups = plan(view(file(b"d/f"), file(b"g")), view(link(b"d", b"g")), view(directory(b"d"), file(b"d/h")))

    assert fix_ups.whiteouts == (b"d/f",)


@pytest.mark.parametrize(
    ("lower", "target", "reason"),
    [
        ([], b"f", "has a hard link 'l' to 'f', which no layer below it has"),
        ([file(b"g")], b"f", "has a hard link 'l' to 'f', which no layer below it has"),
        ([file(b"g")], b"g/f", "has a hard link 'l' to 'g/f', which no layer below it has"),
        ([directory(b"f")], b"f", "has a hard link 'l' to 'f', which is a directory of the layers below it"),
        ([symlink(b"s", b"s")], b"s/f", "has a hard link 'l' to 's/f', which no layer below it has"),
        ([symlink(b"s", b"t/x"), symlink(b"t", b"s")], b"s/f", "has a hard link 'l' to 's/f', which no layer below"),
    ],
)
def test_hard_link_that_leads_to_no_file_is_refused(lower, target, reason):
    upper = view(link(b"l", target))

    with pytest.raises(StackError) as refused:
        plan(view(*lower), upper)

    assert refused.value.layer == upper.diff_id
    assert refused.value.reason.startswith(reason)


def test_hard_link_of_the_lowest_layer_is_refused():
    with pytest.raises(StackError, match="which no layer below it has"):
        plan(view(link(b"l", b"f")), view(file(b"f")))


def test_hard_link_below_a_hidden_file_is_refused():
    with pytest.raises(StackError, match="which no layer below it has"):
        plan(view(file(b"f")), view(whiteout(b"f")), view(link(b"l", b"f")))


# -- many layers


def test_five_hundred_layers_are_planned():
    lower = view(directory(b"", mode=0o700), directory(b"d/e", mode=0o1777), file(b"f"))
    uppers = [
        view(file(b"d/e/%d" % number), link(b"l%d" % number, b"l%d" % (number - 1) if number else b"f"))
        for number in range(499)
    ]

    fix_ups = plan(lower, *uppers)

    assert {fix.path: fix.layer for fix in fix_ups.directories} == {b"": 0, b"d/e": 0, b"d": 499}
    assert [len(link.names) for link in fix_ups.links] == [500]


def test_directories_that_many_layers_imply_are_merged_once_and_not_once_for_each_layer():
    few, many = (
        [view(*(file(b"%d/%d" % (number, layer)) for number in range(20))) for layer in range(count)]
        for count in (20, 80)
    )

    assert lines_of(plan, *many) < 8 * lines_of(plan, *few)


def lines_of(function, *arguments):
    """Return how many lines of Python are run."""
    lines = 0

    def trace(*_):
        nonlocal lines
        lines += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return lines


def test_a_deep_path_is_planned():
    deep = b"/".join([b"d"] * 250)

    assert len(plan(view(directory(deep, mode=0o1777)), view(file(deep + b"/f"))).directories) == 251


def test_stacks_have_names_of_their_own():
    names = {
        stack_id(layers, reads)
        for layers in (["sha256:a", "sha256:b"], ["sha256:b", "sha256:a"], [])
        for reads in Reads
    }

    assert len(names) == 9
