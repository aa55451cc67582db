"""Platforms, ``os/architecture[/variant]``: what an image runs on, and which of several suits best. Pure.

Spec:
    OCI image-spec v1.1 image-index.md, "Image Index Property Descriptions" (platform), "Platform Variants".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self, TypeGuard

from pykka_imagestore.errors import InvalidInputError

_PART = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# What `uname -m` and people say, and what images say: architecture and variant.
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "loongarch64": ("loong64", ""),
}
_ARM = re.compile(r"arm(v[5-8])[a-z]*")  # armv7l, armv5tejl
# What is meant where no variant is named.
_DEFAULT_VARIANTS = {"arm": "v7", "arm64": "v8", "amd64": "v1"}
_VERSION = re.compile(r"v([0-9]{1,3})(?:\.([0-9]{1,3}))?")


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on, in the words that images use.

    Equal platforms have equal parts: an implied variant (v8 of arm64, v7 of arm, v1 of amd64) is filled in.
    """

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, unsafe_text: str) -> Self:
        """Parse a platform as a user types it, ``linux/arm64`` or ``linux/arm/v6``.

        Raises:
            InvalidInputError: The text is no platform.
        """
        parts = unsafe_text.split("/")
        if len(parts) not in (2, 3) or not all(map(_is_part, parts)):
            raise InvalidInputError(
                f"{unsafe_text[:100]!r} is no platform: it should be os/architecture or os/architecture/variant, "
                "such as linux/arm64 or linux/arm/v7"
            )
        return cls.normalized(*parts)

    @classmethod
    def of_machine(cls, system: str, machine: str) -> Self:
        """Return the platform of a machine, by what ``uname`` says of it."""
        return cls.normalized(system, machine)

    @classmethod
    def from_fields(cls, document: object) -> Self | None:
        """Return the platform that a JSON object names; None if it names none."""
        if not isinstance(document, dict):
            return None
        system, architecture, variant = (document.get(field) for field in ("os", "architecture", "variant"))
        if not _is_part(system) or not _is_part(architecture):
            return None
        return cls.normalized(system, architecture, variant if _is_part(variant) else "")

    @classmethod
    def normalized(cls, system: str, architecture: str, variant: str = "") -> Self:
        """Return a platform in the words that images use."""
        architecture, variant = architecture.lower(), variant.lower()
        arm = _ARM.fullmatch(architecture)
        architecture, meant = ("arm", arm[1]) if arm else _ARCHITECTURES.get(architecture, (architecture, ""))
        variant = variant or meant
        if variant[:1].isdigit():
            variant = f"v{variant}"
        variant = variant.removesuffix(".0") or _DEFAULT_VARIANTS.get(architecture, "")
        return cls(system.lower(), architecture, variant)

    @property
    def is_unknown(self) -> bool:
        """Whether it says ``unknown/unknown``, as attestations do, which are no images."""
        return self.os == self.architecture == "unknown"

    def suits(self, wanted: Platform) -> bool:
        """Tell whether what is made for this platform runs on ``wanted``: the same one, or an older variant of it."""
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return False
        ours, theirs = _version(self.variant), _version(wanted.variant)
        return self.variant == wanted.variant or (ours is not None and theirs is not None and ours <= theirs)

    @property
    def age(self) -> tuple[int, int]:
        """The order among platforms that suit one machine: the greatest suits best."""
        return _version(self.variant) or (0, 0)

    def __str__(self) -> str:
        implied = self.variant == _DEFAULT_VARIANTS.get(self.architecture, "") and self.architecture != "arm"
        return "/".join([self.os, self.architecture, *([] if implied or not self.variant else [self.variant])])


@dataclass(frozen=True, slots=True)
class WantedPlatform:
    """The platform to choose images for.

    Attributes:
        platform: Which.
        is_asked: Whether the caller asked for it. Otherwise it is this machine's, and only a preference: an image that
            is the only choice is taken.
    """

    platform: Platform
    is_asked: bool

    def allows(self, platform: Platform | None) -> bool:
        """Tell whether an image that is the only choice may be taken; one that names no platform always may."""
        return platform is None or not self.is_asked or platform.suits(self.platform)


def _is_part(unsafe_value: object) -> TypeGuard[str]:
    return isinstance(unsafe_value, str) and _PART.fullmatch(unsafe_value) is not None


def _version(variant: str) -> tuple[int, int] | None:
    found = _VERSION.fullmatch(variant)
    return None if found is None else (int(found[1]), int(found[2] or 0))
