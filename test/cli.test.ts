// What a person and a script see of the commands that talk to a service: words, JSON lines and exit codes.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { fromJson } from '@bufbuild/protobuf';
import { ValueSchema } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { JobStatus, JobStep, WaitReason } from '../gen/facefusion/jobs/v1/job_pb.js';
import { OptionType } from '../gen/facefusion/jobs/v1/system_service_pb.js';
import { BadRequestSchema, RetryInfoSchema } from '../gen/google/rpc/error_details_pb.js';
import { FakeService } from './cli/fake-service.ts';
import { FakeTerminal, ffjobs } from './cli/fake-terminal.ts';

let service: FakeService;
let folder: string;
let terminal: FakeTerminal;
const cli = (...args: string[]) => ffjobs(args, terminal, { server: service.url });

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ffjobs-'));
  await writeFile(join(folder, 'face.jpg'), 'a face');
  await writeFile(join(folder, 'target.jpg'), 'a target');
  await writeFile(join(folder, 'clip.bin'), Buffer.alloc(700_000, 7));
});
after(() => rm(folder, { recursive: true, force: true }));
beforeEach(async (t) => {
  const fresh = await FakeService.start();
  service = fresh;
  terminal = new FakeTerminal();
  (t as { after(fn: () => unknown): void }).after(() => fresh[Symbol.asyncDispose]());
});

const file = (name: string) => join(folder, name);

describe('submit', () => {
  test('the last file is the target, those before it are sources, and each is uploaded once', async () => {
    assert.equal(await cli('submit', file('face.jpg'), file('face.jpg'), file('target.jpg')), 0);
    assert.deepEqual(
      service.uploads.map(({ filename, bytes }) => [filename, bytes.toString()]),
      [
        ['face.jpg', 'a face'],
        ['target.jpg', 'a target'],
      ],
    );
    const [request] = service.submitted;
    assert.equal(request!.sourceImages.length, 2);
    assert.equal(request!.sourceImages[0], request!.sourceImages[1]);
    assert.match(request!.sourceImages[0]!, /^upload:\/\//);
    assert.equal(request!.target.case, 'targetImage');
    assert.match(terminal.stdout, /^job_20250405_\w{12}\n$/, 'standard output is the job’s id and nothing else');
  });

  test('a place that the result cannot be saved to is told before anything is sent', async () => {
    for (const path of [join(folder, 'nowhere', 'out.jpg'), folder]) {
      assert.equal(await cli('submit', file('face.jpg'), file('target.jpg'), '--output', path), 2);
      assert.equal(await cli('watch', 'job_1', '--output', path), 2);
    }
    assert.match(terminal.stderr, /nowhere' cannot be written \(ENOENT\)/);
    assert.match(terminal.stderr, /which is a folder/);
    assert.deepEqual(service.uploads, []);
  });

  test('a large file arrives whole, and the service’s word makes it a video', async () => {
    assert.equal(await cli('submit', '--source', file('face.jpg'), file('clip.bin')), 0);
    assert.equal(service.uploads[1]!.bytes.length, 700_000);
    assert.equal(service.submitted[0]!.target.case, 'targetVideo');
  });

  test('a request that is wrong is told before a byte of a file is sent', async () => {
    service.violations = [
      { field: 'source_images[0]', reason: 'UPLOAD_NOT_FOUND', description: `there is no upload "upload://${'0'.repeat(32)}"` },
      { field: 'parameters.fps', reason: 'OUT_OF_RANGE', description: 'fps is from 1 to 240' },
    ];
    assert.equal(await cli('submit', file('face.jpg'), file('target.jpg'), '--param', 'fps=1000'), 2);
    assert.match(terminal.stderr, /parameters.fps: fps is from 1 to 240/);
    // That the files are not there yet is no news.
    assert.doesNotMatch(terminal.stderr, /source_images/);
    assert.deepEqual([service.uploads, service.submitted], [[], []]);
    service.violations = service.violations.slice(0, 1);
    assert.equal(await cli('submit', file('face.jpg'), file('target.jpg')), 0);
    assert.equal(service.validated.at(-1)!.target.case, 'targetImage');
    assert.equal(service.uploads.length, 2);
  });

  test('references are handed on as they are', async () => {
    assert.equal(await cli('submit', 's3://bucket/a.jpg', '--target', 'server:clips/b.mp4', 'job://job_1'), 0);
    assert.deepEqual(service.submitted[0]!.sourceImages, ['s3://bucket/a.jpg', 'job://job_1']);
    assert.deepEqual(service.submitted[0]!.target, { case: 'targetVideo', value: 'clips/b.mp4' });
    assert.equal(service.uploads.length, 0);
  });

  test('parameters take the type of the option; what does not fit is left to the service', async () => {
    service.capabilities = {
      options: [
        { name: 'output_video_fps', type: OptionType.NUMBER },
        { name: 'keep', type: OptionType.BOOLEAN },
        { name: 'face_selector_gender', type: OptionType.STRING },
        { name: 'face_mask_types', type: OptionType.STRING, list: true },
        { name: 'areas', type: OptionType.INTEGER, list: true },
      ],
      aliases: [{ name: 'fps', options: ['output_video_fps'] }],
    };
    const params = [
      'fps=30',
      'keep=yes',
      'face_selector_gender=1',
      'face_mask_types=box,occlusion',
      'areas=[1,2]',
      'output_video_fps=fast',
      'new={"a":1}',
    ];
    const words = params.flatMap((param) => ['--param', param]);
    assert.equal(
      await cli('submit', 'server:a.jpg', '-p', 'face_swapper', '-p', 'face_enhancer', '--params', '{"keep":false,"other":2}', ...words),
      0,
    );
    assert.deepEqual(service.submitted[0]!.parameters, {
      fps: 30,
      keep: true,
      face_selector_gender: '1',
      face_mask_types: ['box', 'occlusion'],
      areas: [1, 2],
      output_video_fps: 'fast',
      new: { a: 1 },
      other: 2,
      processors: ['face_swapper', 'face_enhancer'],
    });
  });

  test('everything else of a request has an option', async () => {
    const words =
      '--format png --priority -3 --label a=b --label c=d=e --idempotency-key k --max-attempts 2 --start-timeout 10m --run-timeout 90s --retention 7d --cache off --engine x --preview --audio server:a.wav';
    assert.equal(await cli('submit', 'server:a.jpg', ...words.split(' ')), 0);
    const [request] = service.submitted;
    assert.equal(request!.outputFormat, 'png');
    assert.equal(request!.priority, -3);
    assert.deepEqual(request!.labels, { a: 'b', c: 'd=e' });
    assert.equal(request!.idempotencyKey, 'k');
    assert.equal(request!.maxAttempts, 2);
    assert.equal(request!.startTimeout!.seconds, 600n);
    assert.equal(request!.runTimeout!.seconds, 90n);
    assert.equal(request!.retention!.seconds, 604_800n);
    assert.equal(request!.cache, 3);
    assert.equal(request!.engine, 'x');
    assert.equal(request!.previews, true);
    assert.equal(request!.sourceAudio, 'a.wav');
    assert.deepEqual(request!.sourceImages, []);
  });

  test('--output stays until the end and saves the result, in the format that its name says', async () => {
    service.calls.once('watch', () => setImmediate(() => service.succeed([...service.jobs.keys()][0]!)));
    assert.equal(await cli('submit', 'server:a.jpg', '--output', file('out.png')), 0);
    assert.equal(service.submitted[0]!.outputFormat, 'png');
    assert.equal(await readFile(file('out.png'), 'utf8'), 'a picture');
    assert.equal(terminal.lines.at(-1), file('out.png'));
  });

  test('a result whose connection breaks is fetched again, and in the end given up', async () => {
    service.calls.once('watch', () => setImmediate(() => service.succeed([...service.jobs.keys()][0]!)));
    service.cuts = 2;
    assert.equal(await cli('submit', 'server:a.jpg', '--output', file('again.png')), 0);
    assert.deepEqual([await readFile(file('again.png'), 'utf8'), service.cuts], ['a picture', 0]);
    service.cuts = 99;
    assert.equal(await cli('watch', [...service.jobs.keys()][0]!, '--output', file('cut.png')), 6);
    assert.match(terminal.stderr, /broke again and again/);
    assert.deepEqual(
      (await readdir(folder)).filter((name) => name.startsWith('cut')),
      [],
    );
  });

  test('a result that is not what the service promised is not kept', async () => {
    service.calls.once('watch', () =>
      setImmediate(() => {
        service.succeed([...service.jobs.keys()][0]!);
        service.result = Buffer.from('another one');
      }),
    );
    assert.equal(await cli('submit', 'server:a.jpg', '--output', file('broken.png')), 1);
    assert.match(terminal.stderr, /did not arrive whole/);
    assert.deepEqual(
      (await readdir(folder)).filter((name) => name.startsWith('broken')),
      [],
    );
  });

  for (const [what, args, words] of [
    ['no file at all', [], /Name the target/],
    ['a file that is not there', ['nowhere.jpg'], /no file 'nowhere.jpg' here; .*server:nowhere.jpg/],
    ['a folder', ['/'], /'\/' is not a file/],
    ['a label without a value', ['server:a.jpg', '--label', 'x'], /--label is 'x'; it takes KEY=VALUE/],
    ['a duration without a unit', ['server:a.jpg', '--run-timeout', '90'], /--run-timeout is '90'; it takes a duration such as/],
    ['parameters that are no object', ['server:a.jpg', '--params', '[1]'], /--params is not a JSON object/],
    ['a choice that does not exist', ['server:a.jpg', '--cache', 'never'], /Allowed choices are use, refresh, off/],
    ['an option that does not exist', ['server:a.jpg', '--processors', 'x'], /unknown option '--processors'[\s\S]*--processor/],
  ] as const) {
    test(`wrong usage: ${what}`, async () => {
      assert.equal(await cli('submit', ...args), 2);
      assert.match(terminal.stderr, words);
      assert.equal(service.submitted.length, 0);
    });
  }

  test('all violations are told, one a line', async () => {
    service.failures.set('submit', () => {
      const fieldViolations = [
        { field: 'parameters.fps', description: 'must be a number from 1 to 120', reason: 'OUT_OF_RANGE' },
        { field: 'parameters.procesors', description: "there is no such option; did you mean 'processors'?", reason: 'UNKNOWN_OPTION' },
      ];
      return new ConnectError('parameters.fps: must be ... (and 1 more)', Code.InvalidArgument, undefined, [
        { desc: BadRequestSchema, value: { fieldViolations } },
      ]);
    });
    assert.equal(await cli('submit', 'server:a.jpg'), 2);
    assert.deepEqual(terminal.stderr.trimEnd().split('\n'), [
      'ffjobs: the request was not taken:',
      '  parameters.fps: must be a number from 1 to 120',
      "  parameters.procesors: there is no such option; did you mean 'processors'?",
    ]);
    terminal = new FakeTerminal();
    assert.equal(await cli('submit', 'server:a.jpg', '--json'), 2);
    const [{ error }] = terminal.json as [{ error: { code: string; violations: { reason: string }[] } }];
    assert.equal(error.code, 'invalid_argument');
    assert.deepEqual(
      error.violations.map(({ reason }) => reason),
      ['OUT_OF_RANGE', 'UNKNOWN_OPTION'],
    );
  });
});

describe('exit codes', () => {
  for (const [code, exit] of [
    [Code.InvalidArgument, 2],
    [Code.AlreadyExists, 2],
    [Code.FailedPrecondition, 2],
    [Code.Unimplemented, 2],
    [Code.NotFound, 5],
    [Code.Unavailable, 6],
    [Code.DeadlineExceeded, 6],
    [Code.PermissionDenied, 7],
    [Code.Unauthenticated, 7],
    [Code.ResourceExhausted, 8],
    [Code.Internal, 1],
    [Code.DataLoss, 1],
  ] as const) {
    test(`${Code[code]} is ${exit}`, async () => {
      service.failures.set('get', () => new ConnectError('no', code));
      assert.equal(await cli('get', 'job_1'), exit);
      assert.match(terminal.stderr, /^ffjobs: /);
    });
  }

  for (const [status, exit] of [
    [JobStatus.SUCCEEDED, 0],
    [JobStatus.FAILED, 1],
    [JobStatus.REFUSED, 3],
    [JobStatus.CANCELED, 4],
  ] as const) {
    test(`a job that ends ${JobStatus[status]} is ${exit}, watched or asked for`, async () => {
      const job = service.addJob({ status, step: JobStep.DONE });
      assert.equal(await cli('watch', job), exit);
      assert.equal(await cli('get', job), exit);
    });
  }

  test('nobody listens: 6, in words', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    server.close();
    await once(server, 'close');
    assert.equal(await ffjobs(['list'], terminal, { server: `http://127.0.0.1:${port}` }), 6);
    assert.match(terminal.stderr, /cannot reach the service at http:\/\/127.0.0.1:\d+ .*ffjobs serve/);
  });

  test('how long to wait is told', async () => {
    const detail = { desc: RetryInfoSchema, value: { retryDelay: { seconds: 3n, nanos: 5e8 } } };
    service.failures.set('list', () => new ConnectError('too many', Code.ResourceExhausted, undefined, [detail]));
    assert.equal(await cli('list'), 8);
    assert.match(terminal.stderr, /Try again in 4 s\./);
  });

  test('a service that asks for patience gets it', async () => {
    const job = service.addJob();
    let asked = 0;
    service.calls.on('get', () => {
      if (++asked === 3) service.failures.delete('get');
    });
    const detail = { desc: RetryInfoSchema, value: { retryDelay: { nanos: 1e6 } } };
    service.failures.set('get', () => new ConnectError('the engine is not ready yet', Code.Unavailable, undefined, [detail]));
    assert.equal(await cli('get', job), 0);
    assert.equal(asked, 3);
    assert.equal(terminal.stderr, 'the engine is not ready yet; waiting for it\n');
  });

  test('a server that is no URL is wrong usage, help is not', async () => {
    assert.equal(await ffjobs(['list'], terminal, { server: 'localhost:8000' }), 2);
    assert.equal(await cli('--help'), 0);
    assert.match(terminal.stdout, /Exit codes: 0 done/);
    assert.equal(await cli('lst'), 2);
    assert.match(terminal.stderr, /Did you mean list\?/);
  });

  test('the server comes from the environment where no option names it', async () => {
    service.addJob();
    assert.equal(await ffjobs(['list'], terminal, { env: { FFJOBS_SERVER: service.url } }), 0);
    assert.match(terminal.stdout, /job_20250405_/);
  });
});

describe('watch', () => {
  const progress = (percent: number, more: object = {}) =>
    ({
      case: 'progress',
      value: { step: JobStep.PROCESSING, percent, framesDone: percent, framesTotal: 100, attempt: 1, ...more },
    }) as const;

  test('plain lines where nobody sees a bar: one a step and one a tenth of the way', async () => {
    const job = service.addJob({ queuePosition: 2, waitReason: WaitReason.SLOT });
    const watching = cli('watch', job);
    await terminal.until(/2 before it/);
    service.change(job, {
      status: JobStatus.PROCESSING,
      step: JobStep.LOADING_MODELS,
      attempt: 1,
      queuePosition: undefined,
      waitReason: 0,
    });
    for (let percent = 1; percent < 30; percent++) service.emit(job, progress(percent, { framesPerSecond: 21.25, etaSeconds: 61.2 }));
    service.succeed(job);
    assert.equal(await watching, 0);
    const lines = terminal.stderr.trimEnd().split('\n');
    assert.deepEqual(lines, [
      `${job}   0%  queued, 2 before it, waits for slot`,
      `${job}   0%  loading models`,
      `${job}   1%  processing, 1/100 frames, 21.3 fps, 1:02 left`,
      `${job}  10%  processing, 10/100 frames, 21.3 fps, 1:02 left`,
      `${job}  20%  processing, 20/100 frames, 21.3 fps, 1:02 left`,
      `${job} 100%  succeeded`,
      `${job} succeeded: image/png, 64x48, 9 B`,
    ]);
    assert.match(terminal.stdout, /^http:\/\/127.0.0.1:\d+\/result\n$/, 'standard output is the result’s URL');
  });

  test('a bar on a terminal', async () => {
    terminal = new FakeTerminal({ tty: true });
    const job = service.addJob();
    const watching = cli('watch', job);
    await terminal.until(/queued/);
    service.change(job, { status: JobStatus.PROCESSING, step: JobStep.PROCESSING, attempt: 1 });
    service.emit(job, progress(40, { framesPerSecond: 12, etaSeconds: 5 }));
    await terminal.until(/█+░+ {2}40%.*processing, 40\/100 frames, 12.0 fps, 0:05 left/);
    service.succeed(job);
    assert.equal(await watching, 0);
    assert.match(terminal.stderr, /█{24} 100%/);
  });

  test('JSON lines are the events, as REST writes them', async () => {
    const job = service.addJob();
    const watching = cli('watch', job, '--json');
    await terminal.until(/snapshot/);
    service.emit(job, progress(40));
    service.succeed(job);
    assert.equal(await watching, 0);
    const events = terminal.json as { sequence: number; [kind: string]: unknown }[];
    assert.deepEqual(
      events.map(({ sequence }) => sequence),
      [0, 1, 2],
    );
    assert.deepEqual(Object.keys(events[1]!), ['sequence', 'time', 'progress', 'skipped_after']);
    assert.equal((events[1]!.progress as { step: string }).step, 'processing');
    assert.equal((events[2]!.state as { status: string; error: unknown }).status, 'succeeded');
    assert.equal((events[2]!.state as { status: string; error: unknown }).error, null);
    assert.equal(terminal.stderr, '');
  });

  test('a broken connection is resumed after the last event: none is lost, none comes twice', async () => {
    const job = service.addJob();
    const watching = cli('watch', job, '--json');
    await terminal.until(/snapshot/);
    for (let at = 1; at <= 30; at++) {
      service.emit(job, progress(at));
      if (at % 10 === 0) {
        await terminal.until(new RegExp(`"sequence":${at},`));
        if (at === 20) service.endStreams();
        else service.breakConnections();
      }
    }
    service.succeed(job);
    assert.equal(await watching, 0);
    const sequences = (terminal.json as { sequence: number }[]).map(({ sequence }) => sequence);
    assert.deepEqual(
      sequences,
      Array.from({ length: 32 }, (_, at) => at),
    );
    assert.deepEqual(service.resumes.slice(0, 4), [undefined, 10, 20, 30].slice(0, service.resumes.length));
  });

  test('a service that does not come back: 6, after some tries', async () => {
    const job = service.addJob();
    service.failures.set('watch', () => new ConnectError('down', Code.Unavailable));
    assert.equal(await cli('watch', job), 6);
    assert.equal(service.resumes.length, 3);
    assert.equal(terminal.stderr.match(/trying again/g)!.length, 2);
  });

  test('what a new connection cannot mend is told at once', async () => {
    assert.equal(await cli('watch', 'job_unknown'), 5);
    assert.match(terminal.stderr, /there is no job 'job_unknown'/);
    assert.equal(service.resumes.length, 0);
  });

  test('asked for what lies past the end, it tells the end', async () => {
    const job = service.addJob();
    service.succeed(job);
    assert.equal(await cli('watch', job, '--after', '7'), 0);
    assert.deepEqual(service.resumes, [7]);
  });

  test('the latest preview is kept', async () => {
    const job = service.addJob();
    const watching = cli('watch', job, '--preview', file('preview.jpg'));
    await terminal.until(/queued/);
    service.emit(job, { case: 'preview', value: { jpeg: Buffer.from('one') } });
    service.emit(job, { case: 'preview', value: { jpeg: Buffer.from('two') } });
    service.succeed(job);
    assert.equal(await watching, 0);
    assert.equal(await readFile(file('preview.jpg'), 'utf8'), 'two');
  });

  test('a failure is told with its reason, a refusal with the analyser’s word', async () => {
    const job = service.addJob();
    service.change(job, {
      status: JobStatus.FAILED,
      error: { reason: 'NO_FACE_IN_SOURCE', message: 'no face in the source', retryable: true },
    });
    assert.equal(await cli('watch', job), 1);
    assert.match(terminal.stderr, /failed: no face in the source \(NO_FACE_IN_SOURCE\)\nThe same request may succeed/);
    const other = service.addJob({ status: JobStatus.REFUSED, error: { reason: 'REFUSED', message: 'not this' } });
    assert.equal(await cli('watch', other), 3);
    assert.match(terminal.stderr, /refused by the content analyser: not this/);
  });
});

describe('Ctrl-C while watching', () => {
  const watched = async (options: { interactive: boolean; answers?: string[] }) => {
    terminal = new FakeTerminal(options);
    terminal.answers.push(...(options.answers ?? []));
    const job = service.addJob();
    const watching = cli('watch', job);
    await terminal.until(/queued/);
    return { job, watching };
  };

  test('nobody to ask: the job goes on, and that is said', async () => {
    const { job, watching } = await watched({ interactive: false });
    terminal.interrupt();
    assert.equal(await watching, 130);
    assert.match(terminal.stderr, new RegExp(`${job} goes on without you; .*ffjobs cancel ${job}`));
    assert.equal(service.jobs.get(job)!.status, JobStatus.QUEUED);
  });

  test('yes cancels the job and watches it end', async () => {
    const { job, watching } = await watched({ interactive: true, answers: ['y'] });
    terminal.interrupt();
    assert.equal(await watching, 4);
    assert.match(terminal.stderr, new RegExp(`Cancel ${job}\\?`));
    assert.equal(service.jobs.get(job)!.status, JobStatus.CANCELED);
  });

  test('no leaves it running', async () => {
    const { job, watching } = await watched({ interactive: true, answers: ['n'] });
    terminal.interrupt();
    assert.equal(await watching, 130);
    assert.equal(service.jobs.get(job)!.status, JobStatus.QUEUED);
  });

  test('Enter goes on watching, and the next Ctrl-C asks again', async () => {
    const { job, watching } = await watched({ interactive: true, answers: ['', 'y'] });
    terminal.interrupt();
    await terminal.until(/Cancel .*Enter[\s\S]*queued/);
    terminal.interrupt();
    assert.equal(await watching, 4);
    assert.equal(service.jobs.get(job)!.status, JobStatus.CANCELED);
  });

  test('a second one leaves at once', async () => {
    const { job, watching } = await watched({ interactive: true });
    terminal.interrupt();
    await terminal.until(/Cancel/);
    terminal.interrupt();
    assert.equal(await watching, 130);
    assert.equal(service.jobs.get(job)!.status, JobStatus.QUEUED);
  });

  test('SIGTERM asks nobody', async () => {
    const { watching } = await watched({ interactive: true });
    terminal.interrupt('SIGTERM');
    assert.equal(await watching, 130);
    assert.doesNotMatch(terminal.stderr, /Cancel job/);
  });

  test('a cancel that the service does not take is told', async () => {
    service.failures.set('cancel', () => new ConnectError('not yours', Code.PermissionDenied));
    const { watching } = await watched({ interactive: true, answers: ['y'] });
    terminal.interrupt();
    assert.equal(await watching, 7);
    assert.match(terminal.stderr, /not yours/);
  });
});

describe('get, list, cancel, purge, capabilities', () => {
  test('get shows a job, as JSON the way REST does', async () => {
    const job = service.addJob({ request: { target: { case: 'targetImage', value: 'a.jpg' }, labels: { a: 'b' } } });
    assert.equal(await cli('get', job), 0);
    assert.match(terminal.stdout, /status {5}queued\n/);
    assert.match(terminal.stdout, /label {6}a=b\n/);
    terminal = new FakeTerminal();
    assert.equal(await cli('get', job, '--json'), 0);
    const [shown] = terminal.json as [Record<string, unknown>];
    assert.deepEqual(
      [shown.status, shown.progress, shown.result_url, shown.error, shown.finished_at, shown.created_at],
      ['queued', 0, null, null, null, '2025-04-05T14:15:00Z'],
    );
    assert.deepEqual(
      Object.keys(shown.request as object).filter((name) => name.startsWith('target')),
      ['target_image'],
    );
  });

  test('list turns pages until it has enough', async () => {
    for (let at = 0; at < 5; at++) service.addJob({ status: at === 1 ? JobStatus.FAILED : JobStatus.QUEUED });
    assert.equal(await cli('list', '--json'), 0);
    assert.equal(terminal.json.length, 5);
    terminal = new FakeTerminal();
    assert.equal(await cli('list', '--limit', '3'), 0);
    assert.equal(terminal.lines.length, 4, 'a heading and three jobs');
    terminal = new FakeTerminal();
    assert.equal(await cli('list', '--status', 'failed', '--json'), 0);
    assert.equal(terminal.json.length, 1);
    assert.equal(await cli('list', '--status', 'lost'), 2);
    assert.equal(await cli('list', '--limit', '0'), 2);
  });

  test('list shows what a job that is tried again is at, and what went wrong with one that is not', async () => {
    const error = { reason: 'WORKER_CRASHED', message: 'it died', retryable: true };
    service.addJob({ status: JobStatus.PROCESSING, step: JobStep.ANALYSING, error });
    service.addJob({ status: JobStatus.FAILED, step: JobStep.DONE, error });
    service.addJob({ status: JobStatus.CANCELED, step: JobStep.DONE });
    assert.equal(await cli('list'), 0);
    const [, ...rows] = terminal.lines.map((line) => line.split(/ {2,}/));
    assert.deepEqual(rows.map((cells) => `${cells[1]} ${cells[4] ?? ''}`).toSorted(), [
      'canceled ',
      'failed WORKER_CRASHED',
      'processing analysing',
    ]);
  });

  test('an empty list is no error', async () => {
    assert.equal(await cli('list'), 0);
    assert.equal(terminal.stdout, '');
    assert.match(terminal.stderr, /No jobs/);
  });

  test('cancel and purge say what became of the job', async () => {
    const job = service.addJob();
    assert.equal(await cli('cancel', job), 0);
    assert.match(terminal.stdout, /is canceled/);
    assert.equal(await cli('purge', job, '--json'), 0);
    assert.equal((JSON.parse(terminal.lines.at(-1)!) as { job_id: string }).job_id, job);
    assert.equal(await cli('cancel', 'job_unknown'), 5);
  });

  test('capabilities list every option with what it takes', async () => {
    service.capabilities = {
      engine: { name: 'classical', version: '1' },
      processors: [{ name: 'face_swapper', description: 'puts a face in' }],
      options: [
        {
          name: 'output_video_quality',
          type: OptionType.INTEGER,
          minimum: 0,
          maximum: 100,
          help: 'how good',
          default: fromJson(ValueSchema, 80),
        },
        { name: 'face_selector_mode', type: OptionType.STRING, choices: ['one', 'many'] },
      ],
    };
    assert.equal(await cli('capabilities'), 0);
    assert.match(terminal.stdout, /engine {6}classical 1\n/);
    assert.match(terminal.stdout, /output_video_quality \(integer: 0..100; default 80\)\n {6}how good\n/);
    assert.match(terminal.stdout, /face_selector_mode \(string: one, many\)\n/);
    terminal = new FakeTerminal();
    assert.equal(await cli('capabilities', '--json'), 0);
    assert.equal((terminal.json[0]!.options as { type: string }[])[0]!.type, 'integer');
  });
});
