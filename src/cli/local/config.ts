// `ffjobs config check | list`: whether the service would start with these settings, and which there are. Reads what `serve` reads and in the same way;
// changes nothing. A value that may hold a secret is never shown.
import type { Command } from 'commander';
import { FACEFUSION_SETTINGS } from '../../config/facefusion.ts';
import { type Config, ConfigError, SETTINGS } from '../../config.ts';
import { Exit, type ExitCode } from '../remote/errors.ts';
import { answer, answerJson, say, type Terminal } from '../remote/terminal.ts';
import { type Environment, readSettings, type Sources, settingSources } from './settings.ts';

export interface ConfigContext {
  readonly terminal: Terminal;
  readonly env: Environment;
  readonly cwd: string;
  readonly fileProblems: FileProblems;
  finish(code: ExitCode): void;
}

/** Looks into the files that settings name, as the service would at its start. One sentence a problem. */
export type FileProblems = (config: Config) => Promise<readonly string[]>;

interface Found {
  /** Names of settings that the sentence is about. */
  readonly settings: readonly string[];
  readonly problem: string;
  readonly from: string;
}

export function addConfigCommands(program: Command, { terminal, env, cwd, fileProblems, finish }: ConfigContext): void {
  const json = () => program.opts<{ json: boolean }>().json;
  const config = program.command('config').description('the settings of the service on this machine');
  config
    .command('check')
    .description('read the settings as `serve` would, and say everything that is wrong with them; 1 where it would not start')
    .argument('[file]', 'lines NAME=VALUE; default: the one that FFJOBS_CONFIG names')
    .action(async (file: string | undefined) => {
      const given = file === undefined ? env : { ...env, FFJOBS_CONFIG: file };
      const { sources, problems } = await check(given, cwd, fileProblems);
      const set = sources === undefined ? [] : settings(sources);
      if (json()) answerJson(terminal, { ok: problems.length === 0, file: sources?.file ?? null, problems, settings: set });
      else if (problems.length === 0) {
        for (const { name, value, from } of set) answer(terminal, `${name}=${value}  (${from})`);
        say(terminal, `The settings are right: ${set.length === 0 ? 'all are defaults' : `${set.length} set, all others are defaults`}.`);
      } else {
        for (const { problem, from } of problems) say(terminal, `ffjobs: ${problem} (${from})`);
        say(terminal, `${problems.length === 1 ? 'One problem' : `${problems.length} problems`}: the service would not start.`);
      }
      finish(problems.length === 0 ? Exit.ok : Exit.failed);
    });
  config
    .command('list')
    .description('every setting with its default and what it is for')
    .action(() => {
      for (const { name, fallback, help } of table()) {
        if (json()) answerJson(terminal, { name, default: fallback, help });
        else answer(terminal, `${name}${fallback === null ? '' : `=${fallback}`}\n    ${help}`);
      }
    });
}

async function check(
  env: Environment,
  cwd: string,
  fileProblems: FileProblems,
): Promise<{ readonly sources: Sources | undefined; readonly problems: readonly Found[] }> {
  let sources: Sources | undefined;
  try {
    sources = settingSources(env, cwd);
    const problems = await fileProblems(readSettings(env, cwd));
    return { sources, problems: problems.map((one) => found(one, sources)) };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { sources, problems: error.problems.map((one) => found(one, sources)) };
  }
}

/** With where the settings that a sentence begins with are set. */
function found(problem: string, sources: Sources | undefined): Found {
  const names = [...new Set(problem.match(/\b(FFJOBS|FACEFUSION)_[A-Z\d_]+\b/g) ?? [])];
  const [first] = names;
  const from = sources?.file !== undefined && (first === undefined || sources.inFile.has(first)) ? sources.file : 'environment';
  return { settings: names, problem, from };
}

/** What is set, whoever set it. */
function settings({ values, file, inFile }: Sources): { readonly name: string; readonly value: string; readonly from: string }[] {
  return Object.keys(values)
    .filter((name) => (name.startsWith('FFJOBS_') && name.slice('FFJOBS_'.length) in SETTINGS) || name in FACEFUSION_SETTINGS)
    .filter((name) => values[name] !== undefined && values[name] !== '')
    .toSorted()
    .map((name) => ({ name, value: withoutUserInfo(values[name]!), from: inFile.has(name) ? file! : 'environment' }));
}

/** Of the settings only URLs can hold a password; all other secrets are in files of their own. */
function withoutUserInfo(value: string): string {
  return value.replaceAll(/\/\/[^@/\s]*@/g, '//***@');
}

function* table(): Iterable<{ readonly name: string; readonly fallback: string | null; readonly help: string }> {
  for (const [name, { fallback, help }] of Object.entries<{ fallback: string | undefined; help: string }>(SETTINGS)) {
    yield { name: `FFJOBS_${name}`, fallback: fallback ?? null, help };
  }
  for (const [name, help] of Object.entries(FACEFUSION_SETTINGS)) yield { name, fallback: null, help };
}
