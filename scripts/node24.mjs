#!/usr/bin/env node
// Runs a TypeScript entry point on Node 24 or newer. This file itself must stay plain JavaScript that Node 18 understands.
// Where the running Node is new enough it is used as it is; only where it is too old is one fetched, once, from the npm package `node@24`.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import module from 'node:module';
import { constants } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const NEEDED = 24;
/** Keeps what Node has made of the TypeScript, which halves the time that a command takes to begin. Where it cannot be written Node goes without. */
const COMPILED = process.env.NODE_COMPILE_CACHE ?? join(ROOT, '.cache', 'compiled');

/** Path of a Node binary of the needed major version. Installs one below `.cache/` when the running one is too old. */
export function node24() {
  if (Number(process.versions.node.split('.')[0]) >= NEEDED) return process.execPath;
  const home = join(ROOT, '.cache', `node${NEEDED}`);
  const binary = join(home, 'node_modules', 'node', 'bin', process.platform === 'win32' ? 'node.exe' : 'node');
  if (existsSync(binary)) return binary;
  process.stderr.write(`Node ${process.versions.node} is too old; fetching Node ${NEEDED} (about 190 MB, once) into .cache/\n`);
  // Beside its place, and moved there whole: two commands may be the first at once, and either may be interrupted.
  sweep(home);
  const fresh = `${home}.${process.pid}`;
  mkdirSync(fresh, { recursive: true });
  const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
  const done = spawnSync(
    npm,
    ['install', '--prefix', fresh, '--no-save', '--no-audit', '--no-fund', '--loglevel=error', `node@${NEEDED}`],
    {
      cwd: fresh,
      stdio: ['ignore', 'ignore', 'pipe'],
      encoding: 'utf8',
      env: { ...process.env, npm_config_ignore_scripts: 'false' },
    },
  );
  if (done.status === 0) place(fresh, home, binary);
  rmSync(fresh, { recursive: true, force: true });
  if (!existsSync(binary)) {
    const why = done.error?.message ?? done.stderr?.trim().split('\n').at(-1) ?? 'unknown reason';
    process.stderr.write(`Could not fetch Node ${NEEDED} (${why}). Install Node ${NEEDED} or newer yourself and run the command again.\n`);
    process.exit(1);
  }
  return binary;
}

/** Takes away what commands that are gone have left beside `home`. */
function sweep(home) {
  if (!existsSync(dirname(home))) return;
  for (const name of readdirSync(dirname(home))) {
    const pid = name.startsWith(`${basename(home)}.`) ? Number(name.slice(basename(home).length + 1)) : undefined;
    if (pid === undefined) continue;
    try {
      process.kill(pid, 0);
    } catch (error) {
      if (error.code === 'ESRCH') rmSync(join(dirname(home), name), { recursive: true, force: true });
    }
  }
}

/** Puts `fresh` where `home` is to be, unless another command has been there first. What an interrupted one left there goes. */
function place(fresh, home, binary) {
  try {
    renameSync(fresh, home);
  } catch {
    if (existsSync(binary)) return;
    rmSync(home, { recursive: true, force: true });
    renameSync(fresh, home);
  }
}

/** Runs `script` with `args`: in this process where its Node is new enough, else as `start` does. */
export async function run(script, args) {
  const entry = resolve(ROOT, script);
  if (node24() !== process.execPath) {
    start(script, args);
    return;
  }
  process.argv = [process.argv[0], entry, ...args];
  module.enableCompileCache(COMPILED);
  await import(pathToFileURL(entry).href);
}

/** Runs `script` with `args` in a process of its own, whose main module it is (`import.meta.main`), and ends this one the way that ended. `options`: Node's. */
function start(script, args, options = process.execArgv) {
  const node = node24();
  const child = spawn(node, [...options, resolve(ROOT, script), ...args], {
    // The channel carries nothing; its end tells the child that this process was killed.
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
    env: {
      ...process.env,
      NODE_COMPILE_CACHE: COMPILED,
      PATH: `${dirname(node)}${process.platform === 'win32' ? ';' : ':'}${process.env.PATH}`,
    },
  });
  // A terminal sends Ctrl-C to the whole foreground group, so the child has it already; anything else is passed on.
  process.on('SIGINT', () => process.stdin.isTTY || child.kill('SIGINT'));
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  child.on('error', (error) => {
    process.stderr.write(`Could not start ${node}: ${error.message}\n`);
    process.exit(1);
  });
  child.on('exit', (code, signal) => process.exit(code ?? 128 + (constants.signals[signal] ?? 0)));
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const given = process.argv.slice(2);
  const at = given.findIndex((arg) => !arg.startsWith('--'));
  if (at === -1) {
    process.stderr.write('usage: node scripts/node24.mjs [NODE-OPTION ...] SCRIPT.ts [ARG ...]\n');
    process.exit(2);
  }
  start(given[at], given.slice(at + 1), given.slice(0, at));
}
