// The arguments of steps as one MessagePack array: of each step how many, and those, strings and arrays of such (https://github.com/msgpack/msgpack/blob/master/spec.md), which Redis unpacks in
// C: thirty arguments by themselves cost more than the step that they are for, on both sides.

export type Argument = string | number | Uint8Array | Arguments;
export type Arguments = readonly Argument[];

/** What is packed lies side by side in slabs, each as long as something in it is still to be sent: a buffer of its own costs more than what is in it. */
const SLAB_BYTES = 1024 * 1024;
/** Array with its length in four bytes. */
const ARRAY_32 = 0xdd;
const UINT_32 = 0xce;
/** Below, a loop is quicker than the calls that measure and copy. */
const SHORT = 32;

let slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
/** Where what is being packed begins, and goes on. */
let start = 0;
let at = 0;

/** The first of `steps`: `most` of them, or fewer when they come to so many bytes; one in any case. */
export function packSteps(
  steps: readonly { readonly args: Arguments }[],
  most: number,
  bytes: number,
): { readonly packed: Buffer; readonly count: number } {
  at = start;
  need(5);
  at += 5;
  let count = 0;
  let values = 0;
  for (const { args } of steps) {
    if (count === most || (count > 0 && at - start >= bytes)) break;
    need(5);
    slab[at] = UINT_32;
    at = slab.writeUInt32BE(args.length, at + 1);
    all(args);
    count++;
    values += 1 + args.length;
  }
  slab[start] = ARRAY_32;
  slab.writeUInt32BE(values, start + 1);
  const packed = slab.subarray(start, at);
  start = at;
  return { packed, count };
}

function need(bytes: number): void {
  if (at + bytes <= slab.length) return;
  const next = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, 2 * (at - start + bytes)));
  slab.copy(next, 0, start, at);
  slab = next;
  at -= start;
  start = 0;
}

function array(args: Arguments): void {
  need(5);
  slab[at] = ARRAY_32;
  at = slab.writeUInt32BE(args.length, at + 1);
  all(args);
}

function all(args: Arguments): void {
  for (const arg of args) {
    if (typeof arg === 'string') text(arg);
    else if (typeof arg === 'number') text(`${arg}`);
    else if (arg instanceof Uint8Array) binary(arg);
    else array(arg);
  }
}

function lengthOf(length: number): void {
  if (length < 32) slab[at++] = 0xa0 | length;
  else if (length < 0x1_00) {
    slab[at++] = 0xd9;
    slab[at++] = length;
  } else if (length < 0x1_00_00) {
    slab[at] = 0xda;
    at = slab.writeUInt16BE(length, at + 1);
  } else {
    slab[at] = 0xdb;
    at = slab.writeUInt32BE(length, at + 1);
  }
}

function text(value: string): void {
  if (value.length < SHORT && ascii(value)) return;
  const length = Buffer.byteLength(value);
  need(5 + length);
  lengthOf(length);
  at += slab.write(value, at);
}

/** False: it is none, and nothing is written. */
function ascii(value: string): boolean {
  const { length } = value;
  need(1 + length);
  for (let i = 0; i < length; i++) {
    const code = value.charCodeAt(i);
    if (code > 0x7f) return false;
    slab[at + 1 + i] = code;
  }
  slab[at] = 0xa0 | length;
  at += 1 + length;
  return true;
}

function binary(value: Uint8Array): void {
  need(5 + value.length);
  lengthOf(value.length);
  slab.set(value, at);
  at += value.length;
}
