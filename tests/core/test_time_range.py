from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pykka_imagestore.core.time_range import TimeRange

SECOND = 10**9
EXT4 = TimeRange(-(1 << 31), 15_032_385_535, 1)
NTFS = TimeRange(-11_644_473_600, 910_692_730_085, 100)
XFS = TimeRange(-(1 << 31), (1 << 31) - 1, 1)
FAT = TimeRange(315_532_800, 4_354_819_198, 2 * SECOND)
TMPFS = TimeRange(-(1 << 63), (1 << 63) - 1, 1)
ranges = st.sampled_from([EXT4, NTFS, XFS, FAT, TMPFS, TimeRange(-1, 1 << 40, SECOND)])


def test_time_is_clamped_and_rounded_down():
    assert EXT4.kept(1 << 90) == EXT4.latest * SECOND
    assert EXT4.kept(-(1 << 90)) == EXT4.earliest * SECOND
    assert EXT4.kept(-1) == -1
    assert XFS.kept((1 << 31) * SECOND - 1) == ((1 << 31) - 1) * SECOND
    assert NTFS.kept(1_234_567_899) == 1_234_567_800
    assert NTFS.kept(-1) == -100
    assert FAT.kept(1_000_000_001 * SECOND + 5) == 1_000_000_000 * SECOND


@given(ranges, st.integers(-(1 << 95), 1 << 95))
def test_what_is_kept_stays_as_it_is_and_lies_within_the_range(range_, time):
    kept = range_.kept(time)

    assert range_.kept(kept) == kept
    assert range_.earliest * SECOND <= kept <= range_.latest * SECOND
