from __future__ import annotations

import secrets
import string

from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.core.digest import directory_name, sha256
from pykka_imagestore.core.store_names import DIRECTORIES, find_foreign, is_random_name, is_work

DIGEST = directory_name(sha256(b"x"))
FILES = ("imagestore", "storedImages", "storedImages.journal")
OWN = {
    "layers": [DIGEST],
    "configs": [DIGEST],
    "staging": ["0123456789abcdef"],
    "gc": ["0123456789abcdef"],
    "leases": ["0123456789abcdef"],
    "locks": ["references", "layers", "leases", "staging", "gc"],
    "containers": ["c1", "agent-7_b.2"],
    "stacks": [DIGEST],
    "reserve": ["0", "15"],
}
own_listings = st.fixed_dictionaries(
    {}, optional={directory: st.lists(st.sampled_from(names), unique=True) for directory, names in OWN.items()}
)
files = st.sets(st.sampled_from([*FILES, *(f"{name}.new" for name in FILES), "lost+found"]))
odd_names = st.one_of(
    st.text(min_size=1),
    st.sampled_from(["flat-2024.pdf", "lost+found", ".git", "0123456789ABCDEF", f"{DIGEST}\n", "storedImages.old"]),
).filter(lambda name: "/" not in name and "\0" not in name)


@given(own_listings, files)
def test_what_a_store_makes_is_its_own(directories, names):
    assert find_foreign([*directories, *names], directories) == []


@given(own_listings, files, odd_names, st.sampled_from(sorted(DIRECTORIES)))
def test_any_other_name_is_found_wherever_it_is(directories, names, odd, directory):
    if odd not in OWN[directory] and not is_random_name(odd):
        listed = {**directories, directory: [*directories.get(directory, []), odd]}
        found = find_foreign([*listed, *names], listed)
        assert found == ([] if is_own(directory, odd) else [f"{directory}/{odd}"])
    if odd not in DIRECTORIES and odd.removesuffix(".new") not in FILES and odd != "lost+found":
        assert find_foreign([*directories, *names, odd], directories) == [odd]


def is_own(directory: str, odd: str) -> bool:
    """Tell whether an odd name may be one that a store makes."""
    if directory == "containers":
        known = set(string.ascii_letters + string.digits)
        return len(odd) <= 128 and odd[:1] in known and known.union("_.-").issuperset(odd)
    return directory == "reserve" and odd.isdigit() and odd.isascii() and len(odd) <= 2


def test_directories_are_all_that_a_store_has():
    assert set(OWN) == DIRECTORIES


def test_names_that_are_chosen_are_known_again():
    assert all(is_random_name(secrets.token_hex(8)) for _ in range(100))
    assert not any(map(is_random_name, ["", "0123456789ABCDEF", "0123456789abcdef\n", "0123456789abcdef0", "draft"]))


def test_work_is_what_puts_and_removals_leave():
    assert is_work(
        ["lock", "archive.tar", "archive.tar.stop", "config", "layer", "layer.stop", "layer.helpers", DIGEST]
    )
    assert is_work([])
    assert not is_work(["lock", "draft.txt"])
