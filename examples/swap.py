"""Swaps a face from the command line, over gRPC, with `pip install ./clients/python`:

python examples/swap.py samples/eileen_collins.jpg samples/grace_hopper.jpg swapped.jpg
"""

from __future__ import annotations

import argparse
import os
import sys

import grpc
from facefusion_jobs import JobNotSucceeded, JobsClient, details_of


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("source", "target", "output"):
        parser.add_argument(name)
    parser.add_argument("--server", default=os.environ.get("FFJOBS_SERVER", "127.0.0.1:8000"))
    args = parser.parse_args()
    target = "target_video" if args.target.endswith((".mp4", ".mov", ".webm")) else "target_image"
    try:
        with JobsClient(args.server, token=os.environ.get("FFJOBS_TOKEN")) as client:
            job = client.submit_and_wait(
                source_images=[client.upload(args.source).uri],
                **{target: client.upload(args.target).uri},
                on_event=lambda event: event.HasField("progress") and print(f"{event.progress.percent:.0f} %"),
            )
            client.download(job.job_id, args.output)
    except JobNotSucceeded as error:
        return fail(f"{error.reason}: {error.job.error.message}")
    except grpc.RpcError as error:
        return fail(details_of(error).message)
    print(args.output)
    return 0


def fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
