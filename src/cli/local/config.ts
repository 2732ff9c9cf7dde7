// `ffjobs config check | list`: whether the service would start with these settings, and which there are. Reads what `serve` reads and in the same way;
// changes nothing. A value that may hold a secret is never shown.
import type { Command } from 'commander';
import { FACEFUSION_SETTINGS } from '../../config/facefusion.ts';
import { type Config, ConfigError, SETTINGS, withoutPassword } from '../../config.ts';
import { checkSigner } from '../../provenance/process.ts';
import { Exit, type ExitCode } from '../remote/errors.ts';
import { answer, answerJson, say, type Terminal } from '../remote/terminal.ts';
import { markingProgram } from './provenance.ts';
import { type Environment, readSettings, type Sources, settingSources } from './settings.ts';

export interface ConfigContext {
  readonly terminal: Terminal;
  readonly env: Environment;
  readonly cwd: string;
  readonly root: string;
  readonly fileFindings: FindInFiles;
  finish(code: ExitCode): void;
}

/** Each is one sentence with the settings that it is about. */
export interface Findings {
  /** What keeps the service from starting. */
  readonly problems: readonly string[];
  /** What does not, and should be mended. */
  readonly warnings: readonly string[];
}

/** Looks into the files that settings name, as the service would at its start. */
export type FindInFiles = (config: Config) => Promise<Findings>;

interface Found {
  /** Names of settings that the sentence is about. */
  readonly settings: readonly string[];
  readonly problem: string;
  readonly from: string;
}

export function addConfigCommands(program: Command, context: ConfigContext): void {
  const { terminal, env, finish } = context;
  const json = () => program.opts<{ json: boolean }>().json;
  const config = program.command('config').description('the settings of the service on this machine');
  config
    .command('check')
    .description('read the settings as `serve` would, and say everything that is wrong with them; 1 where it would not start')
    .argument('[file]', 'lines NAME=VALUE; default: the one that FFJOBS_CONFIG names')
    .action(async (file: string | undefined) => {
      const given = file === undefined ? env : { ...env, FFJOBS_CONFIG: file };
      const { sources, problems, warnings } = await check({ ...context, env: given });
      const set = sources === undefined ? [] : settings(sources);
      if (json()) answerJson(terminal, { ok: problems.length === 0, file: sources?.file ?? null, problems, warnings, settings: set });
      else if (problems.length === 0) {
        for (const { name, value, from } of set) answer(terminal, `${name}=${value}  (${from})`);
        for (const { problem, from } of warnings) say(terminal, `ffjobs: warning: ${problem} (${from})`);
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

interface Checked {
  readonly sources: Sources | undefined;
  readonly problems: readonly Found[];
  readonly warnings: readonly Found[];
}

async function check({ env, cwd, root, fileFindings }: ConfigContext): Promise<Checked> {
  let sources: Sources | undefined;
  try {
    sources = settingSources(env, cwd);
    const config = readSettings(env, cwd);
    const all = await Promise.all([fileFindings(config), signerFindings(config, env, root)]);
    const told = (of: keyof Findings) => all.flatMap((findings) => findings[of]).map((one) => found(one, sources));
    return { sources, problems: told('problems'), warnings: told('warnings') };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { sources, problems: error.problems.map((one) => found(one, sources)), warnings: [] };
  }
}

/** Of what results are signed with, as the process that signs sees it; who gives time stamps is not asked. */
async function signerFindings(config: Config, env: Environment, root: string): Promise<Findings> {
  const { provenanceSigner: files, role } = config;
  // Nothing is signed by a process that only answers calls.
  if (!files || role === 'api') return { problems: [], warnings: [] };
  const signer = await checkSigner(markingProgram(config, env, root), { ...files, timestamps: undefined });
  if ('fix' in signer) return { problems: [`marks of results: ${signer.message}: ${signer.fix}`], warnings: [] };
  const warnings = signer.warnings.filter((one) => files.timestamps === undefined || !one.includes('FFJOBS_PROVENANCE_TSA'));
  return { problems: [], warnings: warnings.map((one) => `marks of results: ${one}`) };
}

/** With where the settings that a sentence is about are set. */
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
    .map((name) => ({ name, value: withoutPassword(values[name]!), from: inFile.has(name) ? file! : 'environment' }));
}

function* table(): Iterable<{ readonly name: string; readonly fallback: string | null; readonly help: string }> {
  for (const [name, { fallback, help }] of Object.entries<{ fallback: string | undefined; help: string }>(SETTINGS)) {
    yield { name: `FFJOBS_${name}`, fallback: fallback ?? null, help };
  }
  for (const [name, help] of Object.entries(FACEFUSION_SETTINGS)) yield { name, fallback: null, help };
}
