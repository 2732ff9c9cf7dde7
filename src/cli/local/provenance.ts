// `ffjobs provenance certificate`: a certificate for trials of marked results, made where the operator says. The service is not asked.
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { Config } from '../../config.ts';
import { type MarkingProgram, makeTrialCertificate } from '../../provenance/process.ts';
import { Exit, type ExitCode } from '../remote/errors.ts';
import { answer, answerJson, say, type Terminal } from '../remote/terminal.ts';
import { SetupProblem, venvPython } from './python.ts';
import { servicePython } from './service-engine.ts';
import { type Environment, readSettings } from './settings.ts';

export interface ProvenanceContext {
  readonly terminal: Terminal;
  readonly env: Environment;
  readonly cwd: string;
  readonly root: string;
  finish(code: ExitCode): void;
}

export function addProvenanceCommands(program: Command, context: ProvenanceContext): void {
  const { terminal, env, cwd, root } = context;
  program
    .command('provenance')
    .description('marks of results as made by AI: what is needed to sign them')
    .command('certificate')
    .description('make a certificate and a key for trials; verifiers show its marks as valid, and trust them no more than they know you')
    .requiredOption('--out <folder>', 'where to write them')
    .action(async ({ out }: { out: string }) => {
      // What is wrong with the settings of marks is what is being mended here.
      const settings = Object.fromEntries(Object.entries(env).filter(([name]) => !/^FFJOBS_PROVENANCE(_CERT|_KEY|_TRUST)?$/.test(name)));
      const config = readSettings(settings, cwd);
      const made = await makeTrialCertificate(markingProgram(config, env, root), resolve(cwd, out));
      if ('fix' in made) throw new SetupProblem(`${made.message}: ${made.fix}`);
      const [certificate, key, trust] = ['certificate.pem', 'key.pem', 'root.pem'].map((name) => made[name]!);
      const variables = {
        FFJOBS_PROVENANCE: 'c2pa',
        FFJOBS_PROVENANCE_CERT: certificate,
        FFJOBS_PROVENANCE_KEY: key,
        FFJOBS_PROVENANCE_TRUST: trust,
      };
      if (program.opts<{ json: boolean }>().json) answerJson(terminal, variables);
      else {
        say(terminal, 'For trials only: nobody trusts this authority. The service marks results with these settings:');
        for (const [name, value] of Object.entries(variables)) answer(terminal, `${name}=${value}`);
      }
      context.finish(Exit.ok);
    });
}

/** With the Python that the service would sign with. */
export function markingProgram(config: Config, env: Environment, root: string): MarkingProgram {
  const command = config.provenancePython ?? servicePython(config).given ?? venvPython(root);
  return { command, packageDir: resolve(root, 'worker'), environment: env };
}
