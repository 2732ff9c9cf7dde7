// JSON in the REST dialect to messages. Always true: what `json-writer.ts` prints is read back as the same message, and plain ProtoJSON is read
// too. A pass over the value, driven by descriptors, brings names and enum values to their canonical form, takes null as "not set" and refuses
// what it does not know; @bufbuild/protobuf's own parser does the rest. Refusals are INVALID_ARGUMENT and name each field by its path.
import {
  type DescEnum,
  type DescField,
  type DescMessage,
  fromJson,
  type JsonObject,
  type JsonValue,
  type MessageShape,
  type Registry,
  ScalarType,
} from '@bufbuild/protobuf';
import { protoCamelCase } from '@bufbuild/protobuf/reflect';
import { isWrapperDesc } from '@bufbuild/protobuf/wkt';
import { distance } from 'fastest-levenshtein';
import type { FieldViolation } from './errors.ts';
import { badRequest } from './errors.ts';
import { isObject, quote } from './json-text.ts';
import { isUnspecified, shortEnumName } from './json-writer.ts';
import { sizeLimit, tooLarge } from './limits.ts';

export interface JsonReader {
  /**
   * Reads a message. `prefix` stands before the field paths in violations; `body` names the field whose value is all that the caller sees of
   * the message, so that paths into it begin inside it. Throws a ConnectError, INVALID_ARGUMENT, with a google.rpc.BadRequest that holds every
   * violation found (at most 50).
   */
  message<D extends DescMessage>(desc: D, json: JsonValue, where?: { readonly prefix?: string; readonly body?: string }): MessageShape<D>;
}

const MAX_VIOLATIONS = 50;
/** Nesting of arrays and objects in a body; the deepest legitimate ones are Structs. */
const MAX_DEPTH = 64;

/** Where a value is; written out only when something is wrong with it. */
interface Path {
  readonly parent: Path | undefined;
  /** A name, or an index in brackets. */
  readonly step: string;
}

interface Pass {
  readonly violations: FieldViolation[];
  readonly body: string | undefined;
  depth: number;
}

type Normalise = (json: JsonValue, at: Path | undefined, pass: Pass) => JsonValue;

export function createJsonReader(registry?: Registry): JsonReader {
  const options = { registry, recursionLimit: 4 * MAX_DEPTH };
  const compiled = new Map<DescMessage, Normalise>();

  function normaliser(desc: DescMessage): Normalise {
    const known = compiled.get(desc);
    if (known) return known;
    compiled.set(desc, (json, at, pass) => compiled.get(desc)!(json, at, pass));
    const built = nested(compile(desc));
    compiled.set(desc, built);
    return built;
  }

  function compile(desc: DescMessage): Normalise {
    switch (desc.typeName) {
      case 'google.protobuf.Struct':
      case 'google.protobuf.Value':
      case 'google.protobuf.ListValue':
        return freeForm;
      case 'google.protobuf.FieldMask':
        return (json) => (typeof json === 'string' ? json.split(',').map(camelPath).join(',') : json);
      case 'google.protobuf.Any':
        return any;
      case 'google.protobuf.Timestamp':
      case 'google.protobuf.Duration':
        return (json) => json;
    }
    if (isWrapperDesc(desc)) return scalarOf(desc.fields[0]!.scalar!) ?? ((json) => json);
    const keys = new Map<string, { field: DescField; normalise: Normalise | undefined }>();
    for (const field of desc.fields) {
      const entry = { field, normalise: ofField(field) };
      keys.set(field.name, entry).set(field.jsonName, entry);
    }
    return (json, at, pass) => {
      if (!isObject(json)) return json;
      const out: JsonObject = {};
      let groups: Map<string, string> | undefined;
      for (const key of Object.keys(json)) {
        const value = json[key]!;
        const entry = keys.get(key);
        if (!entry) {
          refuse(
            pass,
            { parent: at, step: key },
            `is not a field of ${desc.name}${didYouMean(
              key,
              desc.fields.map((field) => field.name),
            )}`,
          );
          continue;
        }
        if (value === null) continue;
        const { field } = entry;
        if (Object.hasOwn(out, field.jsonName)) refuse(pass, { parent: at, step: field.name }, 'is given twice');
        if (field.oneof) {
          groups ??= new Map();
          const other = groups.get(field.oneof.name);
          if (other !== undefined && other !== field.name)
            refuse(pass, { parent: at, step: field.name }, `cannot be set together with ${other}`);
          groups.set(field.oneof.name, field.name);
        }
        out[field.jsonName] = entry.normalise ? entry.normalise(value, { parent: at, step: field.name }, pass) : value;
      }
      return out;
    };
  }

  function ofField(field: DescField): Normalise | undefined {
    const element = ofElement(field);
    const limit = sizeLimit(field);
    const refuseTooLarge = (size: number, at: Path | undefined, pass: Pass): boolean => {
      if (limit === undefined || size <= limit.max) return false;
      refuse(pass, at, tooLarge(limit, size));
      return true;
    };
    if (field.fieldKind === 'list') {
      return nested((json, at, pass) => {
        if (!Array.isArray(json)) return json;
        if (refuseTooLarge(json.length, at, pass)) return [];
        if (!element) return json;
        return json.map((item, i) => (item === null ? null : element(item, { parent: at, step: `[${i}]` }, pass)));
      });
    }
    if (field.fieldKind === 'map') {
      return nested((json, at, pass) => {
        if (!isObject(json)) return json;
        const names = Object.keys(json);
        if (refuseTooLarge(names.length, at, pass)) return {};
        if (!element) return json;
        // No prototype: a key may be "__proto__".
        const out = Object.create(null) as JsonObject;
        for (const key of names) out[key] = json[key] === null ? null : element(json[key]!, { parent: at, step: `["${key}"]` }, pass);
        return out;
      });
    }
    return element;
  }

  function ofElement(field: DescField): Normalise | undefined {
    if (field.message) return normaliser(field.message);
    if (field.enum) return enumeration(field.enum);
    return scalarOf(field.scalar!);
  }

  function any(json: JsonValue, at: Path | undefined, pass: Pass): JsonValue {
    if (!isObject(json) || typeof json['@type'] !== 'string') return json;
    const { '@type': typeUrl, ...rest } = json;
    const desc = registry?.getMessage(typeUrl.slice(typeUrl.lastIndexOf('/') + 1));
    if (!desc) {
      refuse(pass, { parent: at, step: '@type' }, `is not a type known here: ${quote(typeUrl)}`);
      return json;
    }
    if (desc.typeName.startsWith('google.protobuf.') && 'value' in rest)
      return { '@type': typeUrl, value: normaliser(desc)(rest.value!, at, pass) };
    return { '@type': typeUrl, ...(normaliser(desc)(rest, at, pass) as JsonObject) };
  }

  function message<D extends DescMessage>(
    desc: D,
    json: JsonValue,
    { prefix, body }: { readonly prefix?: string; readonly body?: string } = {},
  ): MessageShape<D> {
    const pass: Pass = { violations: [], depth: 0, body };
    const root: Path | undefined = prefix ? { parent: undefined, step: prefix } : undefined;
    const canonical = normaliser(desc)(json, root, pass);
    if (pass.violations.length) throw badRequest(pass.violations);
    try {
      return fromJson(desc, canonical, options);
    } catch (cause) {
      locate(desc, canonical, root, pass);
      if (!pass.violations.length) refuse(pass, root, cause instanceof Error ? cause.message : String(cause));
      throw badRequest(pass.violations);
    }
  }

  /** Finds the values that the library's parser refused, by giving it each field alone. Runs only after a refusal. */
  function locate(desc: DescMessage, json: JsonValue, at: Path | undefined, pass: Pass): void {
    if (desc.typeName.startsWith('google.protobuf.') || !isObject(json)) {
      if (!accepted(desc, json)) refuse(pass, at, `must be ${describeMessage(desc)}, not ${quote(json)}`);
      return;
    }
    for (const field of desc.fields) {
      const value = json[field.jsonName];
      if (value === undefined || accepted(field.parent, { [field.jsonName]: value })) continue;
      const here = { parent: at, step: field.name };
      const one = (item: JsonValue, path: Path) => {
        if (item === null) refuse(pass, path, 'must not be null');
        else if (field.message) locate(field.message, item, path, pass);
        else refuse(pass, path, `must be ${describeScalar(field)}, not ${quote(item)}`);
      };
      if (field.fieldKind === 'list') {
        if (!Array.isArray(value)) refuse(pass, here, `must be an array, not ${quote(value)}`);
        else {
          for (const [i, item] of value.entries()) {
            if (!accepted(field.parent, { [field.jsonName]: [item] })) one(item, { parent: here, step: `[${i}]` });
          }
        }
      } else if (field.fieldKind === 'map') {
        if (!isObject(value)) refuse(pass, here, `must be an object, not ${quote(value)}`);
        else {
          for (const key of Object.keys(value)) {
            const path = { parent: here, step: `["${key}"]` };
            if (accepted(field.parent, { [field.jsonName]: { [key]: value[key]! } })) continue;
            const before = pass.violations.length;
            if (value[key] === null || field.message || field.mapKey === ScalarType.STRING) one(value[key]!, path);
            if (pass.violations.length === before) refuse(pass, path, `is not a key or value of this map: ${quote(value[key]!)}`);
          }
        }
      } else one(value, here);
    }
  }

  function accepted(desc: DescMessage, json: JsonValue): boolean {
    try {
      fromJson(desc, json, options);
      return true;
    } catch {
      return false;
    }
  }

  return { message };
}

/** Counts nesting, so that neither this pass nor the library's parser can be led too deep. */
function nested(inner: Normalise): Normalise {
  return (json, at, pass) => {
    if (json === null || typeof json !== 'object') return inner(json, at, pass);
    if (pass.depth >= MAX_DEPTH) {
      refuse(pass, at, `is nested more than ${MAX_DEPTH} levels deep`);
      return null;
    }
    pass.depth++;
    const out = inner(json, at, pass);
    pass.depth--;
    return out;
  };
}

/** Free-form JSON is taken as it is; only its depth is bounded. */
const freeForm: Normalise = (json, at, pass) => {
  if (json !== null && typeof json === 'object') for (const value of Object.values(json)) deeper(value!, at, pass);
  return json;
};
const deeper = nested(freeForm);

function scalarOf(type: ScalarType): Normalise | undefined {
  switch (type) {
    case ScalarType.INT64:
    case ScalarType.UINT64:
    case ScalarType.SINT64:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return (json, at, pass) => {
        // JSON.parse has rounded it already.
        if (typeof json === 'number' && Number.isInteger(json) && !Number.isSafeInteger(json))
          refuse(pass, at, 'is too large for a JSON number; give it as a string');
        return json;
      };
    default:
      return undefined;
  }
}

function enumeration(desc: DescEnum): Normalise {
  const names = new Map<string, string>();
  for (const value of desc.values) names.set(value.name, value.name);
  for (const value of desc.values) {
    const short = shortEnumName(value);
    if (!names.has(short)) names.set(short, value.name);
  }
  const known = (json: string) => names.get(json) ?? names.get(json.toLowerCase()) ?? names.get(json.toUpperCase());
  return (json, at, pass) => {
    if (typeof json !== 'string') return json;
    const name = known(json);
    if (name !== undefined) return name;
    const choices = choicesOf(desc);
    refuse(pass, at, `must be one of ${choices.join(', ')}, not ${quote(json)}${didYouMean(json.toLowerCase(), choices)}`);
    return json;
  };
}

/** What people are told that they may write; that a value is not set is said by leaving it out. */
function choicesOf(desc: DescEnum): string[] {
  return desc.values.filter((value) => !isUnspecified(value)).map(shortEnumName);
}

/** A path of a FieldMask, whose JSON form is lowerCamelCase. */
function camelPath(path: string): string {
  return path.trim().split('.').map(protoCamelCase).join('.');
}

function refuse(pass: Pass, at: Path | undefined, description: string): void {
  if (pass.violations.length < MAX_VIOLATIONS) pass.violations.push({ field: insideBody(printPath(at), pass.body), description });
}

function insideBody(path: string, body: string | undefined): string {
  return body !== undefined && path.startsWith(`${body}.`) ? path.slice(body.length + 1) : path;
}

function printPath(at: Path | undefined): string {
  let out = '';
  for (let p = at; p; p = p.parent) out = out === '' || out.startsWith('[') ? p.step + out : `${p.step}.${out}`;
  return out;
}

function describeMessage(desc: DescMessage): string {
  switch (desc.typeName) {
    case 'google.protobuf.Timestamp':
      return 'an RFC 3339 time such as "2025-04-05T14:15:00Z"';
    case 'google.protobuf.Duration':
      return 'a duration in seconds such as "3.5s"';
    case 'google.protobuf.ListValue':
      return 'an array';
    case 'google.protobuf.FieldMask':
      return 'field names joined by commas';
    default:
      return isWrapperDesc(desc) ? describeScalar(desc.fields[0]!) : 'an object';
  }
}

/** What a value of this field looks like, for people. */
function describeScalar(field: { scalar?: ScalarType | undefined; enum?: DescEnum | undefined }): string {
  if (field.enum) return `one of ${choicesOf(field.enum).join(', ')}`;
  switch (field.scalar) {
    case ScalarType.STRING:
      return 'a string of valid Unicode';
    case ScalarType.BOOL:
      return 'true or false';
    case ScalarType.BYTES:
      return 'bytes in base64';
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return 'a number';
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return 'a whole number from 0 to 4294967295';
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return 'a whole number that is not negative';
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return 'a whole number from -2147483648 to 2147483647';
    default:
      return 'a whole number';
  }
}

/** `; did you mean "x"?` when one of the names is close, else nothing. */
export function didYouMean(given: string, names: readonly string[]): string {
  if (given.length > 64) return '';
  const wanted = given.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`).replaceAll('-', '_');
  let best: string | undefined;
  let least = Math.min(3, Math.floor(wanted.length / 3) + 1);
  for (const name of names) {
    const far = distance(wanted, name);
    if (far < least || (far === least && best === undefined && far <= 2)) {
      least = far;
      best = name;
    }
  }
  return best === undefined ? '' : `; did you mean ${JSON.stringify(best)}?`;
}
