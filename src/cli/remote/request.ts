// From the words of a command line to a JobRequest. Values of `--param` take the type that the service's capabilities give the option; what
// does not fit is sent as it was written, so that the service alone judges and answers with all violations at once.
import { stat } from 'node:fs/promises';
import { extname } from 'node:path';
import { create, type JsonObject, type JsonValue, type MessageInitShape } from '@bufbuild/protobuf';
import { type Duration, DurationSchema } from '@bufbuild/protobuf/wkt';
import { CachePolicy, type JobRequestSchema } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { type GetCapabilitiesResponse, OptionType } from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import { CliError, Exit } from './errors.ts';

export type RequestInit = MessageInitShape<typeof JobRequestSchema>;

/** Where a piece of media is: a file here, which is uploaded, or a reference that the service resolves itself. */
export type Media = { readonly kind: 'file'; readonly path: string } | { readonly kind: 'reference'; readonly reference: string };

/** `server:PATH` is a path under the service's input root; anything with `scheme://` is a reference; the rest is a file here. */
export async function media(word: string): Promise<Media> {
  if (word.startsWith('server:')) return { kind: 'reference', reference: word.slice('server:'.length) };
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(word)) return { kind: 'reference', reference: word };
  const facts = await stat(word).catch(() => undefined);
  if (facts?.isFile()) return { kind: 'file', path: word };
  throw new CliError(
    Exit.invalid,
    facts === undefined
      ? `there is no file '${word}' here; a file under the service's input root is written server:${word}`
      : `'${word}' is not a file`,
  );
}

/** Stands for an upload that is not there yet, where the service is asked about a request before its files are sent. */
export const TO_BE_UPLOADED = `upload://${'0'.repeat(32)}`;

/** Whether all that is wrong is that a file has not been sent yet. */
export function toBeUploaded({ reason, description }: { readonly reason: string; readonly description: string }): boolean {
  return reason === 'UPLOAD_NOT_FOUND' && description.includes(TO_BE_UPLOADED);
}

/** Files in the order of the command line: the last is the target unless `--target` names it. */
export function roles(
  files: readonly string[],
  sources: readonly string[],
  target: string | undefined,
): { sources: string[]; target: string } {
  if (target !== undefined) return { sources: [...sources, ...files], target };
  const last = files.at(-1);
  if (last === undefined) throw new CliError(Exit.invalid, 'what should be worked on? Name the target as the last FILE or with --target');
  return { sources: [...sources, ...files.slice(0, -1)], target: last };
}

const VIDEO_EXTENSIONS: ReadonlySet<string> = new Set([
  '.mp4',
  '.webm',
  '.mov',
  '.mkv',
  '.avi',
  '.m4v',
  '.mpg',
  '.mpeg',
  '.ts',
  '.wmv',
  '.gif',
]);

const IMAGE_EXTENSIONS: ReadonlySet<string> = new Set(['.jpg', '.jpeg', '.png', '.webp']);

/** What a file that is still to be uploaded is to be worked on as, where its name says so. */
export function targetFieldOfFile(path: string): 'targetVideo' | 'targetImage' | undefined {
  const extension = extname(path).toLowerCase();
  return VIDEO_EXTENSIONS.has(extension) ? 'targetVideo' : IMAGE_EXTENSIONS.has(extension) ? 'targetImage' : undefined;
}

/** Which member of the target oneof a reference is for. `mediaType` is the service's word for an upload; else the extension has to do. */
export function targetField(reference: string, mediaType: string | undefined): 'targetVideo' | 'targetImage' {
  if (mediaType !== undefined) return mediaType.startsWith('video/') || mediaType === 'image/gif' ? 'targetVideo' : 'targetImage';
  const path = URL.canParse(reference) ? new URL(reference).pathname : reference;
  return VIDEO_EXTENSIONS.has(extname(path).toLowerCase()) ? 'targetVideo' : 'targetImage';
}

/** The words of `--processor` and `--param`, and the object of `--params`, as one Struct. */
export function parameters(
  words: { readonly processors: readonly string[]; readonly params: readonly string[]; readonly base: JsonObject },
  capabilities: GetCapabilitiesResponse | undefined,
): JsonObject | undefined {
  const texts = new Map<string, string[]>();
  for (const word of words.params) {
    const [name, text] = pair(word, '--param');
    texts.set(name, [...(texts.get(name) ?? []), text]);
  }
  const named = Object.fromEntries([...texts].map(([name, values]) => [name, typed(name, values, capabilities)]));
  const all = { ...words.base, ...named, ...(words.processors.length > 0 ? { processors: [...words.processors] } : {}) };
  return Object.keys(all).length > 0 ? all : undefined;
}

function typed(name: string, texts: readonly string[], capabilities: GetCapabilitiesResponse | undefined): JsonValue {
  const alias = capabilities?.aliases.find((one) => one.name === name);
  const option = capabilities?.options.find((one) => one.name === (alias?.options[0] ?? name));
  const list = option?.list ?? texts.length > 1;
  const last = texts.at(-1)!;
  if (list) {
    const whole = texts.length === 1 && last.startsWith('[') ? json(last) : undefined;
    const items = Array.isArray(whole) ? undefined : texts.flatMap((text) => text.split(','));
    return items?.map((text) => scalar(text, option?.type)) ?? whole!;
  }
  return scalar(last, option?.type);
}

function scalar(text: string, type: OptionType | undefined): JsonValue {
  switch (type) {
    case OptionType.STRING:
      return text;
    case OptionType.BOOLEAN:
      return /^(true|yes|on)$/i.test(text) ? true : /^(false|no|off)$/i.test(text) ? false : text;
    case OptionType.INTEGER:
    case OptionType.NUMBER:
      return text.trim() !== '' && Number.isFinite(Number(text)) ? Number(text) : text;
    default:
      return json(text) ?? text;
  }
}

function json(text: string): JsonValue | undefined {
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    return undefined;
  }
}

/** `key=value` */
export function pair(word: string, option: string): [string, string] {
  const at = word.indexOf('=');
  if (at < 1) throw new CliError(Exit.invalid, `${option} is '${word}'; it takes KEY=VALUE`);
  return [word.slice(0, at), word.slice(at + 1)];
}

/** The object of `--params`. */
export function paramsObject(text: string, where: string): JsonObject {
  const value = json(text);
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw new CliError(Exit.invalid, `${where} is not a JSON object`);
}

const UNIT_SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** `90s`, `5m`, `2h`, `7d` */
export function duration(text: string | undefined, option: string): Duration | undefined {
  if (text === undefined) return undefined;
  const match = /^(\d+)([smhd])$/.exec(text);
  if (match === null) throw new CliError(Exit.invalid, `${option} is '${text}'; it takes a duration such as 90s, 5m, 2h, 7d`);
  return create(DurationSchema, { seconds: BigInt(Number(match[1]) * UNIT_SECONDS[match[2]!]!) });
}

export function wholeNumber(text: string | undefined, option: string): number | undefined {
  if (text === undefined) return undefined;
  if (!/^-?\d{1,9}$/.test(text)) throw new CliError(Exit.invalid, `${option} is '${text}'; it takes a whole number`);
  return Number(text);
}

/** How many are to be listed. */
export function limitOf(text: string): number {
  const limit = wholeNumber(text, '--limit') ?? 0;
  if (limit < 1) throw new CliError(Exit.invalid, `--limit is '${text}'; it takes a whole number from 1`);
  return limit;
}

/** For options that may be given again and again. No default of its own: the help would print it. */
export const many = (value: string, before: string[] = []): string[] => [...before, value];

export function cachePolicy(text: string | undefined): CachePolicy | undefined {
  if (text === undefined) return undefined;
  const policies: Readonly<Record<string, CachePolicy>> = { use: CachePolicy.USE, refresh: CachePolicy.REFRESH, off: CachePolicy.OFF };
  const policy = policies[text];
  if (policy === undefined) throw new CliError(Exit.invalid, `--cache is '${text}'; it takes use, refresh or off`);
  return policy;
}
