// From service descriptors to routes. Always true: a route that exists can be served. Everything that a rule names (fields, bodies, oneofs) is
// resolved when the process starts, and a rule that cannot be served stops it there, with the method and the template in the sentence.
import {
  type DescField,
  type DescMessage,
  type DescMethod,
  type DescOneof,
  type DescService,
  getOption,
  hasOption,
  ScalarType,
} from '@bufbuild/protobuf';
import { isWrapperDesc } from '@bufbuild/protobuf/wkt';
import { http } from '../../gen/google/api/annotations_pb.js';
import type { HttpRule } from '../../gen/google/api/http_pb.js';
import { rest } from '../../gen/restbridge/v1/annotations_pb.js';
import { PathError, parseTemplate, type Template, type Variable } from './template.ts';

/** A chain of fields from a message down to one field. All but the last are singular messages. */
export type FieldPath = readonly [DescField, ...DescField[]];

/** One HTTP method on one path template, and everything that its rules name, resolved. */
export interface Route {
  /** Unary or server-streaming. */
  readonly method: DescMethod;
  readonly httpMethod: string;
  readonly template: Template;
  readonly variables: readonly { readonly variable: Variable; readonly fields: FieldPath }[];
  /** '*': the body is the request; a field: the body is that field; undefined: there is no body. */
  readonly body: '*' | DescField | undefined;
  /** The answer is this field of the response. */
  readonly responseBody: DescField | undefined;
  readonly successStatus: number;
  readonly redirect: FieldPath | undefined;
  readonly location: { readonly template: Template; readonly fields: ReadonlyMap<string, FieldPath> } | undefined;
  readonly retryAfterSeconds: number;
  readonly eventId: FieldPath | undefined;
  readonly resume: DescField | undefined;
  readonly eventName: { readonly holder: readonly DescField[]; readonly oneof: DescOneof } | undefined;
  readonly preferWait: boolean;
}

/** A rule that cannot be served. */
export class RouteError extends Error {
  override name = 'RouteError';
}

/** Every route of the services' `google.api.http` rules, additional bindings included. Throws a RouteError on the first that cannot be served. */
export function compileRoutes(services: readonly DescService[]): Route[] {
  return services.flatMap((service) =>
    service.methods.flatMap((method) => {
      if (!hasOption(method, http)) {
        if (hasOption(method, rest))
          throw new RouteError(`${name(method)} has a restbridge.v1.rest option and no google.api.http rule to go with it`);
        return [];
      }
      const rule = getOption(method, http);
      return [rule, ...rule.additionalBindings].map((binding) => compileRoute(method, binding));
    }),
  );
}

function name(method: DescMethod): string {
  return `${method.parent.typeName}.${method.name}`;
}

function compileRoute(method: DescMethod, rule: HttpRule): Route {
  const { pattern } = rule;
  const custom = pattern.case === 'custom';
  const text = pattern.case === undefined ? '(none)' : custom ? pattern.value.path : pattern.value;
  const httpMethod = pattern.case === undefined ? '' : custom ? pattern.value.kind : pattern.case.toUpperCase();
  const fail = (what: string): never => {
    throw new RouteError(`${name(method)} cannot be served at "${httpMethod} ${text}": ${what}`);
  };
  if (pattern.case === undefined) fail('the rule has no pattern');
  if (!/^[A-Z]+$/.test(httpMethod)) fail(`"${httpMethod}" is not an HTTP method`);
  if (['HEAD', 'OPTIONS', 'CONNECT', 'TRACE'].includes(httpMethod)) fail(`the bridge answers ${httpMethod} itself or not at all`);
  if (method.methodKind !== 'unary' && method.methodKind !== 'server_streaming') return fail('a stream of requests has no REST form');
  let template: Template;
  try {
    template = parseTemplate(text);
  } catch (error) {
    return fail(error instanceof PathError ? error.message : String(error));
  }

  const { input, output } = method;
  const resolve = (from: DescMessage, path: string): FieldPath => {
    const fields: DescField[] = [];
    let at: DescMessage | undefined = from;
    for (const step of path.split('.')) {
      const field: DescField | undefined = at?.fields.find((f) => f.name === step);
      if (!field) return fail(`${from.typeName} has no field "${path}"`);
      fields.push(field);
      at = field.fieldKind === 'message' ? field.message : undefined;
    }
    return fields as unknown as FieldPath;
  };
  const scalar = (from: DescMessage, path: string, what: string): FieldPath => {
    const fields = resolve(from, path);
    const last = fields.at(-1)!;
    if (last.fieldKind !== 'scalar' && last.fieldKind !== 'enum')
      fail(`${what} "${path}" must be a single scalar or enum, and is ${shape(last)}`);
    return fields;
  };
  const whole = (from: DescMessage, field: string): DescField =>
    resolve(from, field.includes('.') ? fail(`"${field}" must be a field of ${from.typeName} itself`) : field)[0];

  const variables = template.variables.map((variable) => ({
    variable,
    fields: scalar(input, variable.path.join('.'), 'the path variable'),
  }));
  for (const [i, segment] of template.segments.entries()) {
    if (segment.kind !== 'literal' && !template.variables.some((v) => v.start <= i && i < v.end))
      fail('a wildcard outside a variable binds nothing');
  }
  const body = rule.body === '' ? undefined : rule.body === '*' ? '*' : whole(input, rule.body);
  if (body !== undefined && httpMethod === 'GET') fail('GET has no body');
  if (body !== undefined && body !== '*' && variables.some((v) => v.fields.length === 1 && v.fields[0] === body)) {
    fail(`"${body.name}" is bound by the path and by the body`);
  }

  const extra = getOption(method, rest);
  const streaming = method.methodKind === 'server_streaming';
  const only = (set: boolean, option: string, streams: boolean) => {
    if (set && streams !== streaming) fail(`"${option}" is for ${streams ? 'streams' : 'unary methods'}`);
  };
  only(extra.successStatus !== 0, 'success_status', false);
  only(extra.redirectField !== '', 'redirect_field', false);
  only(extra.location !== '', 'location', false);
  only(extra.retryAfterSeconds !== 0, 'retry_after_seconds', false);
  only(extra.preferWait, 'prefer_wait', false);
  only(extra.eventIdField !== '', 'event_id_field', true);
  only(extra.resumeField !== '', 'resume_field', true);
  only(extra.eventNameOneof !== '', 'event_name_oneof', true);
  if (extra.successStatus !== 0 && (extra.successStatus < 200 || extra.successStatus > 299))
    fail(`${extra.successStatus} is not the status of a success`);
  const redirect = extra.redirectField === '' ? undefined : scalar(output, extra.redirectField, 'redirect_field');
  if (redirect && redirect.at(-1)!.scalar !== ScalarType.STRING) fail('redirect_field must be a string');

  let location: Route['location'];
  if (extra.location !== '') {
    let target: Template;
    try {
      target = parseTemplate(extra.location);
    } catch (error) {
      return fail(`location: ${error instanceof PathError ? error.message : String(error)}`);
    }
    location = {
      template: target,
      fields: new Map(target.variables.map((v) => [v.path.join('.'), scalar(output, v.path.join('.'), 'the location variable')])),
    };
  }

  let eventName: Route['eventName'];
  if (extra.eventNameOneof !== '') {
    const steps = extra.eventNameOneof.split('.');
    const last = steps.pop()!;
    const holder = steps.length ? resolve(output, steps.join('.')) : [];
    const message = holder.length ? holder.at(-1)!.message : output;
    const oneof = message?.oneofs.find((o) => o.name === last);
    if (!oneof) fail(`${output.typeName} has no oneof "${extra.eventNameOneof}"`);
    eventName = { holder, oneof: oneof! };
  }
  return {
    method,
    httpMethod,
    template,
    variables,
    body,
    responseBody: rule.responseBody === '' ? undefined : whole(output, rule.responseBody),
    successStatus: extra.successStatus || 200,
    redirect,
    location,
    retryAfterSeconds: extra.retryAfterSeconds,
    eventId: extra.eventIdField === '' ? undefined : scalar(output, extra.eventIdField, 'event_id_field'),
    resume: extra.resumeField === '' ? undefined : scalar(input, whole(input, extra.resumeField).name, 'resume_field')[0],
    eventName,
    preferWait: extra.preferWait,
  };
}

function shape(field: DescField): string {
  return field.fieldKind === 'list' ? 'repeated' : field.fieldKind === 'map' ? 'a map' : 'a message';
}

/**
 * Whether a field can stand in a query: scalars, enums, the well-known types whose JSON form is a string or a scalar, and lists of those.
 * Other messages stand there through their own fields (`?filter.genre=novel`).
 */
export function isQueryLeaf(field: DescField): boolean {
  if (field.fieldKind === 'map') return false;
  return field.message === undefined || isTextual(field.message);
}

function isTextual(desc: DescMessage): boolean {
  return (
    ['google.protobuf.Timestamp', 'google.protobuf.Duration', 'google.protobuf.FieldMask'].includes(desc.typeName) || isWrapperDesc(desc)
  );
}

/** Whether `fields` is what a path variable or the body of this route binds, so that a query may not. */
export function isBound(route: Route, fields: readonly DescField[]): boolean {
  if (route.body === '*' || (route.body !== undefined && fields[0] === route.body)) return true;
  return route.variables.some((v) => v.fields.length === fields.length && v.fields.every((field, i) => field === fields[i]));
}

/** The value of a field, or undefined when it or a message on the way is not set. Enums and scalars come as they are held. */
export function readField(message: unknown, fields: readonly DescField[]): unknown {
  let value = message;
  for (const field of fields) {
    if (value === undefined) return undefined;
    const holder = value as Record<string, unknown>;
    if (field.oneof) {
      const group = holder[field.oneof.localName] as { case?: string; value?: unknown };
      value = group.case === field.localName ? group.value : undefined;
    } else value = holder[field.localName];
  }
  return value;
}
