// OpenAPI 3.1 of compiled routes (https://spec.openapis.org/oas/v3.1.1). Always true: it is made from the same routes and descriptors that serve
// requests, so it cannot promise what is not there; what is served beside them is merged in by whoever serves it.
import {
  type DescEnum,
  type DescField,
  type DescMessage,
  getOption,
  hasOption,
  isFieldSet,
  type Message,
  ScalarType,
} from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence, isWrapperDesc } from '@bufbuild/protobuf/wkt';
import * as validate from '@bufbuild/protovalidate/gen/buf/validate/validate_pb.js';
import { isUnspecified, shortEnumName } from './json-writer.ts';
import { isBound, isQueryLeaf, type Route } from './routes.ts';
import { describeTemplate } from './template.ts';

/** JSON that is an object; OpenAPI's own types would be many and check little. */
export type Json = { [key: string]: unknown };

export interface OpenApiOptions {
  readonly info: { readonly title: string; readonly version: string; readonly description?: string };
  readonly servers?: readonly { readonly url: string }[];
  /** Source comments by full name (`pkg.Message`, `pkg.Message.field`, `pkg.Service.Method`): generated descriptors carry none. */
  readonly comments?: Readonly<Record<string, string>>;
  /** Type names of stream messages that also come as plain text. */
  readonly text?: readonly string[];
  /** Bodies that would be taken as they are, by type name: what a page for trying things out begins with. */
  readonly examples?: Readonly<Record<string, Json>>;
  /** Request headers that an implementation heeds, by the full name of its method. */
  readonly headers?: Readonly<Record<string, readonly { readonly name: string; readonly description: string; readonly example: string }[]>>;
  /** How callers prove who they are: `components.securitySchemes`, and a requirement that any one of them is met, or none where `optional`. */
  readonly security?: { readonly schemes: Readonly<Record<string, Json>>; readonly optional?: boolean };
  /** Hand-written parts, merged in: operations by path and method, schemas by name. */
  readonly extra?: {
    readonly paths?: Readonly<Record<string, Json>>;
    readonly schemas?: Readonly<Record<string, Json>>;
    readonly tags?: readonly Json[];
  };
}

/** Makes the document. Throws when a hand-written operation is one that a route has already. */
export function createOpenApi(routes: readonly Route[], options: OpenApiOptions): Json {
  const schemas = new Schemas(options.comments ?? {});
  const paths: Record<string, Json> = {};
  const used = new Map<string, number>();
  /** Placeholder names by the shape of the path: paths that differ in those names only are one path. */
  const shapes = new Map<string, readonly string[]>();
  for (const route of routes) {
    const { path, operation } = describeRoute(route, schemas, shapes, options);
    const count = (used.get(operation.operationId as string) ?? 0) + 1;
    used.set(operation.operationId as string, count);
    if (count > 1) operation.operationId = `${operation.operationId}_${count}`;
    paths[path] = { ...paths[path], [route.httpMethod.toLowerCase()]: operation };
  }
  for (const [path, operations] of Object.entries(options.extra?.paths ?? {})) {
    const twice = Object.keys(operations).find((method) => paths[path]?.[method] !== undefined);
    if (twice) throw new Error(`${twice.toUpperCase()} ${path} is a route already`);
    paths[path] = { ...paths[path], ...operations };
  }
  const services = [...new Set(routes.map((route) => route.method.parent))];
  const schemes = options.security?.schemes;
  return {
    openapi: '3.1.0',
    info: options.info,
    ...(options.servers && { servers: options.servers }),
    ...(schemes && { security: [...(options.security.optional ? [{}] : []), ...Object.keys(schemes).map((name) => ({ [name]: [] }))] }),
    tags: [
      ...services.map((service) => ({ name: service.name, ...describe(options.comments?.[service.typeName]) })),
      ...(options.extra?.tags ?? []),
    ],
    paths,
    components: {
      schemas: { Error: ERROR, ...schemas.components, ...options.extra?.schemas },
      responses: { Error: { description: 'An error', content: json({ $ref: '#/components/schemas/Error' }) } },
      ...(schemes && { securitySchemes: schemes }),
    },
  };
}

const ERROR: Json = {
  type: 'object',
  required: ['code', 'message', 'details'],
  properties: {
    code: { type: 'string', description: 'Name of a gRPC code, for example NOT_FOUND' },
    message: { type: 'string' },
    details: {
      type: 'array',
      items: { type: 'object', required: ['@type'], properties: { '@type': { type: 'string' } }, additionalProperties: true },
      description: 'Messages of google.rpc, for example type.googleapis.com/google.rpc.BadRequest',
    },
  },
};

function describeRoute(
  route: Route,
  schemas: Schemas,
  shapes: Map<string, readonly string[]>,
  options: OpenApiOptions,
): { path: string; operation: Json } {
  const { method } = route;
  const { path: own, placeholders } = describeTemplate(route.template);
  const shape = own.replace(/\{[^}]*\}/g, '{}');
  const names = shapes.get(shape) ?? placeholders.map((placeholder) => placeholder.name);
  shapes.set(shape, names);
  let at = 0;
  const path = shape.replaceAll('{}', () => `{${names[at++]}}`);
  const parameters: Json[] = placeholders.map(({ variable, rest }, i) => {
    const { fields } = route.variables.find((v) => v.variable === variable)!;
    const field = fields.at(-1)!;
    const schema = variable.multi ? { type: 'string' } : { minLength: 1, ...schemas.scalar(field) };
    const note = rest ? 'May hold slashes. ' : '';
    return { name: names[i], in: 'path', required: true, schema, ...describe(note + (schemas.comment(field) ?? '')) };
  });
  if (route.body !== '*') parameters.push(...queryParameters(route, [], schemas));
  if (route.preferWait) {
    parameters.push(
      header('Prefer', 'wait=N holds the answer for the final state, at most 60 seconds; Preference-Applied says that it did', 'wait=30'),
    );
  }
  if (route.resume)
    parameters.push(header('Last-Event-ID', 'The id of the last event seen; also as the query parameter last_event_id', '41'));
  const fullName = `${method.parent.typeName}.${method.name}`;
  for (const { name, description, example } of options.headers?.[fullName] ?? []) parameters.push(header(name, description, example));
  const comment = options.comments?.[fullName];
  const operation: Json = {
    operationId: `${method.parent.name}_${method.name}`,
    tags: [method.parent.name],
    ...(comment && { summary: firstSentence(comment), description: comment }),
    ...(method.deprecated && { deprecated: true }),
    ...(parameters.length && { parameters }),
    ...(route.body && { requestBody: { required: true, content: json(bodySchema(route, schemas), exampleBody(route, options)) } }),
    responses: { ...responses(route, schemas, options), default: { $ref: '#/components/responses/Error' } },
  };
  return { path, operation };
}

function bodySchema(route: Route, schemas: Schemas): Json {
  if (route.body !== '*') return whole(route.body!, schemas);
  const bound = new Set(route.variables.filter((v) => v.fields.length === 1).map((v) => v.fields[0]));
  // What the path says need not be said again.
  if (bound.size) return schemas.object(route.method.input, (field) => !bound.has(field));
  return schemas.message(route.method.input);
}

function exampleBody({ body, method }: Route, { examples }: OpenApiOptions): Json | undefined {
  const type = body === '*' ? method.input : body?.message;
  return type && examples?.[type.typeName];
}

/** A field that is a body by itself is not null there. */
function whole(field: DescField, schemas: Schemas): Json {
  return field.fieldKind === 'message' ? schemas.message(field.message) : schemas.field(field);
}

function responses(route: Route, schemas: Schemas, options: OpenApiOptions): Json {
  const { output } = route.method;
  const schema = route.responseBody ? whole(route.responseBody, schemas) : schemas.message(output);
  if (route.method.methodKind === 'server_streaming') {
    const content: Json = {
      'text/event-stream': { schema: { type: 'string', description: 'Server-Sent Events; each data is one message in JSON' } },
      'application/x-ndjson': { schema: { ...schema, description: 'One message in JSON a line' } },
    };
    if (options.text?.includes(output.typeName)) content['text/plain'] = { schema: { type: 'string', description: 'Lines for people' } };
    const ended = route.resume && { 204: { description: 'A resumed stream has nothing more to say, and will not have' } };
    return { 200: { description: 'A stream', content }, ...ended };
  }
  if (route.redirect) return { 302: { description: 'Found', headers: { Location: { schema: { type: 'string', format: 'uri' } } } } };
  const headers: Json = {};
  if (route.location) headers.Location = { schema: { type: 'string', format: 'uri-reference' } };
  if (route.retryAfterSeconds) headers['Retry-After'] = { schema: { type: 'integer' }, description: 'Seconds' };
  const success = { description: 'Success', ...(Object.keys(headers).length && { headers }), content: json(schema) };
  if (route.preferWait && route.successStatus !== 200) {
    return {
      [route.successStatus]: success,
      200: { description: 'The final state, which `Prefer: wait` waited for', content: json(schema) },
    };
  }
  return { [route.successStatus]: success };
}

/** Fields that a query can set, nested ones by their path. Recursion ends where a type comes again. */
function queryParameters(route: Route, path: readonly DescField[], schemas: Schemas): Json[] {
  const fields = path.length ? path.at(-1)!.message!.fields : route.method.input.fields;
  return fields.flatMap((field): Json[] => {
    const here = [...path, field];
    if (isBound(route, here)) return [];
    if (isQueryLeaf(field)) {
      const comment = schemas.comment(field);
      return [
        {
          name: here.map((f) => f.name).join('.'),
          in: 'query',
          schema: schemas.query(field),
          ...describe(comment),
          ...(field.deprecated && { deprecated: true }),
        },
      ];
    }
    if (field.fieldKind !== 'message' || field.message.typeName.startsWith('google.protobuf.')) return [];
    const seen = [route.method.input, ...path.map((f) => f.message)];
    return seen.includes(field.message) ? [] : queryParameters(route, here, schemas);
  });
}

function header(name: string, description: string, example: string): Json {
  return { name, in: 'header', schema: { type: 'string' }, description, example };
}

function json(schema: Json, example?: Json): Json {
  return { 'application/json': { schema, ...(example && { example }) } };
}

function describe(text: string | undefined): Json {
  return text ? { description: text.trim() } : {};
}

function firstSentence(text: string): string {
  return (/^[\s\S]*?[.:](?=\s|$)/.exec(text)?.[0] ?? text).replace(/[.:]$/, '').replace(/\s+/g, ' ').slice(0, 120);
}

/** Schemas of messages and enums in the dialect, each made once and referred to by name. */
class Schemas {
  readonly components: Record<string, Json> = {};
  readonly #comments: Readonly<Record<string, string>>;

  constructor(comments: Readonly<Record<string, string>>) {
    this.#comments = comments;
  }

  comment(field: DescField): string | undefined {
    return this.#comments[`${field.parent.typeName}.${field.name}`];
  }

  message(desc: DescMessage): Json {
    const known = wellKnown(desc);
    if (known) return known;
    if (!(desc.typeName in this.components)) {
      this.components[desc.typeName] = {};
      this.components[desc.typeName] = { ...this.object(desc, () => true), ...describe(this.#comments[desc.typeName]) };
    }
    return { $ref: `#/components/schemas/${desc.typeName}` };
  }

  object(desc: DescMessage, keep: (field: DescField) => boolean): Json {
    const fields = desc.fields.filter(keep);
    const required = fields.filter((field) => rulesOf(field)?.required).map((field) => field.name);
    const properties = fields.map((field) => [
      field.name,
      { ...this.field(field), ...describe(this.comment(field)), ...(field.deprecated && { deprecated: true }) },
    ]);
    return { type: 'object', properties: Object.fromEntries(properties), ...(required.length && { required }) };
  }

  /** The schema of a field's value, null included where the field can be unset. */
  field(field: DescField): Json {
    const rules = rulesOf(field);
    if (field.fieldKind === 'list')
      return {
        type: 'array',
        items: this.#single(field, rules?.type.case === 'repeated' ? rules.type.value.items : undefined),
        ...listRules(rules),
      };
    if (field.fieldKind === 'map') {
      return {
        type: 'object',
        additionalProperties: this.#single(field, rules?.type.case === 'map' ? rules.type.value.values : undefined),
        ...mapRules(rules),
      };
    }
    const schema = this.#single(field, rules);
    const unset =
      field.oneof !== undefined || field.presence !== FeatureSet_FieldPresence.IMPLICIT || field.enum?.values.some(isUnspecified);
    if (!unset) return schema;
    if (typeof schema.type === 'string' && !('enum' in schema)) return { ...schema, type: [schema.type, 'null'] };
    return '$ref' in schema ? { oneOf: [schema, { type: 'null' }] } : schema;
  }

  query(field: DescField): Json {
    const rules = rulesOf(field);
    return field.fieldKind === 'list'
      ? { type: 'array', items: this.#single(field, undefined), ...listRules(rules) }
      : this.#single(field, rules);
  }

  scalar(field: DescField): Json {
    return this.#single(field, rulesOf(field));
  }

  #single(field: DescField, rules: validate.FieldRules | undefined): Json {
    if (field.message) return this.message(field.message);
    if (field.enum) return this.#enumeration(field.enum);
    return { ...scalarSchema(field.scalar!), ...scalarRules(rules) };
  }

  #enumeration(desc: DescEnum): Json {
    if (desc.typeName === 'google.protobuf.NullValue') return { type: 'null' };
    const values = [...new Map(desc.values.map((value) => [value.number, value])).values()].filter((value) => !isUnspecified(value));
    const comments = values
      .map((value) => [shortEnumName(value), this.#comments[`${desc.typeName}.${value.name}`]])
      .filter(([, comment]) => comment);
    const text = [this.#comments[desc.typeName], ...comments.map(([name, comment]) => `- ${name}: ${comment}`)].filter(Boolean).join('\n');
    this.components[desc.typeName] ??= { type: 'string', enum: values.map(shortEnumName), ...describe(text) };
    return { $ref: `#/components/schemas/${desc.typeName}` };
  }
}

function wellKnown(desc: DescMessage): Json | undefined {
  switch (desc.typeName) {
    case 'google.protobuf.Timestamp':
      return { type: 'string', format: 'date-time' };
    case 'google.protobuf.Duration':
      return { type: 'string', pattern: '^-?[0-9]+(\\.[0-9]{1,9})?s$', examples: ['3.5s'] };
    case 'google.protobuf.FieldMask':
      return { type: 'string', description: 'Field paths, joined by commas' };
    case 'google.protobuf.Struct':
      return { type: 'object', additionalProperties: true };
    case 'google.protobuf.Value':
      return { description: 'Any JSON value' };
    case 'google.protobuf.ListValue':
      return { type: 'array', items: {} };
    case 'google.protobuf.Any':
      return { type: 'object', properties: { '@type': { type: 'string' } }, additionalProperties: true };
    default:
      return isWrapperDesc(desc) ? scalarSchema(desc.fields[0]!.scalar!) : undefined;
  }
}

function scalarSchema(type: ScalarType): Json {
  switch (type) {
    case ScalarType.STRING:
      return { type: 'string' };
    case ScalarType.BOOL:
      return { type: 'boolean' };
    case ScalarType.BYTES:
      return { type: 'string', format: 'byte', contentEncoding: 'base64' };
    case ScalarType.DOUBLE:
      return { type: 'number', format: 'double' };
    case ScalarType.FLOAT:
      return { type: 'number', format: 'float' };
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return { type: 'integer', format: 'int64', minimum: 0, maximum: 4294967295 };
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return { type: 'integer', format: 'int32' };
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return { type: 'string', format: 'uint64', pattern: '^[0-9]+$' };
    default:
      return { type: 'string', format: 'int64', pattern: '^-?[0-9]+$' };
  }
}

/** The protovalidate rules of a field (https://protovalidate.com/reference/rules/). Those with an exact counterpart in JSON Schema are shown. */
function rulesOf(field: DescField): validate.FieldRules | undefined {
  return hasOption(field, validate.field) ? getOption(field, validate.field) : undefined;
}

function scalarRules(rules: validate.FieldRules | undefined): Json {
  const type = rules?.type;
  switch (type?.case) {
    case 'string': {
      const { len, minLen, maxLen, pattern, in: choices } = set(validate.StringRulesSchema, type.value);
      const formats: Record<string, string> = {
        email: 'email',
        hostname: 'hostname',
        uri: 'uri',
        uriRef: 'uri-reference',
        uuid: 'uuid',
        ipv4: 'ipv4',
        ipv6: 'ipv6',
      };
      return defined({
        minLength: asNumber(len ?? minLen),
        maxLength: asNumber(len ?? maxLen),
        pattern,
        enum: choices?.length ? choices : undefined,
        format: formats[type.value.wellKnown.case ?? ''],
      });
    }
    case 'double':
    case 'float':
    case 'int32':
    case 'uint32':
    case 'sint32':
    case 'fixed32':
    case 'sfixed32': {
      const { greaterThan, lessThan } = type.value;
      return defined({
        minimum: greaterThan.case === 'gte' ? greaterThan.value : undefined,
        exclusiveMinimum: greaterThan.case === 'gt' ? greaterThan.value : undefined,
        maximum: lessThan.case === 'lte' ? lessThan.value : undefined,
        exclusiveMaximum: lessThan.case === 'lt' ? lessThan.value : undefined,
      });
    }
    default:
      return {};
  }
}

function listRules(rules: validate.FieldRules | undefined): Json {
  if (rules?.type.case !== 'repeated') return {};
  const { minItems, maxItems, unique } = set(validate.RepeatedRulesSchema, rules.type.value);
  return defined({ minItems: asNumber(minItems), maxItems: asNumber(maxItems), uniqueItems: unique });
}

function mapRules(rules: validate.FieldRules | undefined): Json {
  if (rules?.type.case !== 'map') return {};
  const { minPairs, maxPairs } = set(validate.MapRulesSchema, rules.type.value);
  return defined({ minProperties: asNumber(minPairs), maxProperties: asNumber(maxPairs) });
}

/** Only the fields that are set: rules are proto2, whose messages show defaults for the others. */
function set<T extends Message>(desc: DescMessage, message: T): Partial<T> {
  return Object.fromEntries(
    desc.fields
      .filter((field) => isFieldSet(message, field))
      .map((field) => [field.localName, (message as Record<string, unknown>)[field.localName]]),
  ) as Partial<T>;
}

function asNumber(value: bigint | undefined): number | undefined {
  return value === undefined ? undefined : Number(value);
}

function defined(schema: Json): Json {
  return Object.fromEntries(Object.entries(schema).filter(([, value]) => value !== undefined));
}
