"""Image names: as users type them, as the store keys them, as it shows them.

``ubuntu``, ``library/ubuntu`` and ``docker.io/library/ubuntu:latest`` are one image. Its ``key`` is the last
of these, and what is stored and shown is ``ubuntu:latest``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from pykka_imagestore.core.digest import Digest, is_sha256
from pykka_imagestore.errors import InvalidNameError

DEFAULT_DOMAIN = "docker.io"
LEGACY_DOMAIN = "index.docker.io"
OFFICIAL_PREFIX = "library/"
DEFAULT_TAG = "latest"
MAX_PATH_LENGTH = 255
# Upstream bounds neither the domain nor the text. We do, so that no pattern ever sees a megabyte of hostile text.
MAX_DOMAIN_LENGTH = 255
MAX_LENGTH = 1024  # no name is longer
HEX_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}

_DOMAIN_PART = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PATH_PART = re.compile(r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_HEX = re.compile(r"[a-f0-9]+")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class ImageName:
    """A parsed image name.

    Equal names have equal parts; ``key`` says whether two names mean one image.

    Attributes:
        domain: The registry, with its port if it has one. Empty where the first part looks like a host and is
            none, ``my_host.example/app``: upstream takes that for a path without a registry.
        path: The repository in the registry, ``library/ubuntu``.
        tag: Without its colon; None if the name has none.
        digest: ``algorithm:hex``; None if the name has none.
    """

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, unsafe_text: str) -> ImageName:
        """Parse the name of an image, and of nothing else.

        Args:
            unsafe_text: As a user types it or an archive has it: registry, ``library/`` and tag may be missing.

        Raises:
            InvalidNameError: The text is no name, or would be shown as an image ID, ``sha256:<hex>``.
        """
        name = cls.parse_normalized(unsafe_text)
        if _find_digest_fault(name.familiar) is None:
            raise InvalidNameError(unsafe_text, "it is an image ID, the digest of an image's config")
        return name

    @classmethod
    def parse_stored(cls, unsafe_text: str) -> ImageName:
        """Parse what an image is stored as: its name, or the digest of its config if no archive gave it a name.

        Raises:
            InvalidNameError: The text is neither.
        """
        # To the grammar, the digest is a name too, and one that ``parse`` lets no image have.
        return cls.parse_normalized(unsafe_text) if is_sha256(unsafe_text) else cls.parse(unsafe_text)

    @classmethod
    def parse_normalized(cls, unsafe_text: str) -> ImageName:
        """Parse by the grammar alone, to which ``sha256:<hex>`` is the image ``sha256`` and its tag.

        Raises:
            InvalidNameError: The text is no name; the error says which part is at fault.

        Spec:
            distribution/reference, "Grammar", and ``ParseNormalizedNamed``.
        """
        if not isinstance(unsafe_text, str):
            raise InvalidNameError(repr(unsafe_text)[:MAX_LENGTH], "it is no text")
        if len(unsafe_text) > MAX_LENGTH:
            raise InvalidNameError(unsafe_text[:MAX_LENGTH], f"it is longer than {MAX_LENGTH} characters")
        if _IDENTIFIER.fullmatch(unsafe_text):
            raise InvalidNameError(unsafe_text, "64 hexadecimal digits alone are an image ID")
        unsafe_name = _cut(unsafe_text)
        fault = next(_faults(unsafe_name), None)
        if fault is not None:
            raise InvalidNameError(unsafe_text, fault)
        return unsafe_name

    @property
    def normalized(self) -> str:
        """The name in full, ``docker.io/library/ubuntu``; no tag is added."""
        return self._with_suffix(f"{self.domain}/{self.path}" if self.domain else self.path)

    @property
    def familiar(self) -> str:
        """The name as Docker shows it, ``ubuntu``; no tag is added.

        Spec:
            distribution/reference, ``FamiliarString``.
        """
        if self.domain != DEFAULT_DOMAIN:
            return self.normalized
        official = self.path.removeprefix(OFFICIAL_PREFIX)
        return self._with_suffix(self.path if "/" in official else official)

    @property
    def key(self) -> str:
        """The one normal form, ``docker.io/library/ubuntu:latest``; equal keys mean one image."""
        return self.with_default_tag().normalized

    @property
    def stored(self) -> str:
        """The familiar form with its tag, ``ubuntu:latest``, or the key where that would name another image."""
        return _stored(self)

    @property
    def labelled(self) -> str:
        """``stored``, and the tag that a name has beside its digest: a label, by which no image is found."""
        return self.stored if self.digest is None else self._shortest()

    def with_default_tag(self) -> ImageName:
        """Return the name with exactly one of tag and digest: the digest if there is one, else a tag.

        Spec:
            distribution/reference, ``ParseDockerRef``.
        """
        if self.digest is not None:
            return self if self.tag is None else replace(self, tag=None)
        return self if self.tag is not None else replace(self, tag=DEFAULT_TAG)

    def _shortest(self) -> str:
        # Docker shows docker.io/localhost/app as localhost/app, which is an image of another registry.
        return self.familiar if self.parse_normalized(self.familiar) == self else self.normalized

    def _with_suffix(self, repository: str) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{repository}{tag}{digest}"


@lru_cache
def _stored(name: ImageName) -> str:
    # Asked for with each call, of the same few names, and parses the name again.
    return name.with_default_tag()._shortest()


def without_label(labelled: str) -> str:
    """Return the ``stored`` form of a name, given its ``labelled`` form."""
    repository, at, digest = labelled.partition("@")
    if not at:
        return labelled
    above, slash, last = repository.rpartition("/")
    return f"{above}{slash}{last.partition(':')[0]}@{digest}"


def _cut(unsafe_text: str) -> ImageName:
    """Cut a text into the parts of a name, of which none is checked yet."""
    unsafe_domain, unsafe_rest = _cut_domain(unsafe_text)
    unsafe_rest, at, unsafe_digest = unsafe_rest.partition("@")
    unsafe_path, colon, unsafe_tag = unsafe_rest.partition(":")
    if not _DOMAIN.fullmatch(unsafe_domain) and _PATH_PART.fullmatch(unsafe_domain):
        unsafe_domain, unsafe_path = "", f"{unsafe_domain}/{unsafe_path}"
    return ImageName(
        unsafe_domain,
        unsafe_path,
        unsafe_tag if colon else None,
        Digest(unsafe_digest) if at else None,
    )


def _cut_domain(unsafe_text: str) -> tuple[str, str]:
    unsafe_first, slash, unsafe_rest = unsafe_text.partition("/")
    if not slash or not _is_like_domain(unsafe_first):
        unsafe_first, unsafe_rest = DEFAULT_DOMAIN, unsafe_text
    if unsafe_first == LEGACY_DOMAIN:
        unsafe_first = DEFAULT_DOMAIN
    if unsafe_first == DEFAULT_DOMAIN and "/" not in unsafe_rest:
        unsafe_rest = OFFICIAL_PREFIX + unsafe_rest
    return unsafe_first, unsafe_rest


def _is_like_domain(unsafe_part: str) -> bool:
    return unsafe_part == "localhost" or "." in unsafe_part or ":" in unsafe_part or unsafe_part != unsafe_part.lower()


def _faults(unsafe_name: ImageName) -> Iterator[str]:
    yield from _domain_faults(unsafe_name.domain)
    yield from _path_faults(unsafe_name.path)
    if unsafe_name.tag is not None and not _TAG.fullmatch(unsafe_name.tag):
        yield (
            f"its tag {unsafe_name.tag!r} is not 1 to 128 letters, digits, '_', '.' and '-', "
            "the first of them a letter, a digit or '_'"
        )
    if unsafe_name.digest is not None:
        digest_fault = _find_digest_fault(unsafe_name.digest)
        if digest_fault is not None:
            yield digest_fault


def _domain_faults(unsafe_domain: str) -> Iterator[str]:
    if len(unsafe_domain) > MAX_DOMAIN_LENGTH:
        yield f"its registry has {len(unsafe_domain)} characters, more than {MAX_DOMAIN_LENGTH}"
    if unsafe_domain and not _DOMAIN.fullmatch(unsafe_domain):
        yield f"its registry {unsafe_domain!r} is no host name or address"


def _path_faults(unsafe_path: str) -> Iterator[str]:
    if len(unsafe_path) > MAX_PATH_LENGTH:
        yield f"its repository has {len(unsafe_path)} characters, more than {MAX_PATH_LENGTH}"
    if unsafe_path != unsafe_path.lower():
        yield f"its repository {unsafe_path!r} is not in lowercase"
    for unsafe_part in unsafe_path.split("/"):
        if not unsafe_part:
            yield "its repository has an empty part"
        elif not _PATH_PART.fullmatch(unsafe_part):
            yield (
                f"{unsafe_part!r} in its repository is not lowercase letters and digits "
                "with one '.', one or two '_' or any number of '-' in between"
            )


def _find_digest_fault(unsafe_digest: str) -> str | None:
    algorithm, _, encoded = unsafe_digest.partition(":")
    length = HEX_LENGTHS.get(algorithm)
    if length is None:
        return f"its digest's algorithm {algorithm!r} is not one of {', '.join(HEX_LENGTHS)}"
    if len(encoded) != length:
        return f"its digest has {len(encoded)} characters where {algorithm} has {length}"
    if not _HEX.fullmatch(encoded):
        return "its digest is not in lowercase hexadecimal"
    return None
