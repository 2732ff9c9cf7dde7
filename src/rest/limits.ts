// How many elements a list or a map may hold, by the contract's own rules (https://protovalidate.com/reference/rules/). Always true: who asks here
// first spends nothing on the elements of one that is too large; to look at each of them, and to say what is wrong with it, is what makes such a
// request dear.
import { type DescField, type DescMessage, getOption, hasOption, type Message } from '@bufbuild/protobuf';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import * as validate from '@bufbuild/protovalidate/gen/buf/validate/validate_pb.js';
import { readField } from './routes.ts';

export interface SizeLimit {
  readonly max: number;
  /** As protovalidate names the rule. */
  readonly rule: 'repeated.max_items' | 'map.max_pairs';
}

/** Undefined where the contract sets none. */
export function sizeLimit(field: DescField): SizeLimit | undefined {
  if (!hasOption(field, validate.field)) return undefined;
  const { type } = getOption(field, validate.field);
  if (type.case === 'repeated' && type.value.maxItems > 0n) return { max: Number(type.value.maxItems), rule: 'repeated.max_items' };
  if (type.case === 'map' && type.value.maxPairs > 0n) return { max: Number(type.value.maxPairs), rule: 'map.max_pairs' };
  return undefined;
}

export interface TooLarge {
  /** Dotted path in proto names. */
  readonly field: string;
  readonly description: string;
  readonly rule: SizeLimit['rule'];
}

/** For people; the field is the sentence's subject. */
export function tooLarge({ max }: SizeLimit, size: number): string {
  return `must hold at most ${max} elements, and holds ${size}`;
}

/** The lists and maps of a message that are too large, with those of the messages in it. */
export function findTooLarge(desc: DescMessage, message: Message): TooLarge[] {
  const found: TooLarge[] = [];
  visit(desc, message, '', found);
  return found;
}

function visit(desc: DescMessage, message: Message, path: string, found: TooLarge[]): void {
  for (const { field, limit } of bounded(desc)) {
    const value = readField(message, [field]);
    if (typeof value !== 'object' || value === null) continue;
    const here = `${path}${field.name}`;
    if (field.fieldKind === 'message') {
      visit(field.message, value as Message, `${here}.`, found);
      continue;
    }
    const elements: readonly unknown[] = Array.isArray(value) ? value : Object.keys(value);
    if (limit && elements.length > limit.max) found.push({ field: here, description: tooLarge(limit, elements.length), rule: limit.rule });
    else if (field.fieldKind === 'list' && field.listKind === 'message') {
      for (const [i, one] of elements.entries()) visit(field.message, one as Message, `${here}[${i}].`, found);
    }
  }
}

interface Bounded {
  readonly field: DescField;
  readonly limit: SizeLimit | undefined;
}

const known = new Map<DescMessage, readonly Bounded[]>();

/** The fields that have a limit or lead to one. An option is parsed each time it is asked for, so the limits are kept. */
function bounded(desc: DescMessage): readonly Bounded[] {
  const fields = known.get(desc);
  if (fields) return fields;
  known.set(desc, []); // a type that holds itself leads nowhere new
  const found = desc.fields
    .map((field) => ({ field, limit: sizeLimit(field) }))
    .filter(({ field, limit }) => limit || (field.fieldKind !== 'map' && field.message && bounded(field.message).length > 0));
  known.set(desc, found);
  return found;
}

/** Elements of what the contract sets no limit to (a google.protobuf.Struct, some lists), and commas that stand in texts. */
const ROOM = 20_000;
const FREE = new Set(['google.protobuf.Struct', 'google.protobuf.Value', 'google.protobuf.ListValue', 'google.protobuf.Any']);
const counted = new Map<DescMessage, number>();

/**
 * More elements than any message of this type has that is of use, with room to spare; Infinity for a type that holds itself. A request is held against it
 * before it is parsed, since parsing is what makes many elements dear.
 */
export function mostElements(desc: DescMessage): number {
  const known = counted.get(desc);
  if (known !== undefined) return known;
  counted.set(desc, Number.POSITIVE_INFINITY); // a type that holds itself
  let sum = ROOM;
  for (const field of desc.fields) {
    const each = field.message ? (FREE.has(field.message.typeName) ? ROOM : 1 + mostElements(field.message) - ROOM) : 1;
    const many = field.fieldKind === 'list' || field.fieldKind === 'map';
    sum += each * (many ? (sizeLimit(field)?.max ?? ROOM) : 1);
  }
  counted.set(desc, sum);
  return sum;
}

/** Whether JSON has more elements than `most`, by its commas; as cheap as looking for them. */
export function hasMoreElements(json: string, most: number): boolean {
  if (json.length <= most) return false;
  let count = 0;
  for (let at = json.indexOf(','); at >= 0; at = json.indexOf(',', at + 1)) if (++count > most) return true;
  return false;
}

/** Of a message in Protobuf's wire format (https://protobuf.dev/programming-guides/encoding/). What is malformed has none too many. */
export function hasMoreFields(desc: DescMessage, bytes: Uint8Array, most: number): boolean {
  if (bytes.length <= most) return false;
  const reader = new BinaryReader(bytes);
  let count = 0;
  const walk = (message: DescMessage, end: number): boolean => {
    const inner = new Map(
      message.fields.flatMap((field) => (field.message && field.fieldKind !== 'map' ? [[field.number, field.message]] : [])),
    );
    while (reader.pos < end) {
      if (++count > most) return true;
      const [number, wireType] = reader.tag();
      const nested = wireType === WireType.LengthDelimited ? inner.get(number) : undefined;
      if (!nested) reader.skip(wireType, number);
      else if (walk(nested, reader.uint32() + reader.pos)) return true;
    }
    return false;
  };
  try {
    return walk(desc, bytes.length);
  } catch {
    return false;
  }
}

/** For people. */
export function tooManyElements(most: number): string {
  return `the request has more than ${most} elements, which no valid one has`;
}
