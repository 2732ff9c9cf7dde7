"""A job from submit to result through Python's grpcio, on descriptors from the service's own reflection. Prints one JSON object.

usage: grpcio_client.py HOST:PORT SOURCE TARGET
"""

import json
import sys

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PACKAGE = "facefusion.jobs.v1"


def main(address: str, source: str, target: str) -> None:
    with grpc.insecure_channel(address) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        service = pool.FindServiceByName(f"{PACKAGE}.JobService")

        def method(name):
            found = service.FindMethodByName(name)
            request, response = GetMessageClass(found.input_type), GetMessageClass(found.output_type)
            kind = channel.unary_stream if found.server_streaming else channel.unary_unary
            call = kind(
                f"/{PACKAGE}.JobService/{name}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            return lambda **fields: call(json_format.ParseDict(fields, request()), timeout=60)

        job = method("Submit")(job={"source_images": [source], "target_image": target, "parameters": {"steps": 3}}).job
        sequences, kinds = [], []
        for answer in method("Watch")(job_id=job.job_id):
            kinds.append(answer.event.WhichOneof("event"))
            if answer.event.sequence:
                sequences.append(answer.event.sequence)
        done = method("Get")(job_id=job.job_id).job
        status = pool.FindEnumTypeByName(f"{PACKAGE}.JobStatus").values_by_number[done.status].name
        try:
            method("Get")(job_id="job_20250405_abcdefghijkl")
            missing = "OK"
        except grpc.RpcError as error:
            missing = error.code().name
        url = method("GetResult")(job_id=job.job_id).url
    print(json.dumps({"job_id": job.job_id, "status": status, "kinds": kinds, "sequences": sequences, "missing": missing, "url": url}))


if __name__ == "__main__":
    main(*sys.argv[1:])
