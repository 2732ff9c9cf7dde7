// Marks results as made by AI, each in a process of its own, of which one is started ahead. Always true: a result that was to be marked is either
// marked, read back and verified, or its job fails; a result is marked once, however often it is stored.
import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { type Provenance, ProvenanceMark, ProvenanceSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { JobsError } from '../jobs/errors.ts';
import type { Failure } from '../jobs/job.ts';
import { type Marking, type MarkingPlan, markingOf } from '../jobs/marking.ts';
import type { Mark } from '../jobs/tenants.ts';
import { checkSigner, type Fit, MarkingProcess, type MarkingProgram, type SignerFiles } from './process.ts';

export interface Marked {
  /** Of the marked file, in the folder that was given. */
  readonly path: string;
  readonly provenance: Provenance;
  readonly warnings: readonly string[];
}

export interface MarkerOptions {
  readonly program: MarkingProgram;
  readonly files: SignerFiles;
  /** `auto`, or a code of the IPTC's vocabulary. */
  readonly sourceType: string;
  /** Of this service, as manifests name it. */
  readonly version: string;
  /** Of one result. */
  readonly timeoutMs: number;
  readonly log: { warn(fields: object, message: string): void; error(fields: object, message: string): void };
}

/** Of the program, as `provenance/__main__.py` writes it. */
type Answer = { readonly marked: Said } | { readonly failed: Failure } | { readonly unfit: { readonly message: string } };

interface Said {
  readonly mark: 'EMBEDDED' | 'SIDECAR';
  readonly path: string;
  readonly manifest: string;
  readonly digital_source_type: string;
  readonly signer: string;
  readonly issuer: string;
  readonly certificate_sha256: string;
  readonly certificate_expires: string;
  readonly signed_at: string;
  readonly timestamped: boolean;
  readonly validation_state: string;
  readonly sidecar: string;
  readonly xmp: boolean;
  readonly label: string;
  readonly warnings: readonly string[];
}

/** Throws PROVENANCE_CANNOT_SIGN, with what to mend, where a trial does not succeed. */
export async function openMarker(options: MarkerOptions): Promise<Marker> {
  const found = await checkSigner(options.program, options.files);
  if ('fix' in found) throw new JobsError('failed_precondition', 'PROVENANCE_CANNOT_SIGN', `${found.message}: ${found.fix}`);
  for (const warning of found.warnings) options.log.warn({}, `marks of results: ${warning}`);
  return new Marker(options, found);
}

export class Marker implements AsyncDisposable {
  readonly #options: MarkerOptions;
  readonly #certificate: string;
  readonly #running = new Set<MarkingProcess>();
  readonly #marked = new WeakMap<MarkingPlan, Marked>();
  /** Waits for a result, with all that it needs read. */
  #ahead: MarkingProcess | undefined;
  #closed = false;

  constructor(options: MarkerOptions, fit: Fit) {
    this.#options = options;
    this.#certificate = fit.certificate_sha256;
    this.#ahead = this.#start();
  }

  /** Undefined: such a result is not marked. */
  markingOf(mark: Mark, run: { readonly engine: string; readonly processors: readonly string[] }): Marking | undefined {
    return markingOf(mark, { sourceType: this.#options.sourceType, certificate: this.#certificate }, run);
  }

  /** Marks the file at `source`, which stays as it is; `folder` is the job's. Throws the signal's reason. */
  async mark(source: string, folder: string, mediaType: string, plan: MarkingPlan, signal: AbortSignal): Promise<Marked | Failure> {
    const known = this.#marked.get(plan);
    if (known) return known;
    signal.throwIfAborted();
    const { timeoutMs, log, version } = this.#options;
    // One that waited may have been killed meanwhile, for want of memory.
    const process = this.#ahead && !this.#ahead.ended ? this.#ahead : this.#start();
    this.#ahead = undefined;
    const late = AbortSignal.timeout(Math.min(timeoutMs, 2 ** 31 - 1));
    try {
      const either = AbortSignal.any([signal, late]);
      const ready = await process.hear<{ readonly ready: true } | Answer>(either);
      if ('unfit' in ready) return notSigned(`the certificate cannot be used any more: ${ready.unfit.message}`, false);
      process.say(requestOf(source, folder, mediaType, version, plan));
      const answer = await process.hear<Answer>(either);
      if ('failed' in answer) {
        log.warn({ reason: answer.failed.reason, said: process.lastLines }, `a result was not marked: ${answer.failed.message}`);
        return answer.failed;
      }
      if ('unfit' in answer) return notSigned(answer.unfit.message, false);
      const marked = { path: answer.marked.path, provenance: provenanceOf(answer.marked, plan), warnings: answer.marked.warnings };
      this.#marked.set(plan, marked);
      return marked;
    } catch (error) {
      signal.throwIfAborted();
      if (late.aborted) return notSigned(`marking the result took longer than ${timeoutMs / 1000} s`, false);
      log.error({ err: error }, 'a result could not be marked');
      return notSigned('the process that marks results broke off; the log of the service says why', true);
    } finally {
      process.kill();
      this.#running.delete(process);
      if (!this.#closed) this.#ahead ??= this.#start();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const process of this.#running) process.kill();
  }

  #start(): MarkingProcess {
    const process = new MarkingProcess(this.#options.program, ['sign']);
    process.say(this.#options.files);
    this.#running.add(process);
    return process;
  }
}

function requestOf(source: string, folder: string, mediaType: string, version: string, plan: MarkingPlan): object {
  return {
    source,
    folder,
    extension: plan.extension,
    media_type: mediaType,
    source_type: plan.sourceType,
    label: plan.label,
    generator: 'facefusion-jobs',
    generator_version: version,
    engine: plan.engine.name,
    engine_version: plan.engine.version,
    processors: plan.processors,
    parameters: plan.parameters,
    ingredients: plan.inputs.map(({ path, title, mediaType: type }) => ({ path, title, media_type: type })),
  };
}

function provenanceOf(said: Said, { inputs }: MarkingPlan): Provenance {
  return create(ProvenanceSchema, {
    mark: ProvenanceMark[said.mark],
    digitalSourceType: said.digital_source_type,
    manifest: said.manifest,
    signer: said.signer,
    issuer: said.issuer,
    certificateSha256: said.certificate_sha256,
    certificateExpireTime: timestampFromDate(new Date(said.certificate_expires)),
    signedAt: timestampFromDate(new Date(said.signed_at)),
    timestamped: said.timestamped,
    validationState: said.validation_state,
    xmp: said.xmp,
    label: said.label,
    sidecar: Buffer.from(said.sidecar, 'base64'),
    ingredients: inputs.map(({ title, mediaType, sha256 }, i) => ({
      title,
      mediaType,
      sha256,
      relationship: i === 0 ? 'parentOf' : 'inputTo',
    })),
  });
}

function notSigned(message: string, retryable: boolean): Failure {
  return { reason: 'PROVENANCE_NOT_SIGNED', message, retryable };
}
