"""Why a command ended without success: stable words that the operator copies into a condition."""

from enum import StrEnum

__all__ = ["Reason"]


class Reason(StrEnum):
    """One word per cause. Refusals (exit 2) and infrastructure (exit 1) share the list; a word is never reused."""

    # command line
    INVALID_USAGE = "InvalidUsage"
    INVALID_OPTION = "InvalidOption"
    NOT_SUPPORTED_YET = "NotSupportedYet"
    # sources
    INVALID_SOURCE = "InvalidSource"
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_NOT_READABLE = "SourceNotReadable"
    SYMLINK_ESCAPES = "SymlinkEscapes"
    NOT_A_REGULAR_FILE = "NotARegularFile"
    PICKLES_ONLY = "PicklesOnly"
    DIGEST_MISMATCH = "DigestMismatch"
    INVALID_MANIFEST = "InvalidManifest"
    # checkpoints
    NO_WEIGHTS = "NoWeights"
    AMBIGUOUS_WEIGHTS = "AmbiguousWeights"
    TRUNCATED_FILE = "TruncatedFile"
    MALFORMED_HEADER = "MalformedHeader"
    UNKNOWN_DTYPE = "UnknownDtype"
    MALFORMED_INDEX = "MalformedIndex"
    MISSING_SHARD = "MissingShard"
    MALFORMED_CONFIG = "MalformedConfig"
    QUANTIZED_BASE = "QuantizedBase"
    REMOTE_CODE = "RemoteCode"
    # adapters
    MALFORMED_ADAPTER_CONFIG = "MalformedAdapterConfig"
    UNSUPPORTED_ADAPTER = "UnsupportedAdapter"
    MALFORMED_ADAPTER = "MalformedAdapter"
    RANK_MISMATCH = "RankMismatch"
    INVALID_ALPHA = "InvalidAlpha"
    UNMATCHED_KEYS = "UnmatchedKeys"
    DUPLICATE_TARGET = "DuplicateTarget"
    NOT_FINITE = "NotFinite"
    WRONG_BASE = "WrongBase"
    SHAPE_MISMATCH = "ShapeMismatch"
    MISSING_BIAS = "MissingBias"
    TOKEN_INDEX = "TokenIndex"  # noqa: S105 (a vocabulary's token, not a secret)
    CONFLICTING_ADAPTERS = "ConflictingAdapters"
    DELTA_LOST = "DeltaLost"
    VOCABULARY_MISMATCH = "VocabularyMismatch"
    CHAT_TEMPLATE_CHANGED = "ChatTemplateChanged"
    # output
    OUTPUT_NOT_EMPTY = "OutputNotEmpty"
    OUTPUT_INSIDE_SOURCE = "OutputInsideSource"
    VERIFICATION_FAILED = "VerificationFailed"
    # infrastructure
    NO_SPACE = "NoSpace"
    SOURCE_CHANGED = "SourceChanged"
    LOCKED = "Locked"
    NOT_WRITABLE = "NotWritable"
    OPERATING_SYSTEM = "OperatingSystem"
    INTERNAL = "Internal"
    TERMINATED = "Terminated"
