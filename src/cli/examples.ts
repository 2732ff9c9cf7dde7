// What stands under `--help` of each command. A test runs the words of each line against the commands as they are.
import type { Command } from 'commander';

const EXAMPLES: Readonly<Record<string, readonly string[]>> = {
  '': [
    'ffjobs submit face.jpg clip.mp4 --watch --output swapped.mp4',
    'ffjobs list --status failed --limit 5',
    'ffjobs --server https://jobs.example.com capabilities',
  ],
  serve: ['ffjobs serve', 'FFJOBS_PORT=9000 FFJOBS_SLOTS=auto ffjobs serve', 'FFJOBS_CONFIG=/etc/facefusion-jobs/settings ffjobs serve'],
  config: ['ffjobs config check', 'ffjobs config list'],
  'config check': ['ffjobs config check', 'ffjobs config check /etc/facefusion-jobs/settings', 'ffjobs config check --json'],
  'config list': ['ffjobs config list', 'ffjobs config list --json'],
  doctor: ['ffjobs doctor', 'ffjobs doctor --json'],
  completion: ['source <(ffjobs completion bash)', 'ffjobs completion fish > ~/.config/fish/completions/ffjobs.fish'],
  engine: ['ffjobs engine install facefusion', 'ffjobs engine list'],
  'engine install': [
    'ffjobs engine install facefusion',
    'ffjobs engine install facefusion --onnxruntime cuda',
    'ffjobs engine install facefusion --source /srv/facefusion',
  ],
  'engine list': ['ffjobs engine list'],
  'engine use': ['ffjobs engine use 3.8.1', 'ffjobs engine use classical'],
  'engine remove': ['ffjobs engine remove 3.8.1'],
  'engine warm': ['ffjobs engine warm', 'ffjobs engine warm --processors face_swapper face_enhancer'],
  keys: ['ffjobs keys create --tenant studio', 'ffjobs keys list'],
  'keys create': [
    'ffjobs keys create --tenant studio --scope read --scope submit --ttl 90d',
    'ffjobs keys create --name operations --scope admin',
  ],
  'keys list': ['ffjobs keys list --tenant studio'],
  'keys revoke': ['ffjobs keys revoke ID'],
  'keys rotate': ['ffjobs keys rotate ID --overlap 24h'],
  audit: ['ffjobs audit verify'],
  'audit verify': ['ffjobs audit verify'],
  provenance: ['ffjobs provenance certificate --out ./trial-certificate'],
  'provenance certificate': ['ffjobs provenance certificate --out ./trial-certificate'],
  store: ['ffjobs store migrate'],
  'store migrate': ['ffjobs store migrate', 'FFJOBS_STORE=redis://redis.internal:6379 ffjobs store migrate'],
  submit: [
    'ffjobs submit face.jpg clip.mp4 --watch --output swapped.mp4',
    'ffjobs submit face.jpg clip.mp4 -p face_swapper -p face_enhancer --param output_video_quality=90 --label order=17',
    'ffjobs submit --source https://cdn.example.com/face.jpg --target s3://media/clip.mp4 --retention 7d',
    'ffjobs submit -p face_enhancer --target job://JOB',
  ],
  batch: ['ffjobs batch monday.jsonl --watch', 'ffjobs batch monday.jsonl --idempotency-key monday --stop-on-failure --json'],
  watch: ['ffjobs watch JOB', 'ffjobs watch JOB --output swapped.mp4', 'ffjobs --json watch JOB --after 0'],
  get: ['ffjobs get JOB', 'ffjobs get JOB --json'],
  list: ['ffjobs list --status queued processing', 'ffjobs list --label order=17 --limit 100 --json'],
  cancel: ['ffjobs cancel JOB'],
  purge: ['ffjobs purge JOB'],
  webhooks: ['ffjobs webhooks list', 'ffjobs webhooks replay --all'],
  'webhooks list': ['ffjobs webhooks list', 'ffjobs webhooks list --pending --limit 100 --json'],
  'webhooks replay': ['ffjobs webhooks replay DELIVERY', 'ffjobs webhooks replay --all'],
  slots: ['ffjobs slots', 'ffjobs slots drain gpu-02 --reason "driver update"', 'ffjobs slots restore gpu-02'],
  'slots list': ['ffjobs slots list', 'ffjobs slots list --json'],
  'slots drain': ['ffjobs slots drain gpu-02 --reason "driver update"', 'ffjobs slots drain gpu-02/3 --reason "its fan is loud"'],
  'slots restore': ['ffjobs slots restore gpu-02/3', 'ffjobs slots restore gpu-02'],
  capabilities: ['ffjobs capabilities', 'ffjobs capabilities --json'],
};

/** Adds them to a program whose commands are all there. Throws where a command has none: nobody is left with a bare list of options. */
export function addExamples(command: Command, path = ''): void {
  const examples = EXAMPLES[path];
  if (!examples) throw new Error(`\`ffjobs ${path}\` has no examples`);
  command.addHelpText('after', `\nExamples:\n${examples.map((line) => `  ${line}`).join('\n')}`);
  for (const child of command.commands) addExamples(child, path === '' ? child.name() : `${path} ${child.name()}`);
}
