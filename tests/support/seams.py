"""What tests replace inside the package, each by its one name.

Only what no argument, environment variable, disk, executor or host of a task leads to. A name goes to
``monkeypatch.setattr`` or ``unittest.mock.patch``. ``tests/architecture/test_seams.py`` sees that each is there.
"""

from __future__ import annotations

_PACKAGE = "pykka_imagestore"
_DURABLE, _JOBS, _RUNTIME = f"{_PACKAGE}.durable", f"{_PACKAGE}.jobs", f"{_PACKAGE}.runtime"

# -- limits that tests lower, or what they bound would take minutes

SMALL_JOURNAL_BYTES = f"{_DURABLE}.journal_writer.SMALL_JOURNAL_BYTES"
RATIO_COUNTS_FROM = f"{_JOBS}.unpack.limiter.RATIO_COUNTS_FROM"
LOOK_EVERY = f"{_JOBS}.unpack.limiter._LOOK_EVERY"
CHOOSE_WHITEOUT_FORMAT = f"{_JOBS}.unpack.whiteout_writer.choose_whiteout_format"
FREE_LOOKUPS = f"{_JOBS}.unpack.tree.FREE_LOOKUPS"
FREE_LOOKUPS_OF_A_CHECK = f"{_JOBS}.check.deep_check.FREE_LOOKUPS"
FREE_PAX_RECORDS = f"{_PACKAGE}.core.tar.pax._FREE_RECORDS"
SAMPLES_BYTES = f"{_JOBS}.archive.estimates._ALL_BYTES"
MARKS_BYTES = f"{_JOBS}.check.directory_marks._MAX_BYTES"
LINKS_TO_REPLACED_BYTES = f"{_JOBS}.check.hard_links._MAX_BYTES"
REPLACED_FILES = f"{_JOBS}.unpack.replaced.MAX_REPLACED"
REPLACED_PATHS_BYTES = f"{_JOBS}.unpack.replaced.MAX_PATHS_BYTES"
HIDDEN_FILES = f"{_JOBS}.unpack.hidden_files.MAX_HIDDEN"
HIDDEN_PATHS_BYTES = f"{_JOBS}.unpack.hidden_files.MAX_HIDDEN_PATH_BYTES"
ENTRIES_OF_A_PIECE = f"{_PACKAGE}.rootfs.fill._PIECE"
SEGMENTS_OF_AN_EXPORT = f"{_PACKAGE}.rootfs.tar_export.MAX_SEGMENTS"
NAMES_OF_AN_EXPORT = f"{_PACKAGE}.rootfs.tar_export._MAX_NAMES_BYTES"
REPORT_INTERVAL = f"{_JOBS}.unpack.ticker._REPORT_INTERVAL"
THREAD_IDLE_SECONDS = f"{_RUNTIME}.thread_pool.IDLE_SECONDS"
WORKER_IDLE_SECONDS = f"{_RUNTIME}.worker_handle.IDLE_SECONDS"

# -- moments at which something else happens

FIND_MISSING = f"{_DURABLE}.references.find_missing"
READ_RECORD = f"{_DURABLE}.layer_record.read_record"
READ_CHECKPOINT = f"{_DURABLE}.replica.read_checkpoint"
PARSE_JOURNAL_HEADER = f"{_DURABLE}.journal_file.parse_header"
FOLLOW_JOURNAL = f"{_DURABLE}.replica.Replica.follow"
SETTLE_REFERENCES = f"{_DURABLE}.references.References.settle"
LOCK_JOURNAL = f"{_DURABLE}.references.acquire"
LOCK_LEASE = f"{_DURABLE}.leases.acquire"
SEE_LEASE_LOCKED = f"{_DURABLE}.leases.is_locked"
FIND_MISSING_OF_CONTAINER = f"{_PACKAGE}.provision.making.find_missing"
READ_CONTAINER_TO_REMOVE = f"{_PACKAGE}.provision.removing.read_container"
READ_CONTAINER_TO_RECOVER = f"{_PACKAGE}.provision.recovering.read_container"
FIND_NEEDS = f"{_DURABLE}.remover.find_needs"
OPEN_LOCK = f"{_DURABLE}.locks.open_file"
REMOVE_STAGING = f"{_PACKAGE}.staging.remove_staging"
EXTRACT = f"{_JOBS}.unpack.extractor.Extractor.extract"
LEADER = f"{_JOBS}.unpack.one_pass.Leader"
CHECK_BLOB = f"{_JOBS}.unpack.one_pass._check_blob"
LINK_FILE = f"{_PACKAGE}.fs.attributes.Attributes.link"
COPYING_STEPS = (
    f"{_PACKAGE}.fs.attributes.Attributes.create_file",
    f"{_PACKAGE}.fs.attributes.Attributes.finish_file",
    f"{_PACKAGE}.fs.attributes.Attributes.finish_node",
    f"{_PACKAGE}.fs.attributes.Attributes.link",
    f"{_PACKAGE}.rootfs.copies.Copies.make_directory",
    f"{_PACKAGE}.rootfs.copies.Copies.finish_directory",
)
CHECK_STEPS = (
    f"{_JOBS}.check.shallow_check._check_record",
    f"{_JOBS}.check.shallow_check._check_part",
    f"{_JOBS}.check_layer.check_deeply",
)

# -- calls that fail

APPEND_TO_JOURNAL = f"{_DURABLE}.journal_file._write_at"
WRITE_LEASE = f"{_DURABLE}.locks.FileLock.write"
READ_MARKER = f"{_DURABLE}.marker.read_file"
SYNCFS = f"{_DURABLE}.disk._syncfs"
WATCH_LEASES = f"{_DURABLE}.lease_watch._watch"
LEASE_IMAGE = f"{_PACKAGE}.lease_taker.lease_image"
WAIT_FOR_FUTURE = f"{_RUNTIME}.future.Future.get"
REQUIRE_SPACE = f"{_PACKAGE}.tasks.require_space"
MOUNT_NUMBER = f"{_PACKAGE}.rootfs.place.mount_number"
BOOT_ID = f"{_PACKAGE}.provision.making.boot_id"
UID_MAP = f"{_JOBS}.unpack.limiter._UID_MAP"

# -- a kernel that has what many are built without, and chance

CALL_ON_QUOTAS = f"{_PACKAGE}.rootfs.quota.call"
RANDOM_PROJECT = f"{_PACKAGE}.rootfs.quota._random_below"

# -- work that is counted

HASH_LAYER = f"{_PACKAGE}.tasks.hash_layer"
HASHER = f"{_JOBS}.unpack.layer_stream.hasher"
ESTIMATE_ENTRIES = f"{_JOBS}.archive.estimates._entries"
READ_SAMPLE = f"{_JOBS}.archive.estimates.read_some"
