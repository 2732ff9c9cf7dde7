// The parent's handle on a load generator: a process of its own, so that what it costs is not the bench's nor the server's.
import { fileURLToPath } from 'node:url';
import { Process } from '../processes.ts';
import type { Results, Task } from './tasks.ts';

export class LoadGenerator implements AsyncDisposable {
  readonly #process: Process;

  private constructor(process: Process) {
    this.#process = process;
  }

  static start(): LoadGenerator {
    const program = fileURLToPath(new URL('./main.ts', import.meta.url));
    return new LoadGenerator(
      new Process('the load generator', process.execPath, [program], {
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
        serialization: 'advanced',
      }),
    );
  }

  /** One task at a time; a second one waits for its caller's own sense of order, so it is refused. */
  run<T extends Task>(task: T): Promise<Results[T['kind']]> {
    const { child } = this.#process;
    return new Promise((resolve, reject) => {
      const settle = (answer: { result: Results[T['kind']] } | { error: string }) => {
        child.off('exit', gone);
        if ('error' in answer) reject(new Error(`load generator: ${answer.error}`));
        else resolve(answer.result);
      };
      const gone = () => {
        child.off('message', settle);
        reject(new Error('the load generator ended'));
      };
      child.once('message', settle);
      child.once('exit', gone);
      child.send(task);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process.stop();
  }
}
