// Context for gRPC: @grpc/grpc-js bare, the same message by the same codec. Prints its port.
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData } from '@grpc/grpc-js';
import { type GetRequest, GetRequestSchema, type GetResponse, GetResponseSchema } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { peerMessages } from './common.ts';

const jobs = new Map<string, GetResponse>(peerMessages().map((message) => [message.job!.jobId, message]));

const server = new Server();
server.addService(
  {
    Get: {
      path: '/facefusion.jobs.v1.JobService/Get',
      requestStream: false,
      responseStream: false,
      requestSerialize: (message: GetRequest) => Buffer.from(toBinary(GetRequestSchema, message)),
      requestDeserialize: (bytes: Buffer) => fromBinary(GetRequestSchema, bytes),
      responseSerialize: (message: GetResponse) => Buffer.from(toBinary(GetResponseSchema, message)),
      responseDeserialize: (bytes: Buffer) => fromBinary(GetResponseSchema, bytes),
    },
  },
  {
    Get: (call: ServerUnaryCall<GetRequest, GetResponse>, answer: sendUnaryData<GetResponse>) => answer(null, jobs.get(call.request.jobId)),
  },
);
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  process.stdout.write(`${JSON.stringify({ port })}\n`);
});
