// A Dockerfile as stages of instructions, as far as ours goes: what is not known here is an error, so that nothing is passed over in silence.

export interface Instruction {
  /** In capitals. */
  readonly name: string;
  /** With the values of build arguments in it. */
  readonly rest: string;
  /** Of the line on which it begins. */
  readonly line: number;
}

export interface Stage {
  readonly name: string;
  /** Another stage's name, or an image. */
  readonly base: string;
  readonly instructions: readonly Instruction[];
}

const KNOWN = new Set('CMD COPY ENTRYPOINT ENV EXPOSE HEALTHCHECK RUN SHELL STOPSIGNAL USER VOLUME WORKDIR'.split(' '));

/** Throws an `Error` that names the line. */
export function stagesOf(text: string): Stage[] {
  const values = new Map<string, string>();
  const stages: (Stage & { readonly instructions: Instruction[] })[] = [];
  for (const { name, rest, line } of instructionsOf(text)) {
    const filled = name === 'ARG' || name === 'FROM' ? rest.replaceAll(/\$\{(\w+)\}/g, (_, arg: string) => values.get(arg) ?? '') : rest;
    if (name === 'ARG' && stages.length === 0) {
      const [, arg, value = ''] = /^(\w+)(?:=(.*))?$/.exec(filled) ?? [];
      values.set(arg!, value);
    } else if (name === 'FROM') {
      const [, base, stage] = /^(\S+)(?:\s+AS\s+(\S+))?$/i.exec(filled) ?? [];
      if (base === undefined) throw new Error(`line ${line}: FROM ${rest}`);
      stages.push({ name: stage ?? `${stages.length}`, base, instructions: [] });
    } else if (stages.length > 0 && KNOWN.has(name)) stages.at(-1)!.instructions.push({ name, rest, line });
    else throw new Error(`line ${line}: ${name} is not known here`);
  }
  return stages;
}

function* instructionsOf(text: string): Generator<Instruction> {
  let begun: { at: number; parts: string[] } | undefined;
  for (const [i, line] of text.split('\n').entries()) {
    if (line.trim() === '' || line.trimStart().startsWith('#')) continue;
    begun ??= { at: i + 1, parts: [] };
    begun.parts.push(line.replace(/\\$/, ''));
    if (line.endsWith('\\')) continue;
    const [, name, rest] = /^\s*(\w+)\s+(.*)$/s.exec(begun.parts.join('')) ?? [];
    if (name === undefined) throw new Error(`line ${begun.at}: ${line}`);
    yield { name: name.toUpperCase(), rest: rest!.trim(), line: begun.at };
    begun = undefined;
  }
}

/** `NAME=value OTHER=value` of ENV. */
export function pairsOf(rest: string): [name: string, value: string][] {
  return [...rest.matchAll(/(\w+)=("[^"]*"|\S+)/g)].map(([, name, value]) => [name!, value!.replaceAll('"', '')]);
}

/** `["a", "b"]`; undefined where it is a line for a shell. */
export function listOf(rest: string): string[] | undefined {
  return rest.startsWith('[') ? (JSON.parse(rest) as string[]) : undefined;
}

/** Whether a `.dockerignore` lets a file into the build context: the last line that is about it decides. */
export function contextFilter(ignore: string): (path: string) => boolean {
  const rules = ignore
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => ({ lets: line.startsWith('!'), pattern: patternOf(line.replace(/^!/, '')) }));
  return (path) => {
    const parts = path.split('/');
    const upTo = parts.map((_, i) => parts.slice(0, i + 1).join('/'));
    return rules.findLast(({ pattern }) => upTo.some((one) => pattern.test(one)))?.lets ?? true;
  };
}

/** Go's `filepath.Match` with `**`: unlike a shell's, a star is for names that begin with a dot too. */
function patternOf(glob: string): RegExp {
  const parts = glob.split(/(\*\*\/|\*\*|\*|\?)/).map((part) => WILD[part] ?? part.replaceAll(/[.+^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${parts.join('')}$`);
}

const WILD: Readonly<Record<string, string>> = { '**/': '(?:.*/)?', '**': '.*', '*': '[^/]*', '?': '[^/]' };
