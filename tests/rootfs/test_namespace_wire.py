"""What an agent and the process that holds its namespaces send each other."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.core.layer_record import WhiteoutFormat
from pykka_imagestore.core.rootfs import RootfsRequest, StackLayer
from pykka_imagestore.errors import InvalidInputError, RootfsError
from pykka_imagestore.rootfs.namespace_wire import (
    MAX_BYTES,
    WrongMessageError,
    pack,
    pack_error,
    pack_request,
    parse_error,
    parse_request,
    receive,
    send,
)

paths = st.binary().map(os.fsdecode)


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@given(
    st.builds(
        RootfsRequest,
        layers=st.lists(st.builds(StackLayer, paths, st.sampled_from(WhiteoutFormat))).map(tuple),
        directory=paths,
        target=st.none() | paths,
    )
)
def test_a_request_arrives_as_it_was(request_):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, pack(pack_request(request_)))

        message, descriptor = receive(theirs)

    assert parse_request(message) == request_
    assert descriptor is None


def test_a_descriptor_arrives_and_no_program_inherits_it(ends):
    with open(os.devnull) as file:
        send(ends[0], pack({}), [file.fileno()])
        _, descriptor = receive(ends[1])

        assert descriptor is not None
        assert os.path.sameopenfile(descriptor, file.fileno())
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)


@pytest.mark.parametrize(
    "error",
    [
        RootfsError("box", [("overlay", "the kernel refused")]),
        InvalidInputError("it is not empty"),
        FileNotFoundError(2, "No such file or directory", "/missing"),
        OSError(28, "No space left on device"),
    ],
)
def test_an_error_arrives_as_it_was(error):
    arrived = parse_error(pack_error(error))

    assert (type(arrived), str(arrived)) == (type(error), str(error))


def test_an_error_that_is_not_expected_arrives_as_text():
    arrived = parse_error(pack_error(KeyError("nothing")))

    assert str(arrived) == "in the process that holds the namespaces: KeyError: 'nothing'"


def test_a_message_that_is_too_long_is_not_sent():
    with pytest.raises(WrongMessageError, match=f"{MAX_BYTES} are the most"):
        pack({"path": "x" * MAX_BYTES})


@pytest.mark.parametrize("data", [(MAX_BYTES + 1).to_bytes(4), b"\0\0\0\2[]", b"\0\0\0\3nox"])
def test_what_is_no_message_is_refused_and_its_descriptor_closed(ends, data):
    before = len(os.listdir("/proc/self/fd"))
    with open(os.devnull) as file:
        socket.send_fds(ends[0], [data], [file.fileno()])

    with pytest.raises(ValueError, match=r"announced|no message|Expecting value"):
        receive(ends[1])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("data", [b"", b"\0\0", b"\0\0\0\7{}"])
def test_a_message_that_is_cut_off_is_the_end(ends, data):
    ends[0].sendall(data)
    ends[0].close()

    with pytest.raises(EOFError):
        receive(ends[1])
