# Made by `npm run generate`.
import grpc
import grpc.aio

from facefusion_jobs.v1 import system_service_pb2

class SystemServiceStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    GetCapabilities: grpc.UnaryUnaryMultiCallable[system_service_pb2.GetCapabilitiesRequest, system_service_pb2.GetCapabilitiesResponse]
    ListSlots: grpc.UnaryUnaryMultiCallable[system_service_pb2.ListSlotsRequest, system_service_pb2.ListSlotsResponse]
    DrainSlots: grpc.UnaryUnaryMultiCallable[system_service_pb2.DrainSlotsRequest, system_service_pb2.DrainSlotsResponse]
    RestoreSlots: grpc.UnaryUnaryMultiCallable[system_service_pb2.RestoreSlotsRequest, system_service_pb2.RestoreSlotsResponse]
    GetOverview: grpc.UnaryUnaryMultiCallable[system_service_pb2.GetOverviewRequest, system_service_pb2.GetOverviewResponse]

class SystemServiceAsyncStub:
    GetCapabilities: grpc.aio.UnaryUnaryMultiCallable[system_service_pb2.GetCapabilitiesRequest, system_service_pb2.GetCapabilitiesResponse]
    ListSlots: grpc.aio.UnaryUnaryMultiCallable[system_service_pb2.ListSlotsRequest, system_service_pb2.ListSlotsResponse]
    DrainSlots: grpc.aio.UnaryUnaryMultiCallable[system_service_pb2.DrainSlotsRequest, system_service_pb2.DrainSlotsResponse]
    RestoreSlots: grpc.aio.UnaryUnaryMultiCallable[system_service_pb2.RestoreSlotsRequest, system_service_pb2.RestoreSlotsResponse]
    GetOverview: grpc.aio.UnaryUnaryMultiCallable[system_service_pb2.GetOverviewRequest, system_service_pb2.GetOverviewResponse]

class SystemServiceServicer:
    def GetCapabilities(self, request: system_service_pb2.GetCapabilitiesRequest, context: grpc.ServicerContext) -> system_service_pb2.GetCapabilitiesResponse: ...
    def ListSlots(self, request: system_service_pb2.ListSlotsRequest, context: grpc.ServicerContext) -> system_service_pb2.ListSlotsResponse: ...
    def DrainSlots(self, request: system_service_pb2.DrainSlotsRequest, context: grpc.ServicerContext) -> system_service_pb2.DrainSlotsResponse: ...
    def RestoreSlots(self, request: system_service_pb2.RestoreSlotsRequest, context: grpc.ServicerContext) -> system_service_pb2.RestoreSlotsResponse: ...
    def GetOverview(self, request: system_service_pb2.GetOverviewRequest, context: grpc.ServicerContext) -> system_service_pb2.GetOverviewResponse: ...

def add_SystemServiceServicer_to_server(servicer: SystemServiceServicer, server: grpc.Server | grpc.aio.Server) -> None: ...
