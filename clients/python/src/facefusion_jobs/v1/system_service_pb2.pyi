import datetime

from facefusion_jobs.v1 import job_pb2 as _job_pb2
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

class OptionType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPTION_TYPE_UNSPECIFIED: _ClassVar[OptionType]
    OPTION_TYPE_BOOLEAN: _ClassVar[OptionType]
    OPTION_TYPE_INTEGER: _ClassVar[OptionType]
    OPTION_TYPE_NUMBER: _ClassVar[OptionType]
    OPTION_TYPE_STRING: _ClassVar[OptionType]

class WorkerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKER_STATE_UNSPECIFIED: _ClassVar[WorkerState]
    WORKER_STATE_STARTING: _ClassVar[WorkerState]
    WORKER_STATE_IDLE: _ClassVar[WorkerState]
    WORKER_STATE_BUSY: _ClassVar[WorkerState]
    WORKER_STATE_STOPPING: _ClassVar[WorkerState]
    WORKER_STATE_BACKING_OFF: _ClassVar[WorkerState]
    WORKER_STATE_CLOSED: _ClassVar[WorkerState]
OPTION_TYPE_UNSPECIFIED: OptionType
OPTION_TYPE_BOOLEAN: OptionType
OPTION_TYPE_INTEGER: OptionType
OPTION_TYPE_NUMBER: OptionType
OPTION_TYPE_STRING: OptionType
WORKER_STATE_UNSPECIFIED: WorkerState
WORKER_STATE_STARTING: WorkerState
WORKER_STATE_IDLE: WorkerState
WORKER_STATE_BUSY: WorkerState
WORKER_STATE_STOPPING: WorkerState
WORKER_STATE_BACKING_OFF: WorkerState
WORKER_STATE_CLOSED: WorkerState

class GetCapabilitiesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCapabilitiesResponse(_message.Message):
    __slots__ = ("service_version", "engine", "processors", "options", "aliases", "ignored_options", "image_formats", "video_formats", "reference_schemes", "parameters_schema")
    class Alias(_message.Message):
        __slots__ = ("name", "options", "help")
        NAME_FIELD_NUMBER: _ClassVar[int]
        OPTIONS_FIELD_NUMBER: _ClassVar[int]
        HELP_FIELD_NUMBER: _ClassVar[int]
        name: str
        options: _containers.RepeatedScalarFieldContainer[str]
        help: str
        def __init__(self, name: _Optional[str] = ..., options: _Optional[_Iterable[str]] = ..., help: _Optional[str] = ...) -> None: ...
    SERVICE_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    PROCESSORS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    IGNORED_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FORMATS_FIELD_NUMBER: _ClassVar[int]
    VIDEO_FORMATS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_SCHEMES_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    service_version: str
    engine: _job_pb2.EngineInfo
    processors: _containers.RepeatedCompositeFieldContainer[Processor]
    options: _containers.RepeatedCompositeFieldContainer[Option]
    aliases: _containers.RepeatedCompositeFieldContainer[GetCapabilitiesResponse.Alias]
    ignored_options: _containers.RepeatedScalarFieldContainer[str]
    image_formats: _containers.RepeatedScalarFieldContainer[str]
    video_formats: _containers.RepeatedScalarFieldContainer[str]
    reference_schemes: _containers.RepeatedScalarFieldContainer[str]
    parameters_schema: _struct_pb2.Struct
    def __init__(self, service_version: _Optional[str] = ..., engine: _Optional[_Union[_job_pb2.EngineInfo, _Mapping]] = ..., processors: _Optional[_Iterable[_Union[Processor, _Mapping]]] = ..., options: _Optional[_Iterable[_Union[Option, _Mapping]]] = ..., aliases: _Optional[_Iterable[_Union[GetCapabilitiesResponse.Alias, _Mapping]]] = ..., ignored_options: _Optional[_Iterable[str]] = ..., image_formats: _Optional[_Iterable[str]] = ..., video_formats: _Optional[_Iterable[str]] = ..., reference_schemes: _Optional[_Iterable[str]] = ..., parameters_schema: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Processor(_message.Message):
    __slots__ = ("name", "description", "needs_source_image", "needs_source_audio")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    NEEDS_SOURCE_IMAGE_FIELD_NUMBER: _ClassVar[int]
    NEEDS_SOURCE_AUDIO_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    needs_source_image: bool
    needs_source_audio: bool
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., needs_source_image: bool = ..., needs_source_audio: bool = ...) -> None: ...

class Option(_message.Message):
    __slots__ = ("name", "type", "list", "choices", "minimum", "maximum", "default", "help", "processor", "dependent_choices")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    HELP_FIELD_NUMBER: _ClassVar[int]
    PROCESSOR_FIELD_NUMBER: _ClassVar[int]
    DEPENDENT_CHOICES_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: OptionType
    list: bool
    choices: _containers.RepeatedScalarFieldContainer[str]
    minimum: float
    maximum: float
    default: _struct_pb2.Value
    help: str
    processor: str
    dependent_choices: _containers.RepeatedCompositeFieldContainer[DependentChoices]
    def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[OptionType, str]] = ..., list: bool = ..., choices: _Optional[_Iterable[str]] = ..., minimum: _Optional[float] = ..., maximum: _Optional[float] = ..., default: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., help: _Optional[str] = ..., processor: _Optional[str] = ..., dependent_choices: _Optional[_Iterable[_Union[DependentChoices, _Mapping]]] = ...) -> None: ...

class DependentChoices(_message.Message):
    __slots__ = ("option", "value", "choices")
    OPTION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    option: str
    value: str
    choices: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, option: _Optional[str] = ..., value: _Optional[str] = ..., choices: _Optional[_Iterable[str]] = ...) -> None: ...

class ListSlotsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSlotsResponse(_message.Message):
    __slots__ = ("slots", "nodes")
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    slots: _containers.RepeatedCompositeFieldContainer[Slot]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    def __init__(self, slots: _Optional[_Iterable[_Union[Slot, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("node", "gpus", "gpu_driver", "disk_free_bytes", "away", "drain")
    class Gpu(_message.Message):
        __slots__ = ("index", "name", "memory_bytes", "memory_used_bytes", "utilization")
        INDEX_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
        MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
        UTILIZATION_FIELD_NUMBER: _ClassVar[int]
        index: int
        name: str
        memory_bytes: int
        memory_used_bytes: int
        utilization: float
        def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., memory_used_bytes: _Optional[int] = ..., utilization: _Optional[float] = ...) -> None: ...
    NODE_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    GPU_DRIVER_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    AWAY_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    node: str
    gpus: _containers.RepeatedCompositeFieldContainer[Node.Gpu]
    gpu_driver: str
    disk_free_bytes: int
    away: bool
    drain: Slot.Drain
    def __init__(self, node: _Optional[str] = ..., gpus: _Optional[_Iterable[_Union[Node.Gpu, _Mapping]]] = ..., gpu_driver: _Optional[str] = ..., disk_free_bytes: _Optional[int] = ..., away: bool = ..., drain: _Optional[_Union[Slot.Drain, _Mapping]] = ...) -> None: ...

class Slot(_message.Message):
    __slots__ = ("slot", "node", "gpu", "state", "engine", "warm_models", "job_id", "draining", "jobs_done", "restarts", "pid", "memory_bytes", "gpu_utilization", "since", "problem", "up_since", "next_start_at", "drain")
    class Drain(_message.Message):
        __slots__ = ("by", "at", "reason", "whole_node")
        BY_FIELD_NUMBER: _ClassVar[int]
        AT_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        WHOLE_NODE_FIELD_NUMBER: _ClassVar[int]
        by: str
        at: _timestamp_pb2.Timestamp
        reason: str
        whole_node: bool
        def __init__(self, by: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ..., whole_node: bool = ...) -> None: ...
    SLOT_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    WARM_MODELS_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    JOBS_DONE_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    UP_SINCE_FIELD_NUMBER: _ClassVar[int]
    NEXT_START_AT_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    slot: str
    node: str
    gpu: int
    state: WorkerState
    engine: _job_pb2.EngineInfo
    warm_models: _containers.RepeatedScalarFieldContainer[str]
    job_id: str
    draining: bool
    jobs_done: int
    restarts: int
    pid: int
    memory_bytes: int
    gpu_utilization: float
    since: _timestamp_pb2.Timestamp
    problem: str
    up_since: _timestamp_pb2.Timestamp
    next_start_at: _timestamp_pb2.Timestamp
    drain: Slot.Drain
    def __init__(self, slot: _Optional[str] = ..., node: _Optional[str] = ..., gpu: _Optional[int] = ..., state: _Optional[_Union[WorkerState, str]] = ..., engine: _Optional[_Union[_job_pb2.EngineInfo, _Mapping]] = ..., warm_models: _Optional[_Iterable[str]] = ..., job_id: _Optional[str] = ..., draining: bool = ..., jobs_done: _Optional[int] = ..., restarts: _Optional[int] = ..., pid: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., gpu_utilization: _Optional[float] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., problem: _Optional[str] = ..., up_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., next_start_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., drain: _Optional[_Union[Slot.Drain, _Mapping]] = ...) -> None: ...

class DrainSlotsRequest(_message.Message):
    __slots__ = ("node", "slot", "reason")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    node: str
    slot: str
    reason: str
    def __init__(self, node: _Optional[str] = ..., slot: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class DrainSlotsResponse(_message.Message):
    __slots__ = ("slots",)
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    slots: _containers.RepeatedCompositeFieldContainer[Slot]
    def __init__(self, slots: _Optional[_Iterable[_Union[Slot, _Mapping]]] = ...) -> None: ...

class RestoreSlotsRequest(_message.Message):
    __slots__ = ("node", "slot")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    node: str
    slot: str
    def __init__(self, node: _Optional[str] = ..., slot: _Optional[str] = ...) -> None: ...

class RestoreSlotsResponse(_message.Message):
    __slots__ = ("slots",)
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    slots: _containers.RepeatedCompositeFieldContainer[Slot]
    def __init__(self, slots: _Optional[_Iterable[_Union[Slot, _Mapping]]] = ...) -> None: ...

class GetOverviewRequest(_message.Message):
    __slots__ = ("window",)
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    window: _duration_pb2.Duration
    def __init__(self, window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetOverviewResponse(_message.Message):
    __slots__ = ("totals", "queue_by_tenant", "throughput", "slots", "slots_busy", "watchers", "pace", "recent_runs")
    class Totals(_message.Message):
        __slots__ = ("queued", "processing", "succeeded", "failed", "canceled", "refused")
        QUEUED_FIELD_NUMBER: _ClassVar[int]
        PROCESSING_FIELD_NUMBER: _ClassVar[int]
        SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
        FAILED_FIELD_NUMBER: _ClassVar[int]
        CANCELED_FIELD_NUMBER: _ClassVar[int]
        REFUSED_FIELD_NUMBER: _ClassVar[int]
        queued: int
        processing: int
        succeeded: int
        failed: int
        canceled: int
        refused: int
        def __init__(self, queued: _Optional[int] = ..., processing: _Optional[int] = ..., succeeded: _Optional[int] = ..., failed: _Optional[int] = ..., canceled: _Optional[int] = ..., refused: _Optional[int] = ...) -> None: ...
    class TenantQueue(_message.Message):
        __slots__ = ("tenant", "queued", "processing", "oldest_queued_at")
        TENANT_FIELD_NUMBER: _ClassVar[int]
        QUEUED_FIELD_NUMBER: _ClassVar[int]
        PROCESSING_FIELD_NUMBER: _ClassVar[int]
        OLDEST_QUEUED_AT_FIELD_NUMBER: _ClassVar[int]
        tenant: str
        queued: int
        processing: int
        oldest_queued_at: _timestamp_pb2.Timestamp
        def __init__(self, tenant: _Optional[str] = ..., queued: _Optional[int] = ..., processing: _Optional[int] = ..., oldest_queued_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
    class RecentRuns(_message.Message):
        __slots__ = ("jobs", "median_wait", "wait_p95", "median_run")
        JOBS_FIELD_NUMBER: _ClassVar[int]
        MEDIAN_WAIT_FIELD_NUMBER: _ClassVar[int]
        WAIT_P95_FIELD_NUMBER: _ClassVar[int]
        MEDIAN_RUN_FIELD_NUMBER: _ClassVar[int]
        jobs: int
        median_wait: _duration_pb2.Duration
        wait_p95: _duration_pb2.Duration
        median_run: _duration_pb2.Duration
        def __init__(self, jobs: _Optional[int] = ..., median_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., wait_p95: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., median_run: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
    class Throughput(_message.Message):
        __slots__ = ("time", "seconds", "succeeded", "failed", "canceled", "refused")
        TIME_FIELD_NUMBER: _ClassVar[int]
        SECONDS_FIELD_NUMBER: _ClassVar[int]
        SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
        FAILED_FIELD_NUMBER: _ClassVar[int]
        CANCELED_FIELD_NUMBER: _ClassVar[int]
        REFUSED_FIELD_NUMBER: _ClassVar[int]
        time: _timestamp_pb2.Timestamp
        seconds: int
        succeeded: int
        failed: int
        canceled: int
        refused: int
        def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., seconds: _Optional[int] = ..., succeeded: _Optional[int] = ..., failed: _Optional[int] = ..., canceled: _Optional[int] = ..., refused: _Optional[int] = ...) -> None: ...
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_BY_TENANT_FIELD_NUMBER: _ClassVar[int]
    THROUGHPUT_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_BUSY_FIELD_NUMBER: _ClassVar[int]
    WATCHERS_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    RECENT_RUNS_FIELD_NUMBER: _ClassVar[int]
    totals: GetOverviewResponse.Totals
    queue_by_tenant: _containers.RepeatedCompositeFieldContainer[GetOverviewResponse.TenantQueue]
    throughput: _containers.RepeatedCompositeFieldContainer[GetOverviewResponse.Throughput]
    slots: int
    slots_busy: int
    watchers: int
    pace: _duration_pb2.Duration
    recent_runs: GetOverviewResponse.RecentRuns
    def __init__(self, totals: _Optional[_Union[GetOverviewResponse.Totals, _Mapping]] = ..., queue_by_tenant: _Optional[_Iterable[_Union[GetOverviewResponse.TenantQueue, _Mapping]]] = ..., throughput: _Optional[_Iterable[_Union[GetOverviewResponse.Throughput, _Mapping]]] = ..., slots: _Optional[int] = ..., slots_busy: _Optional[int] = ..., watchers: _Optional[int] = ..., pace: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., recent_runs: _Optional[_Union[GetOverviewResponse.RecentRuns, _Mapping]] = ...) -> None: ...
