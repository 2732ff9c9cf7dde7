// Images without a container engine: each stage of a Dockerfile is a folder that its steps are run in, as the root of their file system, and an image
// runs in namespaces of its own (processes, mounts, network). Always true: what is made lies in one folder and goes with it; base images are not
// fetched but imitated by Debian with the same programs.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { contextFilter, listOf, pairsOf, type Stage } from './dockerfile.ts';

const MIRROR = 'http://deb.debian.org/debian';
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

const AUTHORITIES = '/etc/ssl/certs/ca-certificates.crt';
/** The steps trust whom this machine trusts: npm and pip come with lists of their own. */
const TRUST = { NODE_EXTRA_CA_CERTS: AUTHORITIES, PIP_CERT: AUTHORITIES };

/** What a stage has made, and how it is run. */
export interface Image {
  readonly root: string;
  readonly env: Readonly<Record<string, string>>;
  /** `UID:GID` */
  readonly user: string;
  readonly workdir: string;
  readonly command: readonly string[];
  readonly health: readonly string[];
  readonly stopSignal: NodeJS.Signals;
}

export interface BuildOptions {
  /** Where the Dockerfile is. */
  readonly context: string;
  /** Empty; everything is made in it. */
  readonly work: string;
  readonly say: (line: string) => void;
}

export class Builder {
  readonly #options: BuildOptions;
  readonly #stages: readonly Stage[];
  readonly #made = new Map<string, Image>();

  constructor(stages: readonly Stage[], options: BuildOptions) {
    this.#stages = stages;
    this.#options = options;
  }

  /** Runs the steps of a stage, and of those that it takes from. Throws where a step fails. */
  build(name: string): Image {
    const known = this.#made.get(name);
    if (known) return known;
    const stage = this.#stages.find((one) => one.name === name);
    if (!stage) throw new Error(`the Dockerfile has no stage ${name}`);
    const parent = this.#stages.some((one) => one.name === stage.base) ? this.build(stage.base) : this.#base(stage.base);
    const root = join(this.#options.work, name);
    execFileSync('cp', ['-a', parent.root, root]);
    const image = this.#follow(stage, { ...parent, root });
    this.#made.set(name, image);
    return image;
  }

  #follow(stage: Stage, parent: Image): Image {
    const image = { ...parent, env: { ...parent.env } };
    let shell = ['/bin/sh', '-c'];
    let entrypoint: readonly string[] = [];
    for (const { name, rest, line } of stage.instructions) {
      this.#options.say(`${stage.name}: ${name} ${rest.length > 100 ? `${rest.slice(0, 100)}...` : rest}`);
      const list = listOf(rest);
      if (name === 'RUN') inRoot(image, list ?? [...shell, rest]);
      else if (name === 'COPY') this.#copy(rest, image);
      else if (name === 'ENV') Object.assign(image.env, Object.fromEntries(pairsOf(rest)));
      else if (name === 'USER') image.user = rest;
      else if (name === 'SHELL' && list) shell = list;
      else if (name === 'STOPSIGNAL') image.stopSignal = rest as NodeJS.Signals;
      else if (name === 'ENTRYPOINT' && list) entrypoint = list;
      else if (name === 'CMD' && list) image.command = [...entrypoint, ...list];
      else if (name === 'HEALTHCHECK') image.health = listOf(rest.replace(/^.*?\bCMD\s+/s, ''))!;
      else if (name === 'WORKDIR') {
        image.workdir = posix.resolve(image.workdir, rest);
        mkdirSync(join(image.root, image.workdir), { recursive: true });
      } else if (name !== 'EXPOSE' && name !== 'VOLUME') throw new Error(`line ${line}: ${name} is not understood here in this form`);
    }
    return image;
  }

  /** `[--from=STAGE] SOURCE ... TARGET` */
  #copy(rest: string, image: Image): void {
    const words = rest.split(/\s+/);
    const from = words[0]!.startsWith('--from=') ? words.shift()!.slice('--from='.length) : undefined;
    const target = words.pop()!;
    const folder = target.endsWith('/') || words.length > 1;
    const to = join(image.root, posix.resolve(image.workdir, target));
    if (from !== undefined) {
      const source = join(this.build(from).root, words[0]!);
      mkdirSync(folder ? to : dirname(to), { recursive: true });
      // The same bytes and links, and of root, as an engine copies.
      execFileSync('cp', ['-a', '--no-preserve=ownership', source, to]);
      return;
    }
    const { context } = this.#options;
    const lets = contextFilter(readFileSync(join(context, '.dockerignore'), 'utf8'));
    const files = execFileSync('git', ['ls-files', '-z', '--', ...words], { cwd: context, encoding: 'utf8' }).split('\0');
    for (const file of files.filter((one) => one !== '' && existsSync(join(context, one)) && lets(one))) {
      const path = words.includes('.') ? join(to, file) : folder ? join(to, posix.basename(file)) : to;
      mkdirSync(dirname(path), { recursive: true });
      copyFileSync(join(context, file), path);
    }
  }

  #base(name: string): Image {
    const kind = /^(?:.*\/)?(node|python|cuda):/.exec(name)?.[1];
    if (kind === undefined) throw new Error(`it is not known here what the image ${name} is like`);
    const root = join(this.#options.work, `base-${kind}`);
    const image: Image = { root, env: { PATH }, user: '0:0', workdir: '/', command: [], health: [], stopSignal: 'SIGTERM' };
    if (existsSync(root)) return image;
    const debian = join(this.#options.work, 'debian');
    if (!existsSync(debian)) {
      this.#options.say('Debian bookworm');
      run('debootstrap', ['--variant=minbase', '--include=ca-certificates', 'bookworm', debian, MIRROR]);
      // And whom it asks for names.
      for (const file of [AUTHORITIES, '/etc/resolv.conf', '/etc/hosts']) copyFileSync(file, join(debian, file));
    }
    this.#options.say(`${name}, imitated`);
    execFileSync('cp', ['-a', debian, root]);
    if (kind === 'python') {
      inRoot(image, ['/bin/sh', '-c', 'apt-get update && apt-get install -y --no-install-recommends python3 python3-venv']);
      symlinkSync('/usr/bin/python3', join(root, 'usr/local/bin/python'));
    }
    if (kind === 'node') {
      const node = join(root, 'usr/local/bin/node');
      copyFileSync(process.execPath, node);
      chmodSync(node, 0o755);
      const npm = join(realpathSync(execFileSync('sh', ['-c', 'command -v npm'], { encoding: 'utf8' }).trim()), '..', '..');
      cpSync(npm, join(root, 'usr/local/lib/node_modules/npm'), { recursive: true });
      symlinkSync('../lib/node_modules/npm/bin/npm-cli.js', join(root, 'usr/local/bin/npm'));
    }
    return image;
  }
}

/** In namespaces of their own, so that mounts go with them. */
const MOUNTED = 'mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && shift && exec "$@"';

function inside({ root, env, workdir }: Image, user: string, command: readonly string[]): string[] {
  const values = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  const enter = ['chroot', `--userspec=${user}`, root, '/usr/bin/env', '-i', ...values, '/bin/sh', '-c', 'cd "$0" && exec "$@"'];
  return [...enter, workdir, ...command];
}

function inRoot(image: Image, command: readonly string[]): void {
  const step = inside({ ...image, env: { ...image.env, ...TRUST } }, image.user, command);
  run('unshare', ['--mount', '--pid', '--fork', '--kill-child', 'sh', '-c', MOUNTED, 'sh', image.root, ...step]);
}

function run(program: string, args: readonly string[]): void {
  try {
    execFileSync(program, args, { stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 28, encoding: 'utf8' });
  } catch (error) {
    const { stdout, stderr, message } = error as Error & { stdout?: string; stderr?: string };
    throw new Error([`${message.split('\n')[0]}`, ...`${stdout ?? ''}\n${stderr ?? ''}`.trim().split('\n').slice(-30)].join('\n'));
  }
}

/** A container of an image: its own processes and network, in which nothing else listens. */
export class Container implements AsyncDisposable {
  readonly exited: Promise<number | NodeJS.Signals>;
  readonly #image: Image;
  readonly #process: ChildProcess;
  readonly #said: string[] = [];

  constructor(image: Image, env: Readonly<Record<string, string>> = {}) {
    this.#image = { ...image, env: { ...image.env, ...env } };
    const command = inside(this.#image, image.user, image.command);
    const lo = `ip link set lo up && ${MOUNTED}`;
    const args = ['--mount', '--pid', '--net', '--fork', '--kill-child', 'sh', '-c', lo, 'sh', image.root, ...command];
    this.#process = spawn('unshare', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.#process.stdout!, this.#process.stderr!]) stream.on('data', (chunk: Buffer) => this.#said.push(`${chunk}`));
    this.exited = new Promise((resolve) => this.#process.once('close', (code, signal) => resolve(code ?? signal!)));
  }

  get said(): string {
    return this.#said.join('');
  }

  /** Runs a command beside it, as its user. Rejects with what was said where it fails. */
  exec(command: readonly string[]): Promise<string> {
    const args = ['--target', `${this.#first()}`, '--mount', '--pid', '--net'];
    const child = spawn('nsenter', [...args, ...inside(this.#image, this.#image.user, command)], { stdio: ['ignore', 'pipe', 'pipe'] });
    const said: string[] = [];
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => said.push(`${chunk}`));
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code) =>
        code === 0 ? resolve(said.join('')) : reject(new Error(`${command.join(' ')}: ${code}\n${said.join('')}`)),
      );
    });
  }

  /** As an engine stops it. Answers how it ended. */
  async stop(): Promise<number | NodeJS.Signals> {
    process.kill(this.#first(), this.#image.stopSignal);
    return await this.exited;
  }

  /** Ends it with all that runs in it, where it has not ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    // With its process 1 go all others. It has another user, so that it would not go with the one that has started it.
    if (this.#process.exitCode === null && this.#process.signalCode === null) process.kill(this.#first(), 'SIGKILL');
    await this.exited;
  }

  /** Its process 1, by its id outside. */
  #first(): number {
    const id = this.#process.pid!;
    return Number(readFileSync(`/proc/${id}/task/${id}/children`, 'utf8').trim().split(' ')[0]);
  }
}

/** Puts a file into an image, of its user. */
export function put(image: Image, path: string, bytes: Uint8Array): void {
  writeFileSync(join(image.root, path), bytes);
  execFileSync('chown', [image.user, join(image.root, path)]);
}
