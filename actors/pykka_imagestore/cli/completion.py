"""Scripts that complete the command line in shells, made from its parser.

Names of images and ids of containers are completed, too: the scripts ask ``imagestore list`` and ``imagestore
containers``. Whatever these say, they say escaped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pykka_imagestore.cli import values

_KINDS: dict[object, str] = {
    values.path: "file",
    values.archive: "file",
    values.stored_image: "image",
    values.image_or_container: "image",
    values.container_id: "container",
}


@dataclass(frozen=True, slots=True)
class Argument:
    """An option or an argument of a verb.

    Attributes:
        options: Its spellings; none of an argument.
        metavar: What stands for its value; empty if it has none.
        kind: What its value is: ``file``, ``directory``, ``image``, ``container``, ``words`` or ``text``.
        words: The values that it may have, if it is words.
        help: A sentence.
        repeats: Whether it may come again.
    """

    options: tuple[str, ...]
    metavar: str
    kind: str
    words: tuple[str, ...]
    help: str
    repeats: bool


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb under all its names."""

    names: tuple[str, ...]
    help: str
    arguments: tuple[Argument, ...]

    @property
    def options(self) -> tuple[Argument, ...]:
        """Those that begin with a dash."""
        return tuple(argument for argument in self.arguments if argument.options)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What its arguments are, one after the other; what follows them is as the last."""
        return tuple(argument.kind for argument in self.arguments if not argument.options) or ("text",)

    @property
    def words(self) -> tuple[str, ...]:
        """Its arguments, if they are words."""
        return next((argument.words for argument in self.arguments if not argument.options), ())


def make_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script for a shell: ``bash``, ``zsh`` or ``fish``."""
    common = tuple(_arguments(parser))
    return _SCRIPTS[shell](common, find_verbs(parser))


def find_verbs(parser: argparse.ArgumentParser) -> tuple[Verb, ...]:
    """Return the verbs of a command line, in their order."""
    action = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    helps = {choice.dest.partition(" ")[0]: choice.help or "" for choice in action._choices_actions}
    names: dict[argparse.ArgumentParser, list[str]] = {}
    for name, verb in action.choices.items():
        names.setdefault(verb, []).append(name)
    return tuple(Verb(tuple(found), helps[found[0]], tuple(_arguments(verb))) for verb, found in names.items())


def _arguments(parser: argparse.ArgumentParser) -> Iterator[Argument]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            continue
        metavar = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
        repeats = action.nargs in ("+", "*") or isinstance(action, argparse._AppendAction)
        words = tuple(map(str, action.choices or ()))
        yield Argument(tuple(action.option_strings), metavar, _kind(action), words, action.help or "", repeats)


def _kind(action: argparse.Action) -> str:
    if action.choices:
        return "words"
    kind = _KINDS.get(action.type, "text")
    return "directory" if kind == "file" and action.metavar in ("DIR", "DIRECTORY") else kind


# -- bash

_BASH = """\
# Completes imagestore in bash; made by "imagestore completion bash".

_imagestore() {{
    local line=${{COMP_LINE:0:COMP_POINT}} store=() words verb= options kinds kind list= index position=0 word
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local cur=${{words[-1]}} last=$((${{#words[@]}} - 1))
    for ((index = 1; index < last; index++)); do
        case ${{words[index]}} in
        --store) store=(--store "${{words[++index]}}") ;;
        {valued}) ((index++)) ;;
        -*) ;;
        *) if [[ $verb ]]; then ((position++)); else verb=${{words[index]}}; fi ;;
        esac
    done
    case $verb in
    '') options='{options}' kinds=(words) list='{verbs}' ;;
{cases}
    *) kinds=(text) ;;
    esac
    kind=${{kinds[position]-${{kinds[-1]}}}}
    case ${{words[last - 1]}} in
{values}
    *) [[ $cur == -* ]] && kind=words list=$options ;;
    esac
    COMPREPLY=()
    case $kind in
    file) compopt -o default ;;
    directory) compopt -o dirnames ;;
    image | container | words)
        case $kind in
        image) list=$(imagestore "${{store[@]}}" list --quiet 2>/dev/null) ;;
        container) list=$(imagestore "${{store[@]}}" containers --quiet 2>/dev/null) ;;
        esac
        read -rd '' -a words <<<"$list" # compgen -W would expand what is in the words
        for word in "${{words[@]}}"; do [[ $word == "$cur"* ]] && COMPREPLY+=("$word"); done
        # Bash takes a colon for the end of a word, and so puts only what follows it in its place.
        [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]] && COMPREPLY=("${{COMPREPLY[@]#"${{cur%:*}}:"}}")
        ;;
    esac
}}
complete -F _imagestore imagestore
"""


def _bash(common: Iterable[Argument], verbs: tuple[Verb, ...]) -> str:
    cases = "\n".join(_bash_case(verb) for verb in verbs)
    by_value: dict[str, list[str]] = {}
    for argument in (argument for verb in verbs for argument in verb.options if argument.metavar):
        by_value.setdefault(f"kind={argument.kind}{_bash_list(argument.words)}", []).extend(argument.options)
    spelled = {value: "|".join(dict.fromkeys(options)) for value, options in by_value.items()}
    found = "\n".join(f"    {options}) {value} ;;" for value, options in spelled.items())
    names = " ".join(name for verb in verbs for name in verb.names)
    valued = "|".join(spelled.values())
    return _BASH.format(options=_spellings(common), verbs=names, valued=valued, cases=cases, values=found)


def _bash_case(verb: Verb) -> str:
    kinds = f"kinds=({' '.join(verb.kinds)}){_bash_list(verb.words)}"
    return f"    {'|'.join(verb.names)}) options='{_spellings(verb.options)}' {kinds} ;;"


def _bash_list(words: tuple[str, ...]) -> str:
    return f" list='{' '.join(words)}'" if words else ""


def _spellings(options: Iterable[Argument]) -> str:
    return " ".join(option for argument in options for option in argument.options)


# -- zsh

_ZSH = """\
#compdef imagestore
# Completes imagestore in zsh; made by "imagestore completion zsh".

_imagestore_listed() {{ # VERB: what it lists
    local store=${{opt_args[--store]-$imagestore_store}}
    local -a listed=(${{(f)"$(_call_program $1 imagestore ${{store:+--store}} $store $1 --quiet 2>/dev/null)"}})
    compadd -a listed
}}
_imagestore_images() {{ _imagestore_listed list }}
_imagestore_containers() {{ _imagestore_listed containers }}

_imagestore() {{
    local curcontext=$curcontext state line imagestore_store
    local -A opt_args
    _arguments -C {options} \\
        '1:verb:->verb' '*::argument:->arguments'
    case $state in
    verb)
        local -a verbs=(
{verbs}
        )
        _describe verb verbs
        ;;
    arguments)
        imagestore_store=${{opt_args[--store]}}
        case $line[1] in
{cases}
        esac
        ;;
    esac
}}

if [[ $funcstack[1] == _imagestore ]]; then
    _imagestore "$@"
else
    compdef _imagestore imagestore
fi
"""
_ZSH_ACTIONS = {
    "file": "_files",
    "directory": "_directories",
    "image": "_imagestore_images",
    "container": "_imagestore_containers",
    "text": " ",
}


def _zsh(common: Iterable[Argument], verbs: tuple[Verb, ...]) -> str:
    described = "\n".join(f"            {_quoted(f'{name}:{verb.help}')}" for verb in verbs for name in verb.names)
    cases = "\n".join(f"        {'|'.join(verb.names)}) _arguments{_zsh_specs(verb.arguments)} ;;" for verb in verbs)
    return _ZSH.format(options=_zsh_specs(common).lstrip(), verbs=described, cases=cases)


def _zsh_specs(arguments: Iterable[Argument]) -> str:
    return "".join(f" \\\n            {spec}" for argument in arguments for spec in _zsh_spec(argument))


def _zsh_spec(argument: Argument) -> Iterator[str]:
    action = f"({' '.join(argument.words)})" if argument.words else _ZSH_ACTIONS[argument.kind]
    value = f":{argument.metavar}:{action}" if argument.metavar else ""
    if not argument.options:
        yield _quoted(f"{'*' if argument.repeats else ''}{value}")
        return
    others = "*" if argument.repeats else f"({' '.join(argument.options)})"
    text = argument.help.replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    for option in argument.options:
        yield _quoted(f"{others}{option}[{text}]{value}")


# -- fish

_FISH_LISTS = {"image": "(__imagestore_listed list)", "container": "(__imagestore_listed containers)"}


def _fish(common: Iterable[Argument], verbs: tuple[Verb, ...]) -> str:
    names = " ".join(name for verb in verbs for name in verb.names)
    first = f"not __fish_seen_subcommand_from {names}"
    lines = [
        '# Completes imagestore in fish; made by "imagestore completion fish".',
        "",
        "function __imagestore_listed",
        "    set -l words (commandline -opc)",
        "    set -l at (contains -i -- --store $words); and set -l store --store $words[(math $at + 1)]",
        "    imagestore $store $argv --quiet 2>/dev/null",
        "end",
        "",
        "complete -c imagestore -f",
        *(_fish_option(first, argument) for argument in common),
    ]
    for verb in verbs:
        lines += [
            f"complete -c imagestore -n {_quoted(first)} -a {name} -d {_quoted(verb.help)}" for name in verb.names
        ]
    for verb in verbs:
        seen = f"__fish_seen_subcommand_from {' '.join(verb.names)}"
        lines += [_fish_option(seen, argument) for argument in verb.options]
        lines += _fish_arguments(seen, verb)
    return "\n".join(lines) + "\n"


def _fish_option(condition: str, argument: Argument) -> str:
    spelled = "".join(f" {'-l' if o.startswith('--') else '-s'} {o.lstrip('-')}" for o in argument.options)
    value = {"file": " -r -F", "directory": " -x -a '(__fish_complete_directories)'"}.get(argument.kind, " -x")
    if argument.kind in _FISH_LISTS:
        value = f" -x -a '{_FISH_LISTS[argument.kind]}'"
    if argument.words:
        value = f" -x -a {_quoted(' '.join(argument.words))}"
    return (
        f"complete -c imagestore -n {_quoted(condition)}{spelled}{value if argument.metavar else ''} "
        f"-d {_quoted(argument.help)}"
    )


def _fish_arguments(condition: str, verb: Verb) -> Iterator[str]:
    kind = next((kind for kind in verb.kinds if kind != "text"), "text")  # fish does not tell which argument it is
    found = {"file": "-F", "directory": "-F"}.get(kind)
    if kind in _FISH_LISTS:
        found = f"-a '{_FISH_LISTS[kind]}'"
    if verb.words:
        found = f"-a {_quoted(' '.join(verb.words))}"
    if found is not None:
        yield f"complete -c imagestore -n {_quoted(condition)} {found}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


_SCRIPTS: dict[str, Callable[[Iterable[Argument], tuple[Verb, ...]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
