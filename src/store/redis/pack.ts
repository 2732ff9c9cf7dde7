// The arguments of a script as one MessagePack array of strings (https://github.com/msgpack/msgpack/blob/master/spec.md), which Redis unpacks in C:
// thirty arguments by themselves cost more than the step that they are for, on both sides.

const FIRST_BYTES = 64 * 1024;
/** A buffer that has grown beyond this is not kept. */
const KEPT_BYTES = 4 * 1024 * 1024;

let scratch = Buffer.allocUnsafeSlow(FIRST_BYTES);

export function pack(args: readonly (string | number | Uint8Array)[]): Buffer {
  let at = 0;
  const need = (bytes: number) => {
    if (at + bytes <= scratch.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(scratch.length * 2, at + bytes));
    scratch.copy(larger, 0, 0, at);
    scratch = larger;
  };
  const lengthOf = (length: number) => {
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
  };
  need(5);
  scratch[at] = 0xdd;
  at = scratch.writeUInt32BE(args.length, 1);
  for (const arg of args) {
    if (arg instanceof Uint8Array) {
      need(5 + arg.length);
      lengthOf(arg.length);
      scratch.set(arg, at);
      at += arg.length;
    } else {
      const text = typeof arg === 'number' ? `${arg}` : arg;
      const length = Buffer.byteLength(text);
      need(5 + length);
      lengthOf(length);
      at += scratch.write(text, at);
    }
  }
  const packed = Buffer.allocUnsafe(at);
  scratch.copy(packed, 0, 0, at);
  if (scratch.length > KEPT_BYTES) scratch = Buffer.allocUnsafeSlow(FIRST_BYTES);
  return packed;
}
