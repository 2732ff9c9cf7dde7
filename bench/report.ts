// Rows as a person reads them and as a file keeps them. Both come from the same rows; nothing is rounded in the file.
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { arch, availableParallelism, cpus, loadavg, platform, release, totalmem } from 'node:os';
import { dirname } from 'node:path';
import type { Row } from './figures.ts';

export interface Machine {
  readonly date: string;
  readonly cores: number;
  readonly cpu: string;
  readonly memory_gib: number;
  readonly system: string;
  readonly node: string;
  readonly commit: string | null;
  readonly load_average_before: number;
  readonly load_average_after: number;
}

export function machine(root: string, loadBefore: number): Machine {
  return {
    date: new Date().toISOString(),
    cores: availableParallelism(),
    cpu: cpus()[0]?.model ?? 'unknown',
    memory_gib: Math.round(totalmem() / 2 ** 30),
    system: `${platform()} ${release()} ${arch()}`,
    node: process.version,
    commit: commitOf(root),
    load_average_before: loadBefore,
    load_average_after: loadavg()[0]!,
  };
}

function commitOf(root: string): string | null {
  try {
    return execFileSync('git', ['describe', '--always', '--dirty', '--abbrev=12'], { cwd: root, encoding: 'utf8', stdio: 'pipe' }).trim();
  } catch {
    return null; // not a checkout
  }
}

export function writeJson(file: string, facts: Machine, quick: boolean, rows: readonly Row[]): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify({ machine: facts, quick, rows }, null, 2)}\n`);
}

const COLUMNS = ['figure', 'unit', 'peer', 'ratio', 'target', 'verdict'] as const;

/** One line a row, grouped, columns aligned over all rows; notes stand below their row. */
export function table(rows: readonly Row[]): string {
  const cells = rows.map((row) => ({
    name: row.name,
    figure: row.figure === null ? '-' : number(row.figure),
    unit: row.unit,
    peer: row.peer ? `${number(row.peer.figure)} ${row.peer.name}${row.peer.quoted ? ' (quoted)' : ''}` : '',
    ratio: row.ratio === null ? '' : row.ratio.toFixed(2),
    target: row.target ?? '',
    verdict: row.verdict.toUpperCase(),
  }));
  const width = (column: 'name' | (typeof COLUMNS)[number]) => Math.max(column.length, ...cells.map((cell) => cell[column].length));
  const right = new Set(['figure', 'ratio']);
  const line = (cell: Readonly<Record<'name' | (typeof COLUMNS)[number], string>>) =>
    ['name' as const, ...COLUMNS]
      .map((column) => (right.has(column) ? cell[column].padStart(width(column)) : cell[column].padEnd(width(column))))
      .join('  ')
      .trimEnd();
  const heading = line({ name: '', figure: 'figure', unit: 'unit', peer: 'peer', ratio: 'ratio', target: 'target', verdict: 'verdict' });
  const lines = [heading];
  let group: string | undefined;
  rows.forEach((row, index) => {
    if (row.group !== group) {
      lines.push('', row.group);
      group = row.group;
    }
    lines.push(line(cells[index]!));
    if (row.note) lines.push(`    ${row.note}`);
  });
  return lines.join('\n');
}

/** Three significant digits below a thousand, whole numbers with separators above. */
export function number(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en-US') : String(Number(value.toPrecision(3)));
}
