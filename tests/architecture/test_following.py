"""The code that opens names from outside follows no symlink there, and waits for nothing: each call says so.

Python's calls follow symlinks unless they are told not to. A call is right here if it names ``follow_symlinks=False``,
or opens with O_NOFOLLOW, and then without waiting; or if what it is given is a number, by its annotation or by the call
that it comes from, and so a descriptor; or if it is listed with the reason why what it is given is no such name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

import pykka_imagestore

T = TypeVar("T", bound=ast.AST)

ROOT = Path(pykka_imagestore.__path__[0])
ROOMS = ("fs", "jobs")
OPENING = {"os.dup", "os.memfd_create", "os.open"}  # what these return is a descriptor
A_PIN = "a link in /proc to what is open"
A_DESCRIPTOR_OR_PIN = "a descriptor, or a link in /proc to what is open"
A_DESCRIPTOR_OR_NAME = "followed is a descriptor only"
KERNELS = "a file of the kernel's"
CALLERS = "a path that the caller of the library names"
ALLOWED = {
    ("fs/attributes.py", "os.chmod(place, mode)"): A_PIN,
    ("fs/attributes.py", "os.utime(place, ns=date)"): A_PIN,
    ("fs/attributes.py", "os.chown(where, *owner)"): A_DESCRIPTOR_OR_PIN,
    ("fs/attributes.py", "os.chown(place, *self.owner)"): A_PIN,
    ("fs/attributes.py", "os.link(place, name, dst_dir_fd=directory, follow_symlinks=True)"): A_PIN,
    ("fs/attributes.py", "os.chown(place, status.st_uid, status.st_gid)"): A_PIN,
    ("fs/attributes.py", "os.setxattr(place, CAPABILITY, capability)"): A_PIN,
    ("fs/attributes.py", "os.setxattr(where, key, value)"): A_DESCRIPTOR_OR_PIN,
    ("fs/attributes.py", "os.chmod(where, entry.mode)"): A_DESCRIPTOR_OR_PIN,
    ("fs/attributes.py", "os.stat(where)"): A_DESCRIPTOR_OR_PIN,
    ("fs/attributes.py", "os.chmod(where, entry.mode & ~SET_ID)"): A_DESCRIPTOR_OR_PIN,
    ("fs/attributes.py", "os.getxattr(path, CAPABILITY)"): A_PIN,
    (
        "fs/create.py",
        "os.chmod(pin_path(directory), stat.S_IMODE(os.fstat(directory).st_mode) | mode & stat.S_IRWXU)",
    ): A_PIN,
    ("fs/create.py", "os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)"): "a file that we make",
    ("fs/create.py", "open('/proc/self/status', 'rb')"): KERNELS,
    ("fs/directory_attributes.py", "os.getxattr(place, key)"): A_PIN,
    ("fs/directory_attributes.py", "os.listxattr(place)"): A_PIN,
    ("fs/directory_attributes.py", "os.stat(place)"): A_PIN,
    ("fs/in_root.py", "os.open(pin_path(found), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)"): A_PIN,
    ("fs/layer_files.py", "os.getxattr(self.directory(path), key)"): "a descriptor",
    ("fs/layer_files.py", "os.listdir(self.directory(path))"): "a descriptor",
    ("fs/layer_files.py", "os.scandir(self.directory(path))"): "a descriptor",
    ("fs/likeness.py", "os.getxattr(place, key, follow_symlinks=follow)"): A_DESCRIPTOR_OR_NAME,
    ("fs/likeness.py", "os.listxattr(place, follow_symlinks=follow)"): A_DESCRIPTOR_OR_NAME,
    ("fs/named_directory.py", "os.stat('/')"): "the root",
    ("fs/remove_tree.py", "os.open(above or '.', DIRECTORY_FLAGS & ~os.O_NOFOLLOW)"): CALLERS,
    ("fs/remove_tree.py", "os.chown(place, os.geteuid(), -1)"): A_PIN,
    ("fs/remove_tree.py", "os.chmod(place, stat.S_IRWXU if is_ours else _OPEN_TO_ALL)"): A_PIN,
    ("jobs/check/attributes.py", "open(path, encoding='ascii')"): KERNELS,
    ("jobs/check/xattrs.py", "os.getxattr(place, key, follow_symlinks=isinstance(place, int))"): A_DESCRIPTOR_OR_NAME,
    ("jobs/check/xattrs.py", "os.listxattr(place, follow_symlinks=isinstance(place, int))"): A_DESCRIPTOR_OR_NAME,
    ("jobs/find_archive.py", "os.stat(path)"): CALLERS,
    ("jobs/unpack/limiter.py", "open(_UID_MAP)"): KERNELS,
    ("jobs/archive/opening.py", "os.open(path, os.O_PATH | os.O_CLOEXEC)"): CALLERS,
    ("jobs/archive/opening.py", "os.open(f'/proc/self/fd/{place}', _READ)"): A_PIN,
    ("jobs/archive/opening.py", "os.open(path, _READ)"): "what is open already, compared afterwards",
    ("jobs/check/layer_tree.py", "os.scandir(self.directory(path)[0])"): "a descriptor",
}
# These open what the caller names, or write into a directory of the store's that nobody else may enter.
PATHS_OF_OUR_OWN = {
    "jobs/make_stack.py",
    "jobs/unpack/sandbox.py",
    "jobs/untar_image.py",
    "jobs/untar_layer.py",
}

FOLLOWING = {"access", "chmod", "chown", "getxattr", "link", "listxattr", "removexattr", "setxattr", "stat", "utime"}
ALWAYS_FOLLOWING = {"chdir", "listdir", "makedirs", "removedirs", "renames", "scandir", "truncate", "walk"}
OF_PATHS = {"exists", "getsize", "isdir", "isfile", "ismount", "realpath", "samefile"}
NOT_WAITING = ({"O_NONBLOCK"}, {"O_DIRECTORY"}, {"O_PATH"}, {"O_CREAT", "O_EXCL"})


def constants(trees: list[ast.Module]) -> dict[str, ast.expr]:
    """Return what modules call an expression that has flags in it."""
    return {
        target.id: node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and "O_" in ast.unparse(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def flags_in(expression: ast.expr, known: dict[str, ast.expr]) -> set[str]:
    """Return the names of the flags that an expression sets; none of what it is not understood to set."""
    if isinstance(expression, ast.Attribute):
        return {expression.attr}
    if isinstance(expression, ast.Name):
        return flags_in(known[expression.id], known) if expression.id in known else set()
    if isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.BitOr):
        return flags_in(expression.left, known) | flags_in(expression.right, known)
    if isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.BitAnd):
        right = expression.right
        if isinstance(right, ast.UnaryOp) and isinstance(right.op, ast.Invert):
            return flags_in(expression.left, known) - flags_in(right.operand, known)
    return set()


class Module:
    """What a module says of its names: which of them are numbers, so that no call can take them for a path.

    One binding tells: mypy holds all others of the name to the same type.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self._parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        self._classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}

    def is_number(self, expression: ast.expr) -> bool:
        """Tell whether an expression is a number, where it stands."""
        if isinstance(expression, ast.UnaryOp):
            return self.is_number(expression.operand)
        if isinstance(expression, ast.Constant):
            return type(expression.value) is int
        if isinstance(expression, ast.Call):
            return ast.unparse(expression.func) in OPENING
        if isinstance(expression, ast.Attribute):
            class_ = self._class_of(expression.value)
            return class_ is not None and self._is_bound_to_number(class_, f"self.{expression.attr}")
        if isinstance(expression, ast.Name):
            functions = (scope for scope in self._around(expression, ast.FunctionDef) if binds(scope, expression.id))
            function = next(functions, None)
            return function is not None and self._is_bound_to_number(function, expression.id)
        return False

    def _around(self, node: ast.AST, kind: type[T]) -> Iterator[T]:
        while node in self._parents:
            node = self._parents[node]
            if isinstance(node, kind):
                yield node

    def _class_of(self, value: ast.expr) -> ast.ClassDef | None:
        """Return the class, in this module, of ``self`` or of an annotated parameter."""
        name = ast.unparse(value)
        if name == "self":
            return next(self._around(value, ast.ClassDef), None)
        annotations = [
            parameter.annotation
            for function in self._around(value, ast.FunctionDef)
            for parameter in parameters(function)
            if parameter.arg == name and parameter.annotation is not None
        ]
        return self._classes.get(ast.unparse(annotations[0])) if annotations else None

    def _is_bound_to_number(self, scope: ast.FunctionDef | ast.ClassDef, name: str) -> bool:
        if isinstance(scope, ast.FunctionDef):
            declared = [parameter.arg for parameter in parameters(scope) if is_int(parameter)]
        else:
            declared = [
                f"self.{ast.unparse(node.target)}"
                for node in scope.body
                if isinstance(node, ast.AnnAssign) and is_int(node)
            ]
        annotated = [
            ast.unparse(node.target) for node in ast.walk(scope) if isinstance(node, ast.AnnAssign) and is_int(node)
        ]
        return name in (*declared, *annotated) or any(
            self.is_number(node.value)
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets)
        )


def binds(function: ast.FunctionDef, name: str) -> bool:
    """Tell whether a function gives a name its meaning."""
    names = [node for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return name in (*(one.arg for one in parameters(function)), *(one.id for one in names))


def is_int(node: ast.AnnAssign | ast.arg) -> bool:
    return node.annotation is not None and ast.unparse(node.annotation) == "int"


def parameters(function: ast.FunctionDef) -> list[ast.arg]:
    return [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]


def fault_of(call: ast.Call, module: Module, known: dict[str, ast.expr]) -> str | None:
    """Return what is wrong with a call, if anything."""
    name = ast.unparse(call.func)
    library, _, function = name.rpartition(".")
    if name == "open":
        return "follows symlinks and waits for a fifo"
    if library == "os.path" and function in OF_PATHS:
        return "follows symlinks"
    if library != "os" or (call.args and module.is_number(call.args[0]) and not has(call, "dir_fd")):
        return None
    if function == "open":
        return fault_of_flags(flags_in(call.args[1], known))
    follows = function in FOLLOWING and not has(call, "follow_symlinks", False)
    return "follows symlinks" if follows or function in ALWAYS_FOLLOWING else None


def has(call: ast.Call, keyword: str, value: object = ...) -> bool:
    """Tell whether a call has a keyword argument, of a constant value if one is given."""
    return any(
        one.arg == keyword and (value is ... or (isinstance(one.value, ast.Constant) and one.value.value is value))
        for one in call.keywords
    )


def fault_of_flags(flags: set[str]) -> str | None:
    if "O_NOFOLLOW" not in flags:
        return "opens without O_NOFOLLOW"
    if not any(safe <= flags for safe in NOT_WAITING):
        return "may wait for a fifo, or use a device"
    return None


def following_calls(root: Path, rooms: tuple[str, ...] = ROOMS) -> Iterator[tuple[str, str, str]]:
    """Yield each call that may follow a symlink or wait: the module, the call and what is wrong with it."""
    paths = {path: ast.parse(path.read_text()) for room in rooms for path in sorted((root / room).rglob("*.py"))}
    shared = {name: value for name, value in constants([*paths.values()]).items() if name.isupper() and name[0] != "_"}
    for path, tree in paths.items():
        module, known = Module(tree), shared | constants([tree])
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                fault = fault_of(node, module, known)
                if fault is not None:
                    yield str(path.relative_to(root)), ast.unparse(node), fault


def test_names_from_outside_are_not_followed():
    found = {(path, call) for path, call, _ in following_calls(ROOT) if path not in PATHS_OF_OUR_OWN}

    assert found - ALLOWED.keys() == set(), "say follow_symlinks=False or O_NOFOLLOW, or list the call with its reason"
    assert ALLOWED.keys() - found == set(), "these are not there any more"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("os.chmod(name, 0o600, dir_fd=directory)", "follows symlinks"),
        ("os.chmod(directory, 0o600, dir_fd=directory)", "follows symlinks"),
        ("os.chmod(name, 0o600, dir_fd=directory, follow_symlinks=True)", "follows symlinks"),
        ("os.chmod(name, 0o600, dir_fd=directory, follow_symlinks=follow)", "follows symlinks"),
        ("os.chown(name, 0, 0)", "follows symlinks"),
        ("os.utime(name, ns=(0, 0), dir_fd=directory)", "follows symlinks"),
        ("os.stat(name, dir_fd=directory)", "follows symlinks"),
        ("os.link(name, other, src_dir_fd=directory, dst_dir_fd=directory)", "follows symlinks"),
        ("os.setxattr(b'/proc/self/fd/%d/%s' % (directory, name), key, value)", "follows symlinks"),
        ("os.access(name, os.F_OK, dir_fd=directory)", "follows symlinks"),
        ("os.listdir(path)", "follows symlinks"),
        ("os.scandir(path)", "follows symlinks"),
        ("os.path.exists(path)", "follows symlinks"),
        ("os.utime(file, ns=(0, 0))", "follows symlinks"),
        ("def look(directory):\n    os.scandir(directory)", "follows symlinks"),
        ("def look(directory: Path):\n    os.scandir(directory)", "follows symlinks"),
        ("def look(directory: int | str):\n    os.scandir(directory)", "follows symlinks"),
        ("def look():\n    directory = find(0)\n    os.scandir(directory)", "follows symlinks"),
        ("def one(directory: int): ...\ndef other(directory):\n    os.scandir(directory)", "follows symlinks"),
        ("def one(file: int):\n    def other(file):\n        os.scandir(file)", "follows symlinks"),
        ("def look(level):\n    os.scandir(level.directory)\nclass Level:\n    directory: int", "follows symlinks"),
        (
            "def look(level: Level):\n    os.scandir(level.directory)\nclass Level:\n    directory: str",
            "follows symlinks",
        ),
        ("class Walk:\n    def look(self, root: int):\n        os.scandir(self.root)", "follows symlinks"),
        ("open(path)", "follows symlinks and waits for a fifo"),
        ("os.open(name, os.O_RDONLY | os.O_NONBLOCK, dir_fd=directory)", "opens without O_NOFOLLOW"),
        ("os.open(name, DIRECTORY & ~os.O_NOFOLLOW, dir_fd=directory)", "opens without O_NOFOLLOW"),
        ("os.open(name, flags, dir_fd=directory)", "opens without O_NOFOLLOW"),
        ("os.open(name, LOOSE, dir_fd=directory)", "opens without O_NOFOLLOW"),
        ("os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)", "may wait for a fifo, or use a device"),
        ("os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW)", "may wait for a fifo, or use a device"),
    ],
)
def test_a_call_that_follows_or_waits_is_found(tmp_path, line, fault):
    write_room(tmp_path, line)

    assert [found for *_, found in following_calls(tmp_path)] == [fault]


@pytest.mark.parametrize(
    "line",
    [
        "os.chmod(name, 0o600, dir_fd=directory, follow_symlinks=False)",
        "os.fchmod(file, 0o600)",
        "def settle(file: int):\n    os.utime(file, ns=(0, 0))",
        "def look():\n    directory = os.open(name, DIRECTORY)\n    os.scandir(directory)",
        "def look(level: Level):\n    os.scandir(level.directory)\nclass Level:\n    directory: int",
        "class Walk:\n    def look(self, root: int):\n        self.root = root\n        os.scandir(self.root)",
        "class Walk:\n    def start(self, root):\n        self.root: int = find(root)\n        os.scandir(self.root)",
        "os.open(name, DIRECTORY, dir_fd=directory)",
        "os.open(name, DIRECTORY | os.O_PATH, dir_fd=directory)",
        "os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)",
        "os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)",
        "os.open(name, os.O_PATH | os.O_NOFOLLOW)",
    ],
)
def test_a_call_that_neither_follows_nor_waits_is_fine(tmp_path, line):
    write_room(tmp_path, line)

    assert list(following_calls(tmp_path)) == []


def write_room(root: Path, line: str) -> None:
    (root / "fs").mkdir()
    (root / "fs" / "flags.py").write_text(
        "import os\nDIRECTORY = os.O_DIRECTORY | os.O_NOFOLLOW\nLOOSE = os.O_DIRECTORY\n"
    )
    (root / "fs" / "a.py").write_text(f"import os\n{line}\n")


# -- a store's own files: below its directory no symlink is followed, whoever planted it

NAMES = "the names in one of the store's directories, of which none is opened"
A_LOOK = "a look at a directory that was just found to be one of the store's"
THE_DIRECTORY = "the store's directory, or one above: where the caller says"
ALLOWED_IN_A_STORE = {
    ("durable/containers.py", "Path('/proc/sys/kernel/random/boot_id').read_text(encoding='ascii')"): KERNELS,
    ("durable/containers.py", "os.listdir(paths.containers)"): NAMES,
    ("durable/disk.py", "os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)"): "to sync: what the store wrote",
    ("durable/disk.py", "os.open(path, os.O_RDONLY | os.O_CLOEXEC)"): "to sync: what the store wrote",
    ("durable/files.py", "Path(f'/proc/self/fd/{descriptor}').chmod(stat.S_IMODE(found) | mode & stat.S_IRWXU)"): A_PIN,
    ("durable/layout.py", "directory.exists()"): THE_DIRECTORY,
    ("durable/layout.py", "os.listdir(directory)"): NAMES,
    ("durable/layout.py", "os.scandir(directory)"): NAMES,
    ("durable/layout.py", "paths.journal.exists()"): "whether to sync once more",
    ("durable/layout.py", "root.exists()"): THE_DIRECTORY,
    ("durable/layout.py", "root.is_dir()"): THE_DIRECTORY,
    ("durable/marker.py", "os.listdir(directory)"): NAMES,
    ("durable/marker.py", "os.listdir(paths.root)"): THE_DIRECTORY,
    ("durable/locked_directory.py", "os.listdir(path)"): A_LOOK,
    ("durable/owner.py", "store.stat()"): THE_DIRECTORY,
    ("durable/references.py", "self._paths.references_lock.exists()"): "whether to try to lock it",
    ("durable/permissions.py", "os.access(root, os.W_OK)"): THE_DIRECTORY,
    ("durable/stacks.py", "os.listdir(self._paths.stacks)"): NAMES,
    ("durable/permissions.py", "root.stat()"): THE_DIRECTORY,
}
OF_PATH = {
    *("chmod", "exists", "is_block_device", "is_dir", "is_fifo", "is_file", "open", "read_bytes", "read_text"),
    *("resolve", "samefile", "stat", "touch", "write_bytes", "write_text"),
}


def calls_of_paths(root: Path) -> Iterator[tuple[str, str]]:
    """Yield each call of a method of a path that follows symlinks."""
    for path in sorted((root / "durable").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in OF_PATH:
                call = ast.unparse(node)
                if not call.startswith(("os.", "entry.", "JournalFile.")):
                    yield str(path.relative_to(root)), call


def test_names_in_a_store_are_not_followed():
    found = {(path, call) for path, call, _ in following_calls(ROOT, ("durable",))} | set(calls_of_paths(ROOT))

    assert found - ALLOWED_IN_A_STORE.keys() == set(), "use durable/files.py, or list the call with its reason"
    assert ALLOWED_IN_A_STORE.keys() - found == set(), "these are not there any more"
