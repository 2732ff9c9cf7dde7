// What makes two runs the same: the bytes that go in, the resolved parameters, the format that comes out and its mark, and the engine with its models.
// Pure. Where an input came from is never part of it, so a file that has changed behind a URL is another run, and one picture behind two URLs the same.
import { createHash } from 'node:crypto';
import type { JsonObject, JsonValue } from '@bufbuild/protobuf';

export interface RunFacts {
  /** Whose runs it may be one with; undefined: everybody's. */
  readonly tenant: string | undefined;
  readonly target: { readonly kind: 'image' | 'video'; readonly sha256: string };
  /** SHA-256 of each, in the order of the request. */
  readonly sources: readonly string[];
  readonly audio: string | undefined;
  /** Every option with its value, defaults filled in, by the engine's names. */
  readonly parameters: JsonObject;
  readonly outputFormat: string;
  /** How the result is marked (`Marking.key`); undefined: it is not. */
  readonly marking: string | undefined;
  /** `models`: what the engine says of its model files; empty where its version tells all. */
  readonly engine: { readonly name: string; readonly version: string; readonly models: string };
}

/** SHA-256 in lower-case hex. */
export type Fingerprint = string;

/** Changes when what goes into a fingerprint does, so that no entry of an older release is taken for one of this. */
const SCHEME = 'ffjobs-run-2';

export function fingerprintOf({ tenant, target, sources, audio, parameters, outputFormat, marking, engine }: RunFacts): Fingerprint {
  const facts: JsonValue = [
    SCHEME,
    tenant ?? null,
    [target.kind, target.sha256],
    [...sources],
    audio ?? null,
    canonical(parameters),
    outputFormat,
    marking ?? null,
    [engine.name, engine.version, engine.models],
  ];
  return createHash('sha256').update(JSON.stringify(facts)).digest('hex');
}

/** Names sorted by code units, at every depth. Lists keep their order: that of processors is theirs. */
function canonical(value: JsonValue): JsonValue {
  if (Array.isArray(value)) return value.map(canonical);
  if (value === null || typeof value !== 'object') return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  // Pairs and not an object: a name that looks like a number would move.
  return entries.map(([name, one]) => [name, canonical(one)]);
}
