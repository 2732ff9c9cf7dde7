// A file of jobs, one JSON object a line, as requests. Each line is a request in the REST dialect, or `{"ref": ..., "job": {...}}` where others of the
// file take its result as `job://REF`. What is wrong is told by line, all of it at once.
import { readFile } from 'node:fs/promises';
import { create, fromJson, type JsonValue } from '@bufbuild/protobuf';
import { type JobRequest, JobRequestSchema } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { CliError, Exit } from './errors.ts';
import { protoJson } from './json.ts';
import { type Media, media } from './request.ts';

export interface FileLine {
  /** From 1, empty lines counted. */
  readonly number: number;
  readonly ref: string;
  /** Its media are words of the file until they have been given. */
  readonly job: JobRequest;
  readonly media: readonly MediaWord[];
}

export interface MediaWord {
  readonly given: Media;
  /** Puts the reference where the word was. */
  put(reference: string): void;
}

/** What the contract allows. */
const MAX_JOBS = 1000;
const MOST_TOLD = 20;

export async function readJobsFile(path: string): Promise<FileLine[]> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new CliError(Exit.invalid, `'${path}' cannot be read (${error.code})`);
  });
  const written = text.split('\n').flatMap((line, i) => (line.trim() === '' ? [] : [{ number: i + 1, line }]));
  if (written.length === 0) throw new CliError(Exit.invalid, `'${path}' has no jobs: write one JSON object a line`);
  if (written.length > MAX_JOBS) {
    throw new CliError(Exit.invalid, `'${path}' has ${written.length} jobs; a batch has at most ${MAX_JOBS}: split the file`);
  }
  const lines: FileLine[] = [];
  const wrong: string[] = [];
  for (const { number, line } of written) {
    try {
      lines.push(await readLine(number, line));
    } catch (error) {
      wrong.push(`line ${number}: ${(error as Error).message.replace(/^cannot (?:decode|read) message \S+ from JSON: /, '')}`);
    }
  }
  if (wrong.length === 0) return lines;
  const more = wrong.length > MOST_TOLD ? [`and ${wrong.length - MOST_TOLD} more lines`] : [];
  throw new CliError(Exit.invalid, [`'${path}' was not taken; nothing was uploaded:`, ...wrong.slice(0, MOST_TOLD), ...more].join('\n  '));
}

async function readLine(number: number, line: string): Promise<FileLine> {
  const json = JSON.parse(line) as JsonValue;
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw new Error('is no JSON object');
  const { ref = '', job, ...others } = json;
  const wrapped = job !== undefined || json.ref !== undefined;
  const [other] = Object.keys(others);
  if (wrapped && other !== undefined) throw new Error(`'${other}' stands beside 'ref' and 'job', and belongs into 'job'`);
  if (wrapped && typeof ref !== 'string') throw new Error("'ref' is no string");
  const request = wrapped ? (job === undefined ? create(JobRequestSchema) : requestOf(job)) : requestOf(json);
  return { number, ref: String(ref), job: request, media: await mediaOf(request) };
}

function requestOf(json: JsonValue): JobRequest {
  return fromJson(JobRequestSchema, protoJson(JobRequestSchema, json));
}

async function mediaOf(job: JobRequest): Promise<MediaWord[]> {
  const words: MediaWord[] = [];
  for (const [i, word] of job.sourceImages.entries()) {
    words.push({
      given: await media(word),
      put: (reference) => {
        job.sourceImages[i] = reference;
      },
    });
  }
  if (job.sourceAudio !== undefined) {
    words.push({
      given: await media(job.sourceAudio),
      put: (reference) => {
        job.sourceAudio = reference;
      },
    });
  }
  const { target } = job;
  if (target.case !== undefined) {
    words.push({
      given: await media(target.value),
      put: (reference) => {
        target.value = reference;
      },
    });
  }
  return words;
}
