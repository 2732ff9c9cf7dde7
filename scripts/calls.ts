// One call in three languages, as the demo prints it and a test runs it. Always true: each text works as it stands in a shell, or as a file in
// the repository's root, against a service at `address` whose input root holds the media named.

export interface DemoCall {
  /** `http://127.0.0.1:8000` */
  readonly address: string;
  /** Paths under the service's input root. */
  readonly source: string;
  readonly target: string;
  /** Where the result goes. */
  readonly output: string;
}

export interface CallTexts {
  readonly curl: string;
  readonly grpcurl: string;
  readonly typescript: string;
}

export function callTexts({ address, source, target, output }: DemoCall): CallTexts {
  const job = { source_images: [source], target_image: target, parameters: { processors: ['face_swapper'] } };
  return {
    curl: `JOB=$(curl -sS --fail-with-body ${address}/api/v1/jobs -H 'content-type: application/json' \\
  -d '${JSON.stringify(job)}' | sed -E 's/.*"job_id": ?"([^"]+)".*/\\1/')
curl -sSN ${address}/api/v1/jobs/$JOB/events -H 'accept: text/plain'
curl -sSL --fail-with-body -o ${output} ${address}/api/v1/jobs/$JOB/result`,
    grpcurl: `grpcurl -plaintext -d '${JSON.stringify({ job })}' ${new URL(address).host} facefusion.jobs.v1.JobService/Submit`,
    typescript: `import { writeFile } from 'node:fs/promises';
import { createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { JobService } from './gen/facefusion/jobs/v1/job_service_pb.js';

const jobs = createClient(JobService, createGrpcTransport({ baseUrl: '${address}' }));
const { job } = await jobs.submit({
  job: {
    sourceImages: ['${source}'],
    target: { case: 'targetImage', value: '${target}' },
    parameters: { processors: ['face_swapper'] },
  },
});
for await (const { event } of jobs.watch({ jobId: job!.jobId })) {
  if (event?.event.case === 'progress') console.log(event.event.value.percent, event.event.value.framesPerSecond);
}
const { url } = await jobs.getResult({ jobId: job!.jobId });
const response = await fetch(new URL(url, '${address}'));
await writeFile('${output}', response.body!);`,
  };
}
