// Folders of programs that say they are Python: just enough of a shell script to make environments, to install, and to fail as the real one
// does. Each call is noted in a log that a test reads.
import { existsSync, readFileSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

export interface FakePythonOptions {
  readonly version?: string;
  readonly name?: string;
  /** What `-m venv` writes to standard error before it fails. */
  readonly venvFails?: string;
  /** What `-m pip` writes to standard error before it fails. */
  readonly pipFails?: string;
  /** Modules that cannot be imported. */
  readonly lacks?: readonly string[];
  /** `-m pip` waits until this file is there. */
  readonly pipWaitsFor?: string;
}

export class FakeMachine {
  readonly root: string;
  readonly bin: string;
  readonly log: string;

  private constructor(root: string) {
    this.root = root;
    this.bin = join(root, 'bin');
    this.log = join(root, 'calls.log');
  }

  /** A repository with the worker's requirements, and an empty PATH. */
  static async make(): Promise<FakeMachine> {
    const machine = new FakeMachine(await mkdtemp(join(tmpdir(), 'ffjobs-python-')));
    await mkdir(machine.bin);
    await mkdir(join(machine.root, 'worker'));
    await writeFile(join(machine.root, 'worker', 'requirements.txt'), 'av==1\n');
    await writeFile(join(machine.root, 'worker', 'requirements-dev.txt'), '-r requirements.txt\npytest==1\n');
    await writeFile(join(machine.root, 'worker', 'requirements-provenance.txt'), '# Why\nc2pa-python==1\ncryptography==2\n');
    return machine;
  }

  get env(): Record<string, string> {
    return { PATH: this.bin };
  }

  /** What was asked of the programs, in order, but for questions about versions. */
  get calls(): string[] {
    return existsSync(this.log) ? readFileSync(this.log, 'utf8').split('\n').filter(Boolean) : [];
  }

  /** A program that answers every call with these words and status 0. */
  async addProgram(name: string, words = `${name} version 1`): Promise<void> {
    await writeFile(join(this.bin, name), `#!/bin/sh\necho '${words}'\n`);
    await chmod(join(this.bin, name), 0o755);
  }

  /** One of this machine's own. */
  async addReal(path: string): Promise<void> {
    await symlink(path, join(this.bin, basename(path)));
  }

  /** What FaceFusion's Python says when it is asked `check`, `models` or `warm`; it ends with 1 where a line is an error or something missing. */
  async engineSays(command: string, lines: readonly object[], code = 0): Promise<void> {
    await writeFile(join(this.root, `${command}.says`), lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    await writeFile(join(this.root, `${command}.code`), `${code}`);
  }

  async addPython(options: FakePythonOptions = {}): Promise<string> {
    const { version = '3.11.2', name = 'python3', venvFails, pipFails, lacks = [], pipWaitsFor } = options;
    const fail = (words: string | undefined) =>
      words === undefined ? ':' : `printf '%s\\n' '${words.replaceAll("'", "'\\''")}' >&2; exit 1`;
    const path = join(this.bin, name);
    await writeFile(
      path,
      `#!/bin/sh
case "$1 $2" in
  "-c import sys"*) echo '${version}' ;;
  "-c import json"*) echo '{"default":"onnxruntime==1.28.0","cuda@12":"onnxruntime-gpu==1.24.4","cuda@13":"onnxruntime-gpu==1.28.0"}' ;;
  "-m facefusion_worker.engines.facefusion")
    shift 2
    echo "engine $* in $FACEFUSION_HOME\${AWS_SECRET_ACCESS_KEY:+ with a secret}\${HTTPS_PROXY:+ by $HTTPS_PROXY}" >> '${this.log}'
    if [ -e '${this.root}'/$1.says ]; then /bin/cat '${this.root}'/$1.says; exit $(/bin/cat '${this.root}'/$1.code); fi ;;
  "-c "*) shift 2; for name in "$@"; do case " ${lacks.join(' ')} " in *" $name "*) echo "$name" ;; esac; done ;;
  "-m venv")
    echo "venv" >> '${this.log}'
    ${fail(venvFails)}
    for folder in "$@"; do :; done
    /bin/mkdir -p "$folder/bin" && /bin/cp "$0" "$folder/bin/python" ;;
  "-m pip")
    echo "pip $*" >> '${this.log}'
    ${pipWaitsFor === undefined ? ':' : `while [ ! -e '${pipWaitsFor}' ]; do /bin/sleep 0.05; done`}
    ${fail(pipFails)} ;;
esac
`,
    );
    await chmod(path, 0o755);
    return path;
  }
}
