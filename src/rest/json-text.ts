// JSON as text, before anything is known of its fields (https://www.rfc-editor.org/rfc/rfc8259). Always true: a text that is none is refused with the place
// where it stops being one.
import type { JsonObject, JsonValue } from '@bufbuild/protobuf';
import { badRequest } from './errors.ts';

/** JSON.parse whose refusal says where: a ConnectError, INVALID_ARGUMENT, with line and column. */
export function parseJson(text: string): JsonValue {
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    const offset = jsonErrorAt(text);
    const before = text.slice(0, offset).split('\n');
    const found =
      offset >= text.length ? 'the text ends too early' : `unexpected ${quote(String.fromCodePoint(text.codePointAt(offset)!))}`;
    throw badRequest([], `the body is not valid JSON: ${found} at line ${before.length}, column ${before.at(-1)!.length + 1}`);
  }
}

/** Offset of the first character at which a text stops being JSON. V8 says so in some of its messages only. */
function jsonErrorAt(text: string): number {
  const token =
    /[ \t\n\r]*(?:([{}[\],:])|("(?:[ !#-[\]-\uffff]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)/y;
  const space = /[ \t\n\r]*/y;
  const open: string[] = [];
  let want: 'value' | 'value or ]' | 'key or }' | 'key' | 'colon' | 'separator' | 'end' = 'value';
  let at = 0;
  for (;;) {
    space.lastIndex = at;
    space.exec(text);
    const start = space.lastIndex;
    token.lastIndex = at;
    const found = token.exec(text);
    if (!found) return furthest(text, start);
    at = token.lastIndex;
    const [, mark, string] = found;
    const after = () => (open.length ? 'separator' : 'end');
    if (want === 'value' || want === 'value or ]') {
      if (mark === '{' || mark === '[') {
        open.push(mark);
        want = mark === '{' ? 'key or }' : 'value or ]';
      } else if (mark === ']' && want === 'value or ]') {
        open.pop();
        want = after();
      } else if (mark) return start;
      else want = after();
    } else if (want === 'key' || want === 'key or }') {
      if (string) want = 'colon';
      else if (mark === '}' && want === 'key or }') {
        open.pop();
        want = after();
      } else return start;
    } else if (want === 'colon') {
      if (mark !== ':') return start;
      want = 'value';
    } else if (want === 'separator') {
      const inside = open.at(-1);
      if (mark === ',') want = inside === '{' ? 'key' : 'value';
      else if (mark === (inside === '{' ? '}' : ']')) {
        open.pop();
        want = after();
      } else return start;
    } else return start;
  }
}

/** Inside a broken string the fault is at the character that breaks it, not at the opening quote. */
function furthest(text: string, start: number): number {
  if (text[start] !== '"') return start;
  const good = /"(?:[ !#-[\]-\uffff]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*/y;
  good.lastIndex = start;
  good.exec(text);
  return good.lastIndex;
}

export function isObject(json: JsonValue | undefined): json is JsonObject {
  return typeof json === 'object' && json !== null && !Array.isArray(json);
}

/** For people: a value as it was written, cut where it is long. */
export function quote(json: JsonValue): string {
  const text = JSON.stringify(json);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
