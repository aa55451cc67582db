from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.core.format_error import FormatError
from pykka_imagestore.core.formats.run_config import (
    MAX_ARGUMENT_BYTES,
    MAX_COMMAND_BYTES,
    MAX_PATH_BYTES,
    MAX_WORD_BYTES,
    parse_run_config,
)
from pykka_imagestore.core.run_config import RunConfig

DOCKER = {
    "architecture": "amd64",
    "config": {
        "Hostname": "5b2e",
        "User": "app:www",
        "ExposedPorts": {"80/tcp": {}, "53": None},
        "Env": ["PATH=/usr/bin:/bin", "EMPTY=", "EQUAL=a=b"],
        "Entrypoint": ["/entry.sh", "-v"],
        "Cmd": ["serve", ""],
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv/app",
        "Labels": {"version": "1", "none": None},
        "StopSignal": "SIGQUIT",
        "OnBuild": None,
    },
    "container_config": {"Cmd": ["/bin/sh", "-c", "#(nop)"]},
}


def parsed(**fields):
    return parse_run_config(json.dumps({"config": fields}).encode())


def fault(**fields):
    with pytest.raises(FormatError) as raised:
        parsed(**fields)
    text = str(raised.value)
    assert text.isprintable()
    assert len(text) < 1000
    return text


def test_config_gives_what_it_says_field_by_field():
    config = parse_run_config(json.dumps(DOCKER).encode())

    assert config == RunConfig(
        entrypoint=("/entry.sh", "-v"),
        arguments=("serve", ""),
        environment=(("PATH", "/usr/bin:/bin"), ("EMPTY", ""), ("EQUAL", "a=b")),
        user="app:www",
        working_directory="/srv/app",
        labels=(("version", "1"), ("none", "")),
        exposed_ports=("80/tcp", "53"),
        volumes=("/data",),
        stop_signal="SIGQUIT",
    )
    assert config.command == ("/entry.sh", "-v", "serve", "")


@pytest.mark.parametrize("config", [{}, {"config": None}, {"config": {}}, {"config": dict.fromkeys(DOCKER["config"])}])
def test_what_a_config_leaves_out_or_says_is_null_is_empty(config):
    assert parse_run_config(json.dumps(config).encode()) == RunConfig()
    assert RunConfig().command == ()


def test_command_is_the_entrypoint_or_the_arguments_where_the_other_is_missing():
    assert parsed(Cmd=["sh"]).command == ("sh",)
    assert parsed(Entrypoint=["/hello"], Cmd=[]).command == ("/hello",)


@pytest.mark.parametrize("key", ["Entrypoint", "Cmd"])
def test_text_for_a_list_of_one_is_taken_as_docker_takes_it(key):
    assert parsed(**{key: "/bin/a b"}).command == ("/bin/a b",)


def test_names_of_fields_are_read_in_any_case_and_the_last_one_counts():
    config = parse_run_config(b'{"Config": {"User": "a", "user": "b", "WORKINGDIR": "/w", "env": ["a=1"]}}')

    assert (config.user, config.working_directory, config.environment) == ("b", "/w", (("a", "1"),))


def test_of_two_values_of_a_name_the_last_one_counts_and_a_name_alone_is_unset():
    assert parsed(Env=["a=1", "b=2", "a=3"]).environment == (("a", "3"), ("b", "2"))
    assert parsed(Env=["a=1", "a", "b"]).environment == ()


@pytest.mark.parametrize("text", ["", "=x", "="])
def test_variable_without_a_name_is_refused(text):
    assert fault(Env=["a=1", text]) == f"config, Env 1 should be NAME=VALUE, but is {text!r}"


# -- the working directory


@pytest.mark.parametrize("path", ["app", "./", "../etc", "proc/self/fd/7", " /", "~"])
def test_working_directory_that_is_not_absolute_is_refused(path):
    assert fault(WorkingDir=path) == f"config, WorkingDir should be an absolute path, but is {path!r}"


@pytest.mark.parametrize(
    "path",
    [
        "/proc/self/fd/7",
        "/proc",
        "//proc/self/fd/8/",
        "///proc/1/cwd",
        "/./proc/self/fd",
        "/a/../proc/self",
        "/../proc/",
    ],
)
def test_working_directory_in_proc_is_refused(path):
    assert fault(WorkingDir=path) == (
        f"config, WorkingDir should be a directory of the image, but {path!r} is the kernel's"
    )


@pytest.mark.parametrize("path", ["/", "//", "/process", "/app/proc", "/proc/../app", "/..", "/a b/ü"])
def test_working_directory_is_as_the_image_says_it(path):
    assert parsed(WorkingDir=path).working_directory == path


# -- what is refused

TEXTS = ["User", "WorkingDir", "StopSignal"]
LISTS = ["Env", "Entrypoint", "Cmd"]
OBJECTS = ["ExposedPorts", "Volumes", "Labels"]


@pytest.mark.parametrize("key", TEXTS)
@pytest.mark.parametrize("value", [1, True, False, 0, 1.5, [], ["x"], {}, {"a": "b"}])
def test_what_should_be_a_text_and_is_none_is_refused(key, value):
    assert fault(**{key: value}).startswith(f"config, {key} should be a string, but is ")


@pytest.mark.parametrize("key", LISTS)
@pytest.mark.parametrize("value", [1, False, {}, {"0": "x"}, 0])
def test_what_should_be_a_list_and_is_none_is_refused(key, value):
    assert fault(**{key: value}).startswith(f"config, {key} should be a list, but is ")


@pytest.mark.parametrize("key", LISTS)
@pytest.mark.parametrize("value", [None, 1, True, ["x"], {}])
def test_what_should_be_a_text_in_a_list_and_is_none_is_refused(key, value):
    assert fault(**{key: ["a=b", value]}).startswith(f"config, {key} 1 should be a string, but is ")


@pytest.mark.parametrize("key", OBJECTS)
@pytest.mark.parametrize("value", [1, False, "", [], ["80/tcp"], 0])
def test_what_should_be_an_object_and_is_none_is_refused(key, value):
    assert fault(**{key: value}).startswith(f"config, {key} should be an object, but is ")


@pytest.mark.parametrize("value", [1, True, [], {}])
def test_label_that_is_no_text_is_refused(value):
    assert fault(Labels={"ok": "x", "\x1b[2J": value}).startswith(
        "config, Labels, '\\x1b[2J' should be a string, but is "
    )


@pytest.mark.parametrize(
    "config", [b"[]", b"null", b'"x"', b"1", b'{"config": []}', b'{"config": "x"}', b"{", b"", b"\xff"]
)
def test_what_is_no_config_is_refused(config):
    with pytest.raises(FormatError, match=r"should be an object|is no JSON"):
        parse_run_config(config)


SMUGGLED = [
    *({key: "/a\0b"} for key in TEXTS),
    *({key: ["a=\0b"]} for key in LISTS),
    *({key: {"/\0": ""}} for key in OBJECTS),
    {"Labels": {"a": "\0"}},
]


@pytest.mark.parametrize("fields", SMUGGLED)
def test_nul_which_would_end_a_text_early_is_refused(fields):
    assert " should have no NUL, but is " in fault(**fields)


@pytest.mark.parametrize("fields", json.loads(json.dumps(SMUGGLED).replace("\\u0000", "\\udcff")))
def test_half_a_character_is_refused(fields):
    assert " should be Unicode, but is " in fault(**fields)


LONGEST = [
    ("User", lambda text: text, MAX_WORD_BYTES),
    ("StopSignal", lambda text: text, MAX_WORD_BYTES),
    ("ExposedPorts", lambda text: {text: {}}, MAX_WORD_BYTES),
    ("Volumes", lambda text: {text: {}}, MAX_PATH_BYTES),
    ("WorkingDir", lambda text: f"/{text[1:]}", MAX_PATH_BYTES),
    ("Entrypoint", lambda text: [text], MAX_ARGUMENT_BYTES),
    ("Cmd", lambda text: [text], MAX_ARGUMENT_BYTES),
    ("Env", lambda text: [f"a={text[2:]}"], MAX_ARGUMENT_BYTES),
]


@pytest.mark.parametrize(("key", "value", "most"), LONGEST)
def test_text_that_is_longer_than_the_kernel_takes_is_refused(key, value, most):
    parsed(**{key: value("x" * most)})

    assert fault(**{key: value("x" * (most + 1))}).endswith(
        f"should be no longer than {most} bytes, but has {most + 1}"
    )
    assert "no longer than" in fault(**{key: value("xx" + "ü" * (most // 2))})


def test_command_and_environment_that_no_program_can_be_given_are_refused():
    fields = {"Cmd": ["x" * 100_000] * 10, "Env": [f"{number}={'y' * 100_000}" for number in range(10)]}
    parsed(**fields)

    assert fault(**{**fields, "Entrypoint": ["z" * 100_000]}).endswith(f"a program can be given {MAX_COMMAND_BYTES}")
    assert fault(Cmd=[""] * 300_000).startswith("config has a command and an environment of 2700000 bytes")


# -- any

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
names = texts.map(lambda name: name.replace("=", "")).filter(bool)
configs = st.builds(
    RunConfig,
    entrypoint=st.lists(texts).map(tuple),
    arguments=st.lists(texts).map(tuple),
    environment=st.dictionaries(names, texts).map(lambda values: tuple(values.items())),
    user=texts,
    working_directory=texts.map(lambda path: f"/app/{path}").filter(lambda path: ".." not in path),
    labels=st.dictionaries(texts, texts).map(lambda values: tuple(values.items())),
    exposed_ports=st.lists(texts, unique=True).map(tuple),
    volumes=st.lists(texts, unique=True).map(tuple),
    stop_signal=texts,
)


@given(configs)
def test_what_a_config_says_comes_back(config):
    fields = {
        "Entrypoint": config.entrypoint,
        "Cmd": config.arguments,
        "Env": [f"{name}={value}" for name, value in config.environment],
        "User": config.user,
        "WorkingDir": config.working_directory,
        "Labels": dict(config.labels),
        "ExposedPorts": dict.fromkeys(config.exposed_ports),
        "Volumes": dict.fromkeys(config.volumes),
        "StopSignal": config.stop_signal,
    }

    assert parsed(**fields) == config


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=9), below, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from([*TEXTS, *LISTS, *OBJECTS, "user", "ENV", "Shell"])


@given(st.dictionaries(keys, values | st.text().map(lambda text: f"/{text}") | st.lists(st.text(max_size=9))))
def test_any_config_gives_what_the_kernel_takes_or_is_refused_in_a_sentence(fields):
    try:
        config = parsed(**fields)
    except FormatError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert refusal.isprintable()
        return
    texts = [*config.command, *sum(config.environment, ()), config.user, config.working_directory]
    assert b"\0" not in b"".join(text.encode() for text in texts)
    assert config.working_directory.startswith("/")
    assert all(name and "=" not in name for name, _ in config.environment)
    assert hash(config) == hash(config)
