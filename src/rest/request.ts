// An HTTP request becomes a request message. Always true: every part of the request that carries data (path, query, body) ends up in a field or
// is refused by name; the JSON reader judges all values, so a path, a query and a body obey the same rules.
import type { DescField, JsonObject, JsonValue, Message } from '@bufbuild/protobuf';
import { create, ScalarType } from '@bufbuild/protobuf';
import { isWrapperDesc } from '@bufbuild/protobuf/wkt';
import { badRequest, type FieldViolation } from './errors.ts';
import { didYouMean, type JsonReader } from './json-reader.ts';
import { isObject, parseJson } from './json-text.ts';
import { hasMoreElements, mostElements, tooManyElements } from './limits.ts';
import { isBound, isQueryLeaf, type Route } from './routes.ts';
import { capture, PathError } from './template.ts';

export interface DecodeOptions {
  readonly reader: JsonReader;
  /** Query parameters that are nobody's field and are left to others, for example a signature. */
  readonly ignoredQuery: ReadonlySet<string>;
}

/** Takes the raw path segments, the raw query (no '?'; '' for none), the body's text ('' for none), and a value for the resume field. */
export type Decode = (segments: readonly string[], query: string, body: string, resume?: string) => Message;

/** Compiles what turns requests of one route into messages. The function throws INVALID_ARGUMENT with the fields that are at fault. */
export function compileDecoder(route: Route, { reader, ignoredQuery }: DecodeOptions): Decode {
  const { input } = route.method;
  const where = route.body === '*' ? undefined : { body: route.body?.name };
  const plain = compilePathOnly(route);
  const most = mostElements(input);
  return (segments, query, body, resume) => {
    if (plain && query === '' && body === '' && resume === undefined) return plain(segments);
    if (hasMoreElements(body, most)) throw badRequest([], tooManyElements(most));
    const json = fromBody(route, body);
    if (query !== '') fromQuery(route, query, json, ignoredQuery);
    for (const { variable, fields } of route.variables)
      put(
        json,
        fields,
        textToJson(
          fields.at(-1)!,
          decodeVariable(() => capture(variable, segments)),
        ),
      );
    if (resume !== undefined && route.resume) put(json, [route.resume], textToJson(route.resume, resume));
    return reader.message(input, json, where);
  };
}

/**
 * For requests that are all path: text goes into its fields as it is, because there is nothing about text that the JSON reader could refuse.
 * Undefined where a variable is anything else.
 */
function compilePathOnly({ method, variables }: Route): ((segments: readonly string[]) => Message) | undefined {
  const { input } = method;
  const simple = variables.every(
    ({ fields: [field, ...more] }) =>
      more.length === 0 && field.fieldKind === 'scalar' && field.scalar === ScalarType.STRING && field.oneof === undefined,
  );
  if (!simple) return undefined;
  const names = variables.map(({ variable, fields: [field] }) => ({ variable, name: field.localName }));
  return (segments) => {
    const message = create(input) as unknown as Record<string, unknown>;
    for (const { variable, name } of names) message[name] = decodeVariable(() => capture(variable, segments));
    return message as unknown as Message;
  };
}

function decodeVariable(read: () => string): string {
  try {
    return read();
  } catch (error) {
    if (error instanceof PathError) throw badRequest([], error.message);
    throw error;
  }
}

function fromBody(route: Route, text: string): JsonObject {
  if (text === '') return {};
  const json = parseJson(text);
  if (route.body === '*') {
    if (!isObject(json)) throw badRequest([{ field: '', description: 'the body must be a JSON object' }]);
    return json;
  }
  if (route.body) return { [route.body.name]: json };
  if (isObject(json) && Object.keys(json).length === 0) return {};
  throw badRequest([], 'this method takes no body');
}

function fromQuery(route: Route, query: string, json: JsonObject, ignored: ReadonlySet<string>): void {
  const violations: FieldViolation[] = [];
  for (const pair of query.split('&')) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const name = decodeQuery(equals < 0 ? pair : pair.slice(0, equals));
    if (ignored.has(name)) continue;
    const fields = resolve(route, name);
    if (typeof fields === 'string') {
      violations.push({ field: name, description: fields });
      continue;
    }
    const last = fields.at(-1)!;
    const value = textToJson(last, equals < 0 ? '' : decodeQuery(pair.slice(equals + 1)));
    if (last.fieldKind === 'list') {
      const so = get(json, fields);
      if (Array.isArray(so)) so.push(value);
      else put(json, fields, [value]);
    } else if (get(json, fields) !== undefined) violations.push({ field: name, description: 'is given twice' });
    else put(json, fields, value);
  }
  if (violations.length) throw badRequest(violations);
}

/** The field that a query parameter names, or why there is none. */
function resolve(route: Route, name: string): readonly DescField[] | string {
  if (route.body === '*') return 'is not a query parameter: this method takes all of its fields in the body';
  let fields: readonly DescField[] = route.method.input.fields;
  const path: DescField[] = [];
  for (const step of name.split('.')) {
    const field = fields.find((f) => f.name === step || f.jsonName === step);
    const open = fields.filter((f) => !isBound(route, [...path, f]));
    if (!field || isBound(route, [...path, field])) {
      return `is not a query parameter of this method${didYouMean(
        step,
        open.map((f) => f.name),
      )}`;
    }
    path.push(field);
    fields = field.fieldKind === 'message' && !isQueryLeaf(field) ? field.message.fields : [];
  }
  if (!isQueryLeaf(path.at(-1)!)) return 'cannot be given in a query';
  return path;
}

/** A path variable or query value in the JSON form that the reader expects for the field. */
function textToJson(field: DescField, text: string): JsonValue {
  const wrapped = field.message && isWrapperDesc(field.message) ? field.message.fields[0]! : field;
  if (wrapped.scalar === ScalarType.BOOL) return text === 'true' || text === '1' ? true : text === 'false' || text === '0' ? false : text;
  if (wrapped.enum && /^-?\d{1,10}$/.test(text)) return Number(text);
  return text;
}

/** Decodes a name or a value of a query; throws INVALID_ARGUMENT where it is malformed. */
export function decodeQuery(raw: string): string {
  const text = raw.includes('+') ? raw.replaceAll('+', ' ') : raw;
  if (!text.includes('%')) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    throw badRequest([], `malformed percent-encoding in the query at "${raw.slice(0, 60)}"`);
  }
}

function get(json: JsonObject, fields: readonly DescField[]): JsonValue | undefined {
  let at: JsonValue | undefined = json;
  for (const field of fields) {
    if (!isObject(at)) return undefined;
    at = at[field.name];
  }
  return at;
}

/** Sets a value on a path of fields. What a body says about the same field, by either name, gives way. */
function put(json: JsonObject, fields: readonly DescField[], value: JsonValue): void {
  let at = json;
  for (let i = 0; i < fields.length; i++) {
    const { name, jsonName } = fields[i]!;
    const last = i === fields.length - 1;
    if (jsonName !== name && Object.hasOwn(at, jsonName)) {
      at[name] = at[jsonName]!;
      delete at[jsonName];
    }
    if (last) {
      at[name] = value;
      return;
    }
    const next = at[name] ?? {};
    at[name] = next;
    if (!isObject(next)) return; // not an object where one belongs: the reader refuses it
    at = next;
  }
}
