// `ffjobs slots`: what each slot does, and which are in service.
import { timestampDate } from '@bufbuild/protobuf/wkt';
import type { Command } from 'commander';
import {
  type Node,
  type Slot,
  type Slot_Drain,
  SlotSchema,
  WorkerState,
  WorkerStateSchema,
} from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import type { Service } from './client.ts';
import { CliError, Exit, type ExitCode } from './errors.ts';
import { dialect, enumName } from './json.ts';
import { size } from './progress.ts';
import { answer, answerJson, say, type Terminal } from './terminal.ts';

type Against = (command: Command, body: (service: Service, options: { readonly json: boolean }) => Promise<ExitCode>) => Promise<void>;

export function addSlotCommands(program: Command, terminal: Terminal, against: Against): void {
  const slots = program.command('slots').description('what each slot does; take slots out of service, and put them back');

  slots
    .command('list', { isDefault: true })
    .description('list the slots of all nodes (what `ffjobs slots` does by itself)')
    .action((_options: unknown, command: Command) =>
      against(command, async (service, { json }) => {
        const { slots: all, nodes } = await service.system.listSlots({});
        if (all.length === 0 && !json) say(terminal, 'No slot has said that it is there.');
        show(terminal, all, json);
        if (!json) for (const line of nodes.flatMap(lineOf)) answer(terminal, line);
        return Exit.ok;
      }),
    );

  slots
    .command('drain')
    .description('take a slot out of service, or a whole node: what runs there finishes, and nothing new begins, over restarts too')
    .argument('<place>', 'NODE, or NODE/SLOT as a job names it')
    .option('--reason <text>', 'why, for those who look later', '')
    .action((place: string, _options: unknown, command: Command) =>
      against(command, async (service, { json }) => {
        const { reason } = command.opts<{ reason: string }>();
        const { slots: out } = await service.system.drainSlots({ ...placeOf(place), reason });
        show(terminal, out, json);
        const busy = out.filter(({ state }) => isBusy(state)).length;
        if (!json && busy > 0) say(terminal, `${busy === 1 ? 'One job still runs' : `${busy} jobs still run`} there, and may finish.`);
        return Exit.ok;
      }),
    );

  slots
    .command('restore')
    .description('put a slot back into service, or all of a node')
    .argument('<place>', 'NODE, or NODE/SLOT as a job names it')
    .action((place: string, _options: unknown, command: Command) =>
      against(command, async (service, { json }) => {
        const { slots: back } = await service.system.restoreSlots(placeOf(place));
        if (back.length === 0 && !json) answer(terminal, `${place} takes jobs again when it is there`);
        show(terminal, back, json);
        return Exit.ok;
      }),
    );
}

function placeOf(text: string): { readonly node: string; readonly slot: string } {
  const [, node, slot] = /^([^/]+)(?:\/([^/]+))?$/.exec(text) ?? [];
  if (node === undefined) throw new CliError(Exit.invalid, `'${text}' names no slot: write NODE/SLOT, or NODE for all of it`);
  return { node, slot: slot ?? '' };
}

function show(terminal: Terminal, slots: readonly Slot[], json: boolean): void {
  if (json) for (const slot of slots) answerJson(terminal, dialect(SlotSchema, slot));
  else if (slots.length > 0) {
    answer(terminal, row('SLOT', 'STATE', 'JOBS', 'JOB', 'NOTE'));
    for (const slot of slots) answer(terminal, rowOf(slot));
  }
}

function isBusy(state: WorkerState): boolean {
  return state === WorkerState.BUSY || state === WorkerState.STOPPING;
}

function rowOf(slot: Slot): string {
  const state = slot.drain && !isBusy(slot.state) ? 'drained' : enumName(WorkerStateSchema, slot.state);
  return row(`${slot.node}/${slot.slot}`, state, String(slot.jobsDone), slot.jobId ?? '', noteOf(slot));
}

function noteOf({ drain, draining, problem }: Slot): string {
  return drain ? saidOf(drain) : (problem ?? (draining ? 'takes no new job' : ''));
}

/** What a node's machine is, where it tells; that one is away and still out of service. */
function lineOf({ node, gpus, gpuDriver, diskFreeBytes, away, drain }: Node): string[] {
  if (away) return [`${node} is not there now; ${drain ? saidOf(drain) : ''}`];
  const names = Map.groupBy(gpus, ({ name }) => name);
  const facts = [
    ...[...names].map(([name, { length }]) => (length > 1 ? `${length} x ${name}` : name)),
    gpuDriver && `driver ${gpuDriver}`,
    diskFreeBytes !== undefined && `disk ${size(Number(diskFreeBytes))} free`,
  ].filter(Boolean);
  return facts.length > 0 ? [`${node}: ${facts.join(', ')}`] : [];
}

function saidOf(drain: Slot_Drain): string {
  const at = drain.at ? ` at ${timestampDate(drain.at).toISOString().slice(0, 16).replace('T', ' ')}` : '';
  return `taken out by ${drain.by}${at}${drain.reason && `: ${drain.reason}`}`;
}

function row(slot: string, state: string, jobs: string, job: string, note: string): string {
  return `${slot.padEnd(24)}  ${state.padEnd(11)}  ${jobs.padStart(6)}  ${job.padEnd(25)}  ${note}`.trimEnd();
}
