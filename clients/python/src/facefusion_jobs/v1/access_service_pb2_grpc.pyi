# Made by `npm run generate`.
import grpc
import grpc.aio

from facefusion_jobs.v1 import access_service_pb2

class AccessServiceStub:
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
    GetIdentity: grpc.UnaryUnaryMultiCallable[access_service_pb2.GetIdentityRequest, access_service_pb2.GetIdentityResponse]
    GetUsage: grpc.UnaryUnaryMultiCallable[access_service_pb2.GetUsageRequest, access_service_pb2.GetUsageResponse]
    CreateKey: grpc.UnaryUnaryMultiCallable[access_service_pb2.CreateKeyRequest, access_service_pb2.CreateKeyResponse]
    ListKeys: grpc.UnaryUnaryMultiCallable[access_service_pb2.ListKeysRequest, access_service_pb2.ListKeysResponse]
    RevokeKey: grpc.UnaryUnaryMultiCallable[access_service_pb2.RevokeKeyRequest, access_service_pb2.RevokeKeyResponse]
    RotateKey: grpc.UnaryUnaryMultiCallable[access_service_pb2.RotateKeyRequest, access_service_pb2.RotateKeyResponse]

class AccessServiceAsyncStub:
    GetIdentity: grpc.aio.UnaryUnaryMultiCallable[access_service_pb2.GetIdentityRequest, access_service_pb2.GetIdentityResponse]
    GetUsage: grpc.aio.UnaryUnaryMultiCallable[access_service_pb2.GetUsageRequest, access_service_pb2.GetUsageResponse]
    CreateKey: grpc.aio.UnaryUnaryMultiCallable[access_service_pb2.CreateKeyRequest, access_service_pb2.CreateKeyResponse]
    ListKeys: grpc.aio.UnaryUnaryMultiCallable[access_service_pb2.ListKeysRequest, access_service_pb2.ListKeysResponse]
    RevokeKey: grpc.aio.UnaryUnaryMultiCallable[access_service_pb2.RevokeKeyRequest, access_service_pb2.RevokeKeyResponse]
    RotateKey: grpc.aio.UnaryUnaryMultiCallable[access_service_pb2.RotateKeyRequest, access_service_pb2.RotateKeyResponse]

class AccessServiceServicer:
    def GetIdentity(self, request: access_service_pb2.GetIdentityRequest, context: grpc.ServicerContext) -> access_service_pb2.GetIdentityResponse: ...
    def GetUsage(self, request: access_service_pb2.GetUsageRequest, context: grpc.ServicerContext) -> access_service_pb2.GetUsageResponse: ...
    def CreateKey(self, request: access_service_pb2.CreateKeyRequest, context: grpc.ServicerContext) -> access_service_pb2.CreateKeyResponse: ...
    def ListKeys(self, request: access_service_pb2.ListKeysRequest, context: grpc.ServicerContext) -> access_service_pb2.ListKeysResponse: ...
    def RevokeKey(self, request: access_service_pb2.RevokeKeyRequest, context: grpc.ServicerContext) -> access_service_pb2.RevokeKeyResponse: ...
    def RotateKey(self, request: access_service_pb2.RotateKeyRequest, context: grpc.ServicerContext) -> access_service_pb2.RotateKeyResponse: ...

def add_AccessServiceServicer_to_server(servicer: AccessServiceServicer, server: grpc.Server | grpc.aio.Server) -> None: ...
