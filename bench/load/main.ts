// A load generator's process: takes one task after another from its parent, and ends with it.
import { calls, submits } from './calls.ts';
import { CrowdOfClients } from './crowd.ts';
import type { Results, Task } from './tasks.ts';
import { Watchers } from './watchers.ts';

const watchers = new Watchers();
const crowd = new CrowdOfClients();

function perform(task: Task): Promise<Results[Task['kind']]> {
  switch (task.kind) {
    case 'calls':
      return calls(task);
    case 'submits':
      return submits(task);
    case 'watch':
      return watchers.open(task);
    case 'deliveries':
      return watchers.deliveries(task);
    case 'unwatch':
      return watchers.close();
    case 'crowd':
      return crowd.open(task);
    case 'disperse':
      return crowd.disperse();
  }
}

process.on('message', (task: Task) => {
  perform(task).then(
    (result) => process.send!({ result }),
    (error: unknown) => process.send!({ error: error instanceof Error ? error.message : String(error) }),
  );
});
process.on('disconnect', () => process.exit(0));
