// The arguments of steps as one MessagePack array of arrays of strings (https://github.com/msgpack/msgpack/blob/master/spec.md), which Redis unpacks in
// C: thirty arguments by themselves cost more than the step that they are for, on both sides.

export type Arguments = readonly (string | number | Uint8Array)[];

const FIRST_BYTES = 64 * 1024;
/** A buffer that has grown beyond this is not kept. */
const KEPT_BYTES = 4 * 1024 * 1024;
/** Array with its length in four bytes. */
const ARRAY_32 = 0xdd;
/** Below, a loop is quicker than the calls that measure and copy. */
const SHORT = 32;

let scratch = Buffer.allocUnsafeSlow(FIRST_BYTES);
let at = 0;

/** The first of `steps`: `most` of them, or fewer when they come to so many bytes; one in any case. */
export function packSteps(
  steps: readonly { readonly args: Arguments }[],
  most: number,
  bytes: number,
): { readonly packed: Buffer; readonly count: number } {
  at = 5;
  let count = 0;
  for (const { args } of steps) {
    if (count === most || (count > 0 && at >= bytes)) break;
    array(args.length);
    for (const arg of args) {
      if (typeof arg === 'string') text(arg);
      else if (typeof arg === 'number') text(`${arg}`);
      else binary(arg);
    }
    count++;
  }
  scratch[0] = ARRAY_32;
  scratch.writeUInt32BE(count, 1);
  const packed = Buffer.allocUnsafe(at);
  scratch.copy(packed, 0, 0, at);
  if (scratch.length > KEPT_BYTES) scratch = Buffer.allocUnsafeSlow(FIRST_BYTES);
  return { packed, count };
}

function need(bytes: number): void {
  if (at + bytes <= scratch.length) return;
  const larger = Buffer.allocUnsafeSlow(Math.max(scratch.length * 2, at + bytes));
  scratch.copy(larger, 0, 0, at);
  scratch = larger;
}

function array(length: number): void {
  need(5);
  scratch[at] = ARRAY_32;
  at = scratch.writeUInt32BE(length, at + 1);
}

function lengthOf(length: number): void {
  if (length < 32) scratch[at++] = 0xa0 | length;
  else if (length < 0x1_00) {
    scratch[at++] = 0xd9;
    scratch[at++] = length;
  } else if (length < 0x1_00_00) {
    scratch[at] = 0xda;
    at = scratch.writeUInt16BE(length, at + 1);
  } else {
    scratch[at] = 0xdb;
    at = scratch.writeUInt32BE(length, at + 1);
  }
}

function text(value: string): void {
  if (value.length < SHORT && ascii(value)) return;
  const length = Buffer.byteLength(value);
  need(5 + length);
  lengthOf(length);
  at += scratch.write(value, at);
}

/** False: it is none, and nothing is written. */
function ascii(value: string): boolean {
  const { length } = value;
  need(1 + length);
  for (let i = 0; i < length; i++) {
    const code = value.charCodeAt(i);
    if (code > 0x7f) return false;
    scratch[at + 1 + i] = code;
  }
  scratch[at] = 0xa0 | length;
  at += 1 + length;
  return true;
}

function binary(value: Uint8Array): void {
  need(5 + value.length);
  lengthOf(value.length);
  scratch.set(value, at);
  at += value.length;
}
