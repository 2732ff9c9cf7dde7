// Path templates of `google.api.http`, and the table that matches request paths against them. Grammar and decoding rules are those of
// https://github.com/googleapis/googleapis/blob/master/google/api/http.proto ("Path template syntax"). Always true: a path is matched as it
// was sent, segment by segment, so an encoded slash or colon is part of a value and never structure.
import { Recent } from '../recent.ts';

/** One segment of a path: a literal, `*` (exactly one segment) or `**` (any number, only at the end). */
export type Segment = { readonly kind: 'literal'; readonly value: string } | { readonly kind: 'one' } | { readonly kind: 'rest' };

/** A variable of a template: which field it binds, and which segments of the path are its value. */
export interface Variable {
  /** Field path, in proto names. */
  readonly path: readonly string[];
  readonly start: number;
  /** Exclusive; Infinity where the variable ends in `**`. */
  readonly end: number;
  /** Spans several segments: slashes in the value stand for themselves, and `%2F` stays encoded. */
  readonly multi: boolean;
}

export interface Template {
  readonly text: string;
  readonly segments: readonly Segment[];
  readonly variables: readonly Variable[];
  /** Without its colon. */
  readonly verb: string | undefined;
}

/** What the grammar, or percent-encoding, does not allow. The message is a sentence for whoever wrote the template or the path. */
export class PathError extends Error {
  override name = 'PathError';
}

/** Parses a path template. Throws a PathError that says what is wrong, and where. */
export function parseTemplate(text: string): Template {
  const segments: Segment[] = [];
  const variables: Variable[] = [];
  let at = 0;
  const fail = (what: string): never => {
    throw new PathError(`${what} at position ${at}`);
  };
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    if (found !== undefined) at += found.length;
    return found;
  };
  const eat = (char: string): boolean => {
    if (text[at] !== char) return false;
    at++;
    return true;
  };
  const literal = (): string => {
    const raw = take(/[^/{}:=*]+/y) ?? fail(at < text.length ? `unexpected "${text[at]}"` : 'a segment is missing');
    return decode(raw);
  };
  const segment = (nested: boolean): void => {
    if (segments.at(-1)?.kind === 'rest') fail('"**" must be the last segment');
    if (eat('*')) segments.push({ kind: eat('*') ? 'rest' : 'one' });
    else if (text[at] === '{') variable(nested);
    else segments.push({ kind: 'literal', value: literal() });
  };
  const list = (nested: boolean): void => {
    do segment(nested);
    while (eat('/'));
  };
  const variable = (nested: boolean): void => {
    if (nested) fail('a variable inside a variable');
    at++;
    const name = take(/[A-Za-z_]\w*(\.[A-Za-z_]\w*)*/y) ?? fail('a field path is missing');
    if (variables.some((v) => v.path.join('.') === name)) fail(`"${name}" is bound twice`);
    const start = segments.length;
    if (eat('=')) list(true);
    else segments.push({ kind: 'one' });
    if (!eat('}')) fail('a "}" is missing');
    const open = segments.at(-1)!.kind === 'rest';
    variables.push({
      path: name.split('.'),
      start,
      end: open ? Number.POSITIVE_INFINITY : segments.length,
      multi: open || segments.length - start > 1,
    });
  };
  if (!eat('/')) fail('a template starts with "/"');
  list(false);
  const verb = eat(':') ? literal() : undefined;
  if (at < text.length) fail(`unexpected "${text[at]}"`);
  return { text, segments, variables, verb };
}

/**
 * Compiles what fills a template: `reader` is asked here, once, for what reads the text of the variable at a path; it is percent-encoded. Segments that are
 * no variables must be literals.
 */
export function compileExpansion<T>(template: Template, reader: (path: readonly string[]) => (from: T) => string): (from: T) => string {
  const parts: ((from: T) => string)[] = [];
  for (let i = 0; i < template.segments.length; i++) {
    const variable = template.variables.find((v) => v.start === i);
    const segment = template.segments[i]!;
    if (variable) {
      const text = reader(variable.path);
      const encode = variable.multi ? (path: string) => path.split('/').map(encodeURIComponent).join('/') : encodeURIComponent;
      parts.push((from) => `/${encode(text(from))}`);
      i = Math.min(variable.end, template.segments.length) - 1;
    } else if (segment.kind === 'literal') {
      const literal = `/${encodeURIComponent(segment.value)}`;
      parts.push(() => literal);
    }
  }
  const end = template.verb === undefined ? '' : `:${encodeURIComponent(template.verb)}`;
  return (from) => {
    let out = '';
    for (const part of parts) out += part(from);
    return out + end;
  };
}

/** A placeholder of a path as OpenAPI writes it. */
export interface Placeholder {
  readonly name: string;
  readonly variable: Variable;
  /** May hold slashes. */
  readonly rest: boolean;
}

/**
 * The template as OpenAPI writes paths. A variable of one wildcard is a placeholder of its name; of one with literals around its wildcards the
 * literals stay in the path, and several wildcards are numbered.
 */
export function describeTemplate(template: Template): { readonly path: string; readonly placeholders: readonly Placeholder[] } {
  const placeholders: Placeholder[] = [];
  let path = '';
  for (const [i, segment] of template.segments.entries()) {
    if (segment.kind === 'literal') {
      path += `/${segment.value}`;
      continue;
    }
    const variable = template.variables.find((v) => v.start <= i && i < v.end)!;
    const before = placeholders.filter((p) => p.variable === variable).length;
    const name = variable.path.join('.') + (before ? `_${before + 1}` : '');
    placeholders.push({ name, variable, rest: segment.kind === 'rest' });
    path += `/{${name}}`;
  }
  return { path: template.verb === undefined ? path : `${path}:${template.verb}`, placeholders };
}

/** A request path found in a PathTable. */
export interface Found<T> {
  readonly value: T;
  /** Raw segments, the verb cut off; `capture` reads a variable from them. */
  readonly segments: readonly string[];
}

/** The value of a variable in a matched path. */
export function capture(variable: Variable, segments: readonly string[]): string {
  if (!variable.multi) return decode(segments[variable.start]!);
  // In a value of several segments "%2F" is left as it is, so that it differs from a separator.
  return segments
    .slice(variable.start, variable.end)
    .map((raw) =>
      raw
        .split(/(%2F)/i)
        .map((part, i) => (i % 2 ? part : decode(part)))
        .join(''),
    )
    .join('/');
}

interface Node<T> {
  readonly literals: Map<string, Node<T>>;
  one?: Node<T>;
  rest?: Node<T>;
  /** By verb ('' for none), then by HTTP method. */
  readonly leaves: Map<string, Map<string, { value: T; template: Template }>>;
}

const node = <T>(): Node<T> => ({ literals: new Map(), leaves: new Map() });

/**
 * Templates by method. A literal wins over `*`, and `*` over `**`; a branch that fits the path but not the method does not hide another that fits
 * both. An unencoded colon in the last segment always starts a verb, so `/jobs/a:b` is never the job `a:b` (write `a%3Ab`).
 */
export class PathTable<T> {
  readonly #root = node<T>();
  /** What was found, by method: most callers ask for what they asked for before. */
  readonly #recent = new Map<string, Recent<Found<T>>>();

  /** Throws a PathError naming the template that is in the way when the same shape is already taken for this method. */
  add(method: string, template: Template, value: T): void {
    let at = this.#root;
    for (const segment of template.segments) {
      if (segment.kind === 'literal') {
        let next = at.literals.get(segment.value);
        if (!next) {
          next = node();
          at.literals.set(segment.value, next);
        }
        at = next;
      } else if (segment.kind === 'one') {
        at.one ??= node();
        at = at.one;
      } else {
        at.rest ??= node();
        at = at.rest;
      }
    }
    const verb = template.verb ?? '';
    let methods = at.leaves.get(verb);
    if (!methods) {
      methods = new Map();
      at.leaves.set(verb, methods);
    }
    const taken = methods.get(method);
    if (taken) throw new PathError(`${method} ${taken.template.text} already has this shape`);
    methods.set(method, { value, template });
    this.#recent.clear();
  }

  /**
   * Finds what serves `method` on `path` (no query). Returns undefined when no template has this path, and the methods that do exist, sorted, when
   * only the method is wrong. Throws a PathError on malformed percent-encoding.
   */
  find(method: string, path: string): Found<T> | readonly string[] | undefined {
    const known = this.#recent.get(method)?.get(path);
    if (known) return known;
    const found = this.#look(method, path);
    if (found === undefined || !('value' in found) || path.length > RECENT_LENGTH) return found;
    let recent = this.#recent.get(method);
    if (!recent) {
      recent = new Recent(RECENT_PATHS);
      this.#recent.set(method, recent);
    }
    recent.set(path, found);
    return found;
  }

  #look(method: string, path: string): Found<T> | readonly string[] | undefined {
    if (path.charCodeAt(0) !== SLASH) return undefined;
    const segments = path.split('/');
    segments.shift();
    const last = segments.length - 1;
    let verb = '';
    const colon = segments[last]!.lastIndexOf(':');
    if (colon >= 0) {
      verb = segments[last]!.slice(colon + 1);
      segments[last] = segments[last]!.slice(0, colon);
      if (verb === '') return undefined;
    }
    for (let i = 0; i <= last; i++) if (segments[i] === '') return undefined;
    let names = segments;
    if (path.includes('%')) {
      names = segments.map(decode);
      verb = decode(verb);
    }
    const value = search(this.#root, names, 0, verb, method);
    if (value) return { value: value.value, segments };
    const allowed = new Set<string>();
    gather(this.#root, names, 0, verb, allowed);
    return allowed.size ? [...allowed].sort() : undefined;
  }
}

const SLASH = 47;
/** Of each method, and the longest path that is kept: together less than a megabyte. */
const RECENT_PATHS = 1_000;
const RECENT_LENGTH = 200;

function search<T>(at: Node<T>, names: readonly string[], i: number, verb: string, method: string): { value: T } | undefined {
  if (i === names.length) {
    return at.leaves.get(verb)?.get(method) ?? at.rest?.leaves.get(verb)?.get(method);
  }
  const literal = at.literals.get(names[i]!);
  const found = (literal && search(literal, names, i + 1, verb, method)) ?? (at.one && search(at.one, names, i + 1, verb, method));
  return found ?? at.rest?.leaves.get(verb)?.get(method);
}

function gather<T>(at: Node<T>, names: readonly string[], i: number, verb: string, into: Set<string>): void {
  for (const leaf of [i === names.length ? at.leaves : undefined, at.rest?.leaves])
    for (const method of leaf?.get(verb)?.keys() ?? []) into.add(method);
  if (i === names.length) return;
  const literal = at.literals.get(names[i]!);
  if (literal) gather(literal, names, i + 1, verb, into);
  if (at.one) gather(at.one, names, i + 1, verb, into);
}

function decode(raw: string): string {
  if (!raw.includes('%')) return raw;
  try {
    return decodeURIComponent(raw);
  } catch {
    throw new PathError(`malformed percent-encoding in "${raw}"`);
  }
}
