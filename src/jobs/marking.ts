// How one run's result is to be marked as made by AI: decided before the run, because a marked result is another one than an unmarked. Pure.
import { createHash } from 'node:crypto';
import type { JsonObject } from '@bufbuild/protobuf';
import type { Mark } from './tenants.ts';

/** An input as a manifest names it: never by the caller's name for it. */
export interface MarkedInput {
  readonly path: string;
  /** `target`, `source 1` ..., `sound`. */
  readonly title: string;
  readonly mediaType: string;
  readonly sha256: string;
}

export interface Marking {
  /** URI of the IPTC's vocabulary. */
  readonly sourceType: string;
  /** Text that is drawn over the picture; empty: none. */
  readonly label: string;
  /** Part of what makes two runs the same. */
  readonly key: string;
}

/** One result to be marked, as it was decided when its job was prepared. */
export interface MarkingPlan extends Marking {
  readonly extension: string;
  readonly engine: { readonly name: string; readonly version: string };
  readonly processors: readonly string[];
  readonly parameters: JsonObject;
  /** The target first. */
  readonly inputs: readonly MarkedInput[];
}

/** What the service signs with, as far as results differ by it. */
export interface Signing {
  /** `auto`, or a code of the IPTC's vocabulary for every result. */
  readonly sourceType: string;
  /** SHA-256 of the signing certificate. */
  readonly certificate: string;
}

/** Changes when what a mark says does. */
const SCHEME = 'ffjobs-mark-1';
const VOCABULARY = 'http://cv.iptc.org/newscodes/digitalsourcetype/';

/** Undefined: it is not marked. */
export function markingOf(
  { signed, label }: Mark,
  { sourceType, certificate }: Signing,
  run: { readonly engine: string; readonly processors: readonly string[] },
): Marking | undefined {
  if (!signed) return undefined;
  const type = VOCABULARY + (sourceType === 'auto' ? typeOf(run) : sourceType);
  const key = createHash('sha256')
    .update(JSON.stringify([SCHEME, type, label, certificate]))
    .digest('hex');
  return { sourceType: type, label, key };
}

/**
 * The definitions of https://cv.iptc.org/newscodes/digitalsourcetype/. The plain engine has no trained model that makes pictures: what it swaps is
 * composed of captures, what it enhances is corrected by an algorithm. An engine that nobody knows is taken for one with such models.
 */
function typeOf({ engine, processors }: { readonly engine: string; readonly processors: readonly string[] }): string {
  if (engine !== 'classical') return 'compositeWithTrainedAlgorithmicMedia';
  return processors.includes('face_swapper') ? 'compositeCapture' : 'algorithmicallyEnhanced';
}
