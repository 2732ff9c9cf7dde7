import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CachePolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CACHE_POLICY_UNSPECIFIED: _ClassVar[CachePolicy]
    CACHE_POLICY_USE: _ClassVar[CachePolicy]
    CACHE_POLICY_REFRESH: _ClassVar[CachePolicy]
    CACHE_POLICY_OFF: _ClassVar[CachePolicy]

class JobStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATUS_UNSPECIFIED: _ClassVar[JobStatus]
    JOB_STATUS_QUEUED: _ClassVar[JobStatus]
    JOB_STATUS_PROCESSING: _ClassVar[JobStatus]
    JOB_STATUS_SUCCEEDED: _ClassVar[JobStatus]
    JOB_STATUS_FAILED: _ClassVar[JobStatus]
    JOB_STATUS_CANCELED: _ClassVar[JobStatus]
    JOB_STATUS_REFUSED: _ClassVar[JobStatus]

class JobStep(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STEP_UNSPECIFIED: _ClassVar[JobStep]
    JOB_STEP_QUEUED: _ClassVar[JobStep]
    JOB_STEP_FETCHING_INPUTS: _ClassVar[JobStep]
    JOB_STEP_LOADING_MODELS: _ClassVar[JobStep]
    JOB_STEP_ANALYSING: _ClassVar[JobStep]
    JOB_STEP_EXTRACTING_FRAMES: _ClassVar[JobStep]
    JOB_STEP_PROCESSING: _ClassVar[JobStep]
    JOB_STEP_ENCODING_OUTPUT: _ClassVar[JobStep]
    JOB_STEP_RESTORING_AUDIO: _ClassVar[JobStep]
    JOB_STEP_STORING_RESULT: _ClassVar[JobStep]
    JOB_STEP_DONE: _ClassVar[JobStep]

class WaitReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WAIT_REASON_UNSPECIFIED: _ClassVar[WaitReason]
    WAIT_REASON_SLOT: _ClassVar[WaitReason]
    WAIT_REASON_QUOTA: _ClassVar[WaitReason]
    WAIT_REASON_MODEL_LOADING: _ClassVar[WaitReason]
    WAIT_REASON_ANOTHER_JOB: _ClassVar[WaitReason]
    WAIT_REASON_RETRY: _ClassVar[WaitReason]

class ProvenanceMark(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROVENANCE_MARK_UNSPECIFIED: _ClassVar[ProvenanceMark]
    PROVENANCE_MARK_EMBEDDED: _ClassVar[ProvenanceMark]
    PROVENANCE_MARK_SIDECAR: _ClassVar[ProvenanceMark]
CACHE_POLICY_UNSPECIFIED: CachePolicy
CACHE_POLICY_USE: CachePolicy
CACHE_POLICY_REFRESH: CachePolicy
CACHE_POLICY_OFF: CachePolicy
JOB_STATUS_UNSPECIFIED: JobStatus
JOB_STATUS_QUEUED: JobStatus
JOB_STATUS_PROCESSING: JobStatus
JOB_STATUS_SUCCEEDED: JobStatus
JOB_STATUS_FAILED: JobStatus
JOB_STATUS_CANCELED: JobStatus
JOB_STATUS_REFUSED: JobStatus
JOB_STEP_UNSPECIFIED: JobStep
JOB_STEP_QUEUED: JobStep
JOB_STEP_FETCHING_INPUTS: JobStep
JOB_STEP_LOADING_MODELS: JobStep
JOB_STEP_ANALYSING: JobStep
JOB_STEP_EXTRACTING_FRAMES: JobStep
JOB_STEP_PROCESSING: JobStep
JOB_STEP_ENCODING_OUTPUT: JobStep
JOB_STEP_RESTORING_AUDIO: JobStep
JOB_STEP_STORING_RESULT: JobStep
JOB_STEP_DONE: JobStep
WAIT_REASON_UNSPECIFIED: WaitReason
WAIT_REASON_SLOT: WaitReason
WAIT_REASON_QUOTA: WaitReason
WAIT_REASON_MODEL_LOADING: WaitReason
WAIT_REASON_ANOTHER_JOB: WaitReason
WAIT_REASON_RETRY: WaitReason
PROVENANCE_MARK_UNSPECIFIED: ProvenanceMark
PROVENANCE_MARK_EMBEDDED: ProvenanceMark
PROVENANCE_MARK_SIDECAR: ProvenanceMark

class JobRequest(_message.Message):
    __slots__ = ("source_images", "source_audio", "target_video", "target_image", "output_format", "output_uri", "parameters", "engine", "priority", "labels", "idempotency_key", "start_timeout", "run_timeout", "max_attempts", "cache", "retention", "webhook", "previews", "attestation")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SOURCE_IMAGES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_AUDIO_FIELD_NUMBER: _ClassVar[int]
    TARGET_VIDEO_FIELD_NUMBER: _ClassVar[int]
    TARGET_IMAGE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_URI_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    START_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    RUN_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    WEBHOOK_FIELD_NUMBER: _ClassVar[int]
    PREVIEWS_FIELD_NUMBER: _ClassVar[int]
    ATTESTATION_FIELD_NUMBER: _ClassVar[int]
    source_images: _containers.RepeatedScalarFieldContainer[str]
    source_audio: str
    target_video: str
    target_image: str
    output_format: str
    output_uri: str
    parameters: _struct_pb2.Struct
    engine: str
    priority: int
    labels: _containers.ScalarMap[str, str]
    idempotency_key: str
    start_timeout: _duration_pb2.Duration
    run_timeout: _duration_pb2.Duration
    max_attempts: int
    cache: CachePolicy
    retention: _duration_pb2.Duration
    webhook: Webhook
    previews: bool
    attestation: str
    def __init__(self, source_images: _Optional[_Iterable[str]] = ..., source_audio: _Optional[str] = ..., target_video: _Optional[str] = ..., target_image: _Optional[str] = ..., output_format: _Optional[str] = ..., output_uri: _Optional[str] = ..., parameters: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., engine: _Optional[str] = ..., priority: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., idempotency_key: _Optional[str] = ..., start_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., run_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_attempts: _Optional[int] = ..., cache: _Optional[_Union[CachePolicy, str]] = ..., retention: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., webhook: _Optional[_Union[Webhook, _Mapping]] = ..., previews: bool = ..., attestation: _Optional[str] = ...) -> None: ...

class Webhook(_message.Message):
    __slots__ = ("url", "statuses")
    URL_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    url: str
    statuses: _containers.RepeatedScalarFieldContainer[JobStatus]
    def __init__(self, url: _Optional[str] = ..., statuses: _Optional[_Iterable[_Union[JobStatus, str]]] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("job_id", "status", "progress", "step", "estimated_finish_time", "created_at", "updated_at", "result_url", "error_message", "error", "wait_reason", "queue_position", "attempt", "slot", "batch_id", "result", "warnings", "engine", "cached", "timings", "sequence", "started_at", "finished_at", "cancel_requested_at", "force_stop_at", "purged_at", "submitted_by", "request", "tenant", "result_expire_time", "provenance", "traceparent")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_FINISH_TIME_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    RESULT_URL_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    WAIT_REASON_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REQUESTED_AT_FIELD_NUMBER: _ClassVar[int]
    FORCE_STOP_AT_FIELD_NUMBER: _ClassVar[int]
    PURGED_AT_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_BY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    RESULT_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    status: JobStatus
    progress: int
    step: JobStep
    estimated_finish_time: _timestamp_pb2.Timestamp
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    result_url: str
    error_message: str
    error: JobError
    wait_reason: WaitReason
    queue_position: int
    attempt: int
    slot: str
    batch_id: str
    result: MediaResult
    warnings: _containers.RepeatedScalarFieldContainer[str]
    engine: EngineInfo
    cached: bool
    timings: Timings
    sequence: int
    started_at: _timestamp_pb2.Timestamp
    finished_at: _timestamp_pb2.Timestamp
    cancel_requested_at: _timestamp_pb2.Timestamp
    force_stop_at: _timestamp_pb2.Timestamp
    purged_at: _timestamp_pb2.Timestamp
    submitted_by: str
    request: JobRequest
    tenant: str
    result_expire_time: _timestamp_pb2.Timestamp
    provenance: Provenance
    traceparent: str
    def __init__(self, job_id: _Optional[str] = ..., status: _Optional[_Union[JobStatus, str]] = ..., progress: _Optional[int] = ..., step: _Optional[_Union[JobStep, str]] = ..., estimated_finish_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., result_url: _Optional[str] = ..., error_message: _Optional[str] = ..., error: _Optional[_Union[JobError, _Mapping]] = ..., wait_reason: _Optional[_Union[WaitReason, str]] = ..., queue_position: _Optional[int] = ..., attempt: _Optional[int] = ..., slot: _Optional[str] = ..., batch_id: _Optional[str] = ..., result: _Optional[_Union[MediaResult, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ..., engine: _Optional[_Union[EngineInfo, _Mapping]] = ..., cached: bool = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., sequence: _Optional[int] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., finished_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cancel_requested_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., force_stop_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., purged_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., submitted_by: _Optional[str] = ..., request: _Optional[_Union[JobRequest, _Mapping]] = ..., tenant: _Optional[str] = ..., result_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., traceparent: _Optional[str] = ...) -> None: ...

class JobState(_message.Message):
    __slots__ = ("job_id", "status", "progress", "step", "estimated_finish_time", "queue_position", "wait_reason", "attempt", "slot", "updated_at", "started_at", "finished_at", "cancel_requested_at", "force_stop_at", "error_message", "error", "result", "warnings", "cached", "sequence")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_FINISH_TIME_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    WAIT_REASON_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REQUESTED_AT_FIELD_NUMBER: _ClassVar[int]
    FORCE_STOP_AT_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    status: JobStatus
    progress: int
    step: JobStep
    estimated_finish_time: _timestamp_pb2.Timestamp
    queue_position: int
    wait_reason: WaitReason
    attempt: int
    slot: str
    updated_at: _timestamp_pb2.Timestamp
    started_at: _timestamp_pb2.Timestamp
    finished_at: _timestamp_pb2.Timestamp
    cancel_requested_at: _timestamp_pb2.Timestamp
    force_stop_at: _timestamp_pb2.Timestamp
    error_message: str
    error: JobError
    result: MediaResult
    warnings: _containers.RepeatedScalarFieldContainer[str]
    cached: bool
    sequence: int
    def __init__(self, job_id: _Optional[str] = ..., status: _Optional[_Union[JobStatus, str]] = ..., progress: _Optional[int] = ..., step: _Optional[_Union[JobStep, str]] = ..., estimated_finish_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., queue_position: _Optional[int] = ..., wait_reason: _Optional[_Union[WaitReason, str]] = ..., attempt: _Optional[int] = ..., slot: _Optional[str] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., finished_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cancel_requested_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., force_stop_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., error_message: _Optional[str] = ..., error: _Optional[_Union[JobError, _Mapping]] = ..., result: _Optional[_Union[MediaResult, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ..., cached: bool = ..., sequence: _Optional[int] = ...) -> None: ...

class JobError(_message.Message):
    __slots__ = ("reason", "message", "retryable")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    retryable: bool
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., retryable: bool = ...) -> None: ...

class MediaResult(_message.Message):
    __slots__ = ("media_type", "bytes", "sha256", "width", "height", "frames", "duration_seconds", "output_uri", "provenance")
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_URI_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    media_type: str
    bytes: int
    sha256: str
    width: int
    height: int
    frames: int
    duration_seconds: float
    output_uri: str
    provenance: Provenance
    def __init__(self, media_type: _Optional[str] = ..., bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., frames: _Optional[int] = ..., duration_seconds: _Optional[float] = ..., output_uri: _Optional[str] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("mark", "digital_source_type", "manifest", "signer", "issuer", "certificate_sha256", "certificate_expire_time", "signed_at", "timestamped", "validation_state", "ingredients", "xmp", "label", "sidecar")
    MARK_FIELD_NUMBER: _ClassVar[int]
    DIGITAL_SOURCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_SHA256_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    SIGNED_AT_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMPED_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_STATE_FIELD_NUMBER: _ClassVar[int]
    INGREDIENTS_FIELD_NUMBER: _ClassVar[int]
    XMP_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SIDECAR_FIELD_NUMBER: _ClassVar[int]
    mark: ProvenanceMark
    digital_source_type: str
    manifest: str
    signer: str
    issuer: str
    certificate_sha256: str
    certificate_expire_time: _timestamp_pb2.Timestamp
    signed_at: _timestamp_pb2.Timestamp
    timestamped: bool
    validation_state: str
    ingredients: _containers.RepeatedCompositeFieldContainer[ProvenanceIngredient]
    xmp: bool
    label: str
    sidecar: bytes
    def __init__(self, mark: _Optional[_Union[ProvenanceMark, str]] = ..., digital_source_type: _Optional[str] = ..., manifest: _Optional[str] = ..., signer: _Optional[str] = ..., issuer: _Optional[str] = ..., certificate_sha256: _Optional[str] = ..., certificate_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., signed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., timestamped: bool = ..., validation_state: _Optional[str] = ..., ingredients: _Optional[_Iterable[_Union[ProvenanceIngredient, _Mapping]]] = ..., xmp: bool = ..., label: _Optional[str] = ..., sidecar: _Optional[bytes] = ...) -> None: ...

class ProvenanceIngredient(_message.Message):
    __slots__ = ("title", "relationship", "media_type", "sha256")
    TITLE_FIELD_NUMBER: _ClassVar[int]
    RELATIONSHIP_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    title: str
    relationship: str
    media_type: str
    sha256: str
    def __init__(self, title: _Optional[str] = ..., relationship: _Optional[str] = ..., media_type: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class EngineInfo(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queued_seconds", "prepare_seconds", "run_seconds", "store_seconds", "gpu_seconds", "step_seconds")
    class StepSecondsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    QUEUED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PREPARE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RUN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STORE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    GPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    queued_seconds: float
    prepare_seconds: float
    run_seconds: float
    store_seconds: float
    gpu_seconds: float
    step_seconds: _containers.ScalarMap[str, float]
    def __init__(self, queued_seconds: _Optional[float] = ..., prepare_seconds: _Optional[float] = ..., run_seconds: _Optional[float] = ..., store_seconds: _Optional[float] = ..., gpu_seconds: _Optional[float] = ..., step_seconds: _Optional[_Mapping[str, float]] = ...) -> None: ...
