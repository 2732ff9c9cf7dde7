// From a claimed job to what the engine is given. Always true: parameters are resolved and judged anew, because neither the engine nor what the tenant may use
// need be what they were at submit; what makes two runs the same is decided here, before a slot is asked for.
import { CachePolicy } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { MediaKind } from '../../gen/facefusion/worker/v1/worker_pb.js';
import type { Prepare, Prepared } from '../gpu/work.ts';
import type { Engine } from '../jobs/engine.ts';
import { fingerprintOf } from '../jobs/fingerprint.ts';
import type { Failure, Job } from '../jobs/job.ts';
import type { MarkedInput, Marking } from '../jobs/marking.ts';
import { resolveParameters, type TargetKind } from '../jobs/parameters.ts';
import type { BlobStore } from '../jobs/ports.ts';
import { deniedValues, type TenantPolicy } from '../jobs/tenants.ts';
import { fetchInputs, type Inputs, resultFormat } from '../media/inputs.ts';
import { takingResults } from '../media/job-results.ts';
import type { Probe } from '../media/probe.ts';
import type { MediaResolver } from '../media/references.ts';
import type { Marker } from '../provenance/marker.ts';

export interface PrepareOptions {
  /** Of the slots here. Throws ENGINE_NOT_READY while none has said what it is. */
  readonly engine: () => Engine;
  /** Tells one set of its model files from another; empty: its version does. */
  readonly models: () => string;
  readonly references: (tenant: string) => MediaResolver;
  readonly policyOf: (tenant: string) => TenantPolicy;
  readonly blobs: Pick<BlobStore, 'fetch'>;
  /** Undefined: the engine takes files as they come. */
  readonly probe: Probe | undefined;
  /** Undefined: nobody's results are marked. */
  readonly marker: Pick<Marker, 'markingOf'> | undefined;
  readonly cache: {
    /** How long a result is kept for like jobs, in milliseconds; 0: each job runs. */
    readonly ttlMs: number;
    /** Jobs of different tenants may be like each other. */
    readonly shared: boolean;
  };
  /** Told how many bytes more have come from elsewhere. */
  readonly onFetched: (bytes: number) => void;
}

/** A job's parameters as the engine of this node takes them. */
interface Run {
  readonly engine: Engine;
  readonly kind: TargetKind;
  readonly parameters: ReturnType<typeof resolveParameters>['parameters'];
  readonly processors: readonly string[];
}

export function preparing(options: PrepareOptions): Prepare {
  const { references, blobs, probe, onFetched } = options;
  return async (job, folder, signal, report, results) => {
    const run = runOf(job, options);
    if ('reason' in run) return run;
    const resolver = takingResults(references(job.tenant), results, blobs);
    const inputs = await fetchInputs({ resolver, probe, report: counting(report, onFetched) }, job.request!, folder, signal);
    return 'reason' in inputs ? inputs : preparedOf(job, run, inputs, options);
  };
}

function runOf(job: Job, { engine: current, policyOf }: PrepareOptions): Run | Failure {
  const engine = current();
  const { parameters: given, target } = job.request!;
  const kind = target.case === 'targetVideo' ? 'video' : 'image';
  const { parameters, processors, violations } = resolveParameters(given ?? {}, kind, engine);
  const values = { ...parameters, processors: [...processors] };
  const [wrong] = [...violations, ...deniedValues(values, policyOf(job.tenant).denied, engine.capabilities)];
  if (!wrong) return { engine, kind, parameters, processors };
  const message = `${wrong.field}: ${wrong.description} (the engine is not the one that took the job)`;
  return { reason: 'PARAMETERS_NOT_VALID', message, retryable: false };
}

function preparedOf(job: Job, run: Run, inputs: Inputs, options: PrepareOptions): Prepared {
  const { kind, parameters, engine, processors } = run;
  const { cache, marker, policyOf } = options;
  const request = job.request!;
  const { imageFormats, videoFormats } = engine.capabilities;
  const outputFormat = request.outputFormat ?? resultFormat(inputs.targetType, kind === 'video' ? videoFormats : imageFormats);
  const marking = marker?.markingOf(policyOf(job.tenant).mark, { engine: engine.name, processors });
  const shares = cache.ttlMs > 0 && request.cache !== CachePolicy.OFF;
  return {
    sourcePaths: [...inputs.sourcePaths],
    sourceAudioPath: inputs.sourceAudioPath,
    targetPath: inputs.targetPath,
    targetKind: kind === 'video' ? MediaKind.VIDEO : MediaKind.IMAGE,
    outputFormat,
    parameters,
    ...(marking && {
      marking: {
        ...marking,
        extension: outputFormat,
        engine: { name: engine.name, version: engine.version },
        processors,
        parameters,
        inputs: markedInputs(inputs),
      },
    }),
    ...(shares && {
      like: {
        fingerprint: fingerprint(job, run, inputs, { outputFormat, marking }, options),
        runs: request.cache === CachePolicy.REFRESH,
        keepMs: cache.ttlMs,
      },
    }),
  };
}

function fingerprint(
  { tenant, request }: Job,
  { kind, parameters, engine }: Run,
  { digests }: Inputs,
  { outputFormat, marking }: { readonly outputFormat: string; readonly marking: Marking | undefined },
  { cache, models }: PrepareOptions,
): string {
  const { sourceImages, sourceAudio } = request!;
  return fingerprintOf({
    // A mark is made for whoever publishes the result.
    tenant: cache.shared && !marking ? undefined : tenant,
    target: { kind, sha256: digests[0]! },
    sources: digests.slice(1, 1 + sourceImages.length),
    audio: sourceAudio === undefined ? undefined : digests.at(-1),
    parameters,
    outputFormat,
    marking: marking?.key,
    engine: { name: engine.name, version: engine.version, models: models() },
  });
}

/** As a manifest names them. */
function markedInputs({ targetPath, sourcePaths, sourceAudioPath, types, digests }: Inputs): MarkedInput[] {
  const paths = [targetPath, ...sourcePaths, ...(sourceAudioPath === '' ? [] : [sourceAudioPath])];
  return paths.map((path, i) => ({
    path,
    title: i === 0 ? 'target' : i <= sourcePaths.length ? `source ${i}` : 'sound',
    mediaType: types[i]!,
    sha256: digests[i]!,
  }));
}

/** What is reported falls with a transfer that begins anew: its bytes come again, and are counted again. */
function counting(report: (done: number, total: number) => void, onFetched: (bytes: number) => void): typeof report {
  let known = 0;
  return (done, total) => {
    onFetched(Math.max(0, done - known));
    known = done;
    report(done, total);
  };
}
