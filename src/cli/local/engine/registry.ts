// The engines that are installed below DATA_DIR/engines, and which of them is in use. Always true: what has an `engine.json` is whole, because it is
// written last; one that is used is named in one file, which is replaced at once. Model files lie beside all of them and outlive each.
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { InstalledEngine } from '../../../config/facefusion.ts';
import { ConfigError } from '../../../config.ts';

export interface EngineRecord extends InstalledEngine {
  readonly version: string;
  /** Undefined: it did not come from git. */
  readonly commit: string | undefined;
  readonly source: string;
  readonly onnxruntime: string;
  /** ISO 8601. */
  readonly installedAt: string;
}

const NAME = /^facefusion-[a-z\d][\w.-]*$/i;

export class EngineRegistry {
  readonly folder: string;

  constructor(dataDir: string) {
    this.folder = join(dataDir, 'engines');
  }

  /** Shared by all, so that a model is fetched once: FaceFusion finds models below its own folder, in `.assets`. */
  get assets(): string {
    return join(this.folder, 'assets');
  }

  folderOf(name: string): string {
    return join(this.folder, name);
  }

  /** Whole ones, by name. */
  list(): EngineRecord[] {
    return names(this.folder)
      .map((name) => this.get(name))
      .filter((record) => record !== undefined);
  }

  get(name: string): EngineRecord | undefined {
    if (!NAME.test(name)) return undefined;
    try {
      const folder = this.folderOf(name);
      const record = JSON.parse(readFileSync(join(folder, 'engine.json'), 'utf8')) as Omit<EngineRecord, 'name' | 'home' | 'python'>;
      // The data folder may have been moved since: paths are made, not kept.
      return { ...record, name, home: join(folder, 'source'), python: pythonIn(join(folder, 'venv')) };
    } catch {
      return undefined;
    }
  }

  /** Perhaps half of it. */
  isThere(name: string): boolean {
    return NAME.test(name) && existsSync(this.folderOf(name));
  }

  /** Makes it whole. */
  record(name: string, facts: Omit<EngineRecord, 'name' | 'home' | 'python'>): void {
    replace(join(this.folderOf(name), 'engine.json'), `${JSON.stringify(facts, null, 2)}\n`);
  }

  /** Name of the one in use; undefined: none. */
  inUse(): string | undefined {
    try {
      return readFileSync(this.#pointer, 'utf8').trim() || undefined;
    } catch {
      return undefined;
    }
  }

  /** Undefined: none from now on. */
  use(name: string | undefined): void {
    if (name === undefined) rmSync(this.#pointer, { force: true });
    else replace(this.#pointer, `${name}\n`);
  }

  remove(name: string): void {
    // Its record first: half an engine is none.
    rmSync(join(this.folderOf(name), 'engine.json'), { force: true });
    rmSync(this.folderOf(name), { recursive: true, force: true, maxRetries: 3 });
  }

  get #pointer(): string {
    return join(this.folder, 'in-use');
  }
}

/** The one in use below a data folder, for the configuration. Throws `ConfigError` where one is named that is not there. */
export function installedEngine(dataDir: string): InstalledEngine | undefined {
  const registry = new EngineRegistry(dataDir);
  const name = registry.inUse();
  if (name === undefined) return undefined;
  const found = registry.get(name);
  if (found) return found;
  throw new ConfigError([
    `the engine in use is ${name}, which is not whole in ${registry.folder}: \`ffjobs engine install facefusion\` mends it, \`ffjobs engine use\` chooses another one`,
  ]);
}

export function pythonIn(environment: string): string {
  return process.platform === 'win32' ? join(environment, 'Scripts', 'python.exe') : join(environment, 'bin', 'python');
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

function replace(path: string, text: string): void {
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}
