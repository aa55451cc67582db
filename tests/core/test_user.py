from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.core.format_error import FormatError
from pykka_imagestore.core.user import MAX_GROUPS, MAX_ID, MAX_LINE_BYTES, User, find_user

PASSWD = b"""root:x:0:0:root:/root:/bin/bash
# a comment
daemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin
1000:x:5:5::/five:
app:x:1000:1000:An App,,,:/srv/app:/bin/sh
bare:x:1001:7
twin:x:1002:1002::/first:
twin:x:1003:1003::/second:
also-1000:x:1000:9::/also:
"""
GROUP = b"""root:x:0:
daemon:x:1:
www:x:33:app,bare
audio:x:29:bare,app,root
1000:x:6:
twins:x:50:
twins:x:51:
app:x:1000:app
"""


def find(user, passwd=PASSWD, group=GROUP):
    return find_user(user, passwd, group)


def fault(user, passwd=PASSWD, group=GROUP):
    with pytest.raises(FormatError) as raised:
        find_user(user, passwd, group)
    text = str(raised.value)
    assert text.isprintable()
    assert len(text) < 500
    return text


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", User(0, 0, (0, 29), "/root", "root")),
        ("root", User(0, 0, (0, 29), "/root", "root")),
        ("app", User(1000, 1000, (1000, 33, 29), "/srv/app", "app")),
        ("bare", User(1001, 7, (7, 33, 29), "/", "bare")),
        ("1000", User(1000, 1000, (1000, 33, 29), "/srv/app", "app")),
        ("0001000", User(1000, 1000, (1000, 33, 29), "/srv/app", "app")),
        ("app:www", User(1000, 33, (33,), "/srv/app", "app")),
        ("app:33", User(1000, 33, (33,), "/srv/app", "app")),
        ("app:4242", User(1000, 4242, (4242,), "/srv/app", "app")),
        ("app:1000", User(1000, 1000, (1000,), "/srv/app", "app")),
        ("4242", User(4242, 0, (0,))),
        ("4242:www", User(4242, 33, (33,))),
        ("4242:4343", User(4242, 4343, (4343,))),
        (":www", User(0, 33, (33,), "/root", "root")),
        ("app:", User(1000, 1000, (1000, 33, 29), "/srv/app", "app")),
        (":", User(0, 0, (0, 29), "/root", "root")),
        ("twin", User(1002, 1002, (1002,), "/first", "twin")),
        ("app:twins", User(1000, 50, (50,), "/srv/app", "app")),
        (f"{MAX_ID}:{MAX_ID}", User(MAX_ID, MAX_ID, (MAX_ID,))),
    ],
)
def test_user_is_whom_docker_would_run(user, expected):
    assert find(user) == expected


@pytest.mark.parametrize(("user", "uid"), [("", 0), ("0", 0), ("7:8", 7)])
def test_number_needs_no_accounts(user, uid):
    assert find(user, b"", b"").uid == uid
    assert find(user, b"", b"").home == "/"


def test_name_that_no_line_has_is_refused():
    assert fault("nobody") == "/etc/passwd has no user 'nobody'"
    assert fault("app:nogroup") == "/etc/group has no group 'nogroup'"
    assert fault("app", b"") == "/etc/passwd has no user 'app'"
    assert fault("# a comment") == "/etc/passwd has no user '# a comment'"


@pytest.mark.parametrize(
    "user", ["a:b:c", "::", "app\n", "app\0", "\x1b[2J", "app:w\0ww", "\ud800", "\u202eapp", "x" * 100_000 + "\0"]
)
def test_what_is_no_user_is_refused(user):
    assert fault(user) == "a user is a name or an id, and so is its group after a colon, if any"


@pytest.mark.parametrize("number", [MAX_ID + 1, MAX_ID + 2, 1 << 32, 1 << 64, int("9" * 40)])
def test_id_that_the_kernel_does_not_have_is_refused(number):
    assert fault(f"{number}").startswith(f"ids end at {MAX_ID}, and its user is '{number}'")
    assert fault(f"0:{number}").startswith(f"ids end at {MAX_ID}, and its group is '{number}'")
    assert "has no user" in fault(f"-{number}")
    assert len(fault("9" * 100_000)) < 500


@pytest.mark.parametrize("user", ["-1", "+1", "0x0", "1e3", "1_0", " 0", "0 ", "٣", "²"])
def test_what_is_almost_a_number_is_a_name(user):
    assert fault(user) == f"/etc/passwd has no user {user!r}"


@pytest.mark.parametrize(
    "line",
    [
        b"app:x::5::/:",
        b"app:x:-1:5::/:",
        b"app:x:5:-1::/:",
        b"app:x:4294967295:5::/:",
        b"app:x:5:4294967296::/:",
        b"app:x:5 :5::/:",
        b"app:x:abc:5::/:",
        b"app:x:5",
        b"app",
        b"app:x:5:5:\0:/:",
        b"app:x:5:5::/\x1b[2J:",
        b"app:x:5:5::/\x7f:",
        b"app:x:\xb2:5::/:",
        b"app:x:5:5:" + b"g" * MAX_LINE_BYTES + b":/:",
    ],
)
def test_malformed_line_is_no_account_and_never_roots(line):
    assert fault("app", line) == "/etc/passwd has no user 'app'"
    assert find("app", line + b"\napp:x:7:8::/home/app:\n", b"") == User(7, 8, (8,), "/home/app", "app")


@pytest.mark.parametrize("line", [b"www:x::app", b"www:x:-1:app", b"www:x:4294967295:app", b"www", b"www:x:3\x003:app"])
def test_malformed_line_is_no_group(line):
    assert fault("app:www", PASSWD, line) == "/etc/group has no group 'www'"
    assert find("app", PASSWD, line).groups == (1000,)


def test_lines_may_end_as_on_other_systems():
    assert find("app:www", b"app:x:7:8::/a:\r\n", b"www:x:9:\r\n") == User(7, 9, (9,), "/a", "app")


@pytest.mark.parametrize("home", [b"", b"home", b"../.."])
def test_home_that_is_not_absolute_is_the_root(home):
    assert find("app", b"app:x:7:8::%s:" % home).home == "/"


def test_names_are_bytes_to_the_kernel():
    found = find("ü", "ü:x:7:8::/".encode() + b"\xff:", "z:x:9:ü".encode())

    assert found == User(7, 8, (8, 9), "/\udcff", "ü")


def test_each_group_is_named_once_and_more_than_a_program_can_have_are_refused():
    lines = b"".join(b"g%d:x:%d:app\n" % (number, number) for number in range(1, MAX_GROUPS))

    assert len(find("app", b"app:x:1:0", lines + lines).groups) == MAX_GROUPS
    assert fault("app", b"app:x:1:0", lines + b"one:x:100000:app") == (
        f"/etc/group has the user in {MAX_GROUPS + 1} groups, and a program can be in {MAX_GROUPS}"
    )


fields = st.sampled_from(
    [b"", b"app", b"0", b"1", b"7", b"4294967295", b"-1", b"/", b"/h", b"app,b", b"\0", b"\xff", b"#"]
)
files = st.lists(st.lists(fields, max_size=7).map(b":".join), max_size=8).map(b"\n".join) | st.binary(max_size=60)
users = st.lists(st.sampled_from(["", "app", "b", "0", "1", "7", "4294967295", "-1"]) | st.text(), max_size=3).map(
    ":".join
)


@given(users, files, files)
def test_anybody_found_can_be_given_to_the_kernel(user, passwd, group):
    try:
        found = find_user(user, passwd, group)
    except FormatError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert refusal.isprintable()
        return
    assert all(0 <= number <= MAX_ID for number in (found.uid, found.gid, *found.groups))
    assert found.groups[0] == found.gid
    assert len(set(found.groups)) == len(found.groups)
    assert found.home.startswith("/")
    assert "\0" not in found.home + found.name
    if found.uid == 0:
        assert user.partition(":")[0].strip("0") == "" or b":0:" in passwd
