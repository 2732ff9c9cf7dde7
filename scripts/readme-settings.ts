// The README's tables of settings, made of the list in src/config.ts: which theme a setting stands under, and in which order, is the README's own affair;
// what its row says is not.
import { readFileSync, writeFileSync } from 'node:fs';
import { FACEFUSION_SETTINGS } from '../src/config/facefusion.ts';
import { SETTINGS } from '../src/config.ts';

/** The row of each setting, by its name in the table. */
export function settingRows(): ReadonlyMap<string, string> {
  const rows = new Map<string, string>();
  for (const [name, { fallback, help }] of Object.entries<{ fallback: string | undefined; help: string }>(SETTINGS)) {
    const value = fallback === undefined ? '' : fallback === '' ? 'empty' : `\`${fallback}\``;
    rows.set(name, `| \`${name}\` | ${value} | ${help} |`);
  }
  for (const [name, help] of Object.entries(FACEFUSION_SETTINGS)) rows.set(name, `| \`${name}\` | ${help} |`);
  return rows;
}

const ROW = /^\| `([A-Z\d_]+)` \|/;

/** Writes each row anew, and takes out those of settings that are gone. Throws where a setting has no row yet: somebody has to say where it belongs. */
export function updateReadme(path: string): void {
  const rows = new Map(settingRows());
  const lines = readFileSync(path, 'utf8')
    .split('\n')
    .flatMap((line) => {
      const name = ROW.exec(line)?.[1];
      if (name === undefined) return [line];
      const row = rows.get(name);
      rows.delete(name);
      return row === undefined ? [] : [row];
    });
  writeFileSync(path, lines.join('\n'));
  if (rows.size > 0)
    throw new Error(`${path} has no row for ${[...rows.keys()].join(', ')}: add "| \`NAME\` |" under the theme it belongs to`);
}
