// What the steps of a script answer, as one MessagePack array (https://github.com/msgpack/msgpack/blob/master/spec.md) that Redis packs in C. As Redis's own replies the
// server writes them to the socket in many pieces, one for each nested table, and each piece costs a call of the system on both sides. A MessagePack
// library has no place for it: Redis packs every Lua string as text, bytes of Protobuf too, which such a library would decode as UTF-8 and spoil.
import { ReplyError } from 'ioredis';
import type { Reply } from './script.ts';

let bytes: Buffer;
let at: number;

/** A reply for each step, as Redis itself would answer it: nothing and false are null, true is 1; a step that failed has its error. */
export function unpackReplies(packed: Buffer): (Reply | Error)[] {
  bytes = packed;
  at = 0;
  const replies = next();
  if (!Array.isArray(replies)) throw new Error('a script has not answered with a list');
  return replies as (Reply | Error)[];
}

function next(): Reply | Error {
  const type = bytes[at++]!;
  if (type < 0x80) return type;
  if (type < 0x90) return failure(type & 0x0f);
  if (type < 0xa0) return list(type & 0x0f);
  if (type < 0xc0) return text(type & 0x1f);
  if (type >= 0xe0) return type - 0x100;
  switch (type) {
    case 0xc0:
    case 0xc2:
      return null;
    case 0xc3:
      return 1;
    case 0xd9:
      return text(bytes[at++]!);
    case 0xda:
      return text(number(bytes.readUInt16BE(at), 2));
    case 0xdb:
      return text(number(bytes.readUInt32BE(at), 4));
    case 0xdc:
      return list(number(bytes.readUInt16BE(at), 2));
    case 0xdd:
      return list(number(bytes.readUInt32BE(at), 4));
    case 0xca:
      return number(bytes.readFloatBE(at), 4);
    case 0xcb:
      return number(bytes.readDoubleBE(at), 8);
    case 0xcc:
      return bytes[at++]!;
    case 0xcd:
      return number(bytes.readUInt16BE(at), 2);
    case 0xce:
      return number(bytes.readUInt32BE(at), 4);
    case 0xcf:
      return number(Number(bytes.readBigUInt64BE(at)), 8);
    case 0xd0:
      return number(bytes.readInt8(at), 1);
    case 0xd1:
      return number(bytes.readInt16BE(at), 2);
    case 0xd2:
      return number(bytes.readInt32BE(at), 4);
    case 0xd3:
      return number(Number(bytes.readBigInt64BE(at)), 8);
  }
  // A table with holes among them.
  throw new Error(`a script has answered with what is no reply (0x${type?.toString(16)})`);
}

/** Read where `at` was, in so many bytes. */
function number(value: number, length: number): number {
  at += length;
  return value;
}

function text(length: number): Buffer {
  at += length;
  return bytes.subarray(at - length, at);
}

function list(length: number): Reply[] {
  const values: Reply[] = new Array(length);
  for (let i = 0; i < length; i++) values[i] = next() as Reply;
  return values;
}

/** `{err = message}` */
function failure(fields: number): Error {
  const [name, message] = [next(), next()];
  if (fields !== 1 || String(name) !== 'err') throw new Error('a script has answered with a table that is no list');
  return new ReplyError(String(message));
}
