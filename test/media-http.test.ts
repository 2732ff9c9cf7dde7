// Inputs over http(s): what arrives is whole and of one version, whatever the server does, and nothing is reached that is not allowed.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type HttpOptions, openHttp } from '../src/media/http.ts';
import {
  bomb,
  cut,
  endless,
  inTurn,
  type Origin,
  picture,
  rangeOf,
  redirect,
  type Serve,
  startOrigin,
  status,
  stuck,
  well,
} from './fixtures/media/origin.ts';

const NEVER = new AbortController().signal;
const BYTES = picture(200_000);

async function place(t: TestContext, options: Partial<Omit<HttpOptions, 'limits'>> & { limits?: Partial<HttpOptions['limits']> } = {}) {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-http-'));
  const origin = await startOrigin();
  const lookups: string[] = [];
  const http = await openHttp({
    dir: join(dir, 'downloads'),
    cacheBytes: 2 ** 20,
    lookup: async (name) => {
      lookups.push(name);
      return [{ address: '127.0.0.1', family: 4 }];
    },
    ...options,
    hosts: { schemes: ['http', 'https'], allow: [`origin.example:${origin.port}`], ports: [80, 443], ...options.hosts },
    limits: { maxBytes: 2 ** 20, retryMs: 1, windowBytes: 1000, ...options.limits },
  });
  t.after(async () => {
    await http[Symbol.asyncDispose]();
    await origin[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });
  let files = 0;
  const fetch = async (reference: string, signal = NEVER) => {
    const path = join(dir, `file-${++files}`);
    const digests: string[] = [];
    const failure = await http.fetch(reference, path, signal, { progress() {}, digested: (sha256) => void digests.push(sha256) });
    if (failure) return { ...failure, path };
    const bytes = await readFile(path);
    assert.deepEqual(digests, [createHash('sha256').update(bytes).digest('hex')]);
    return { bytes, path, reason: undefined, message: '', retryable: false };
  };
  const from = (path: string, serve: Serve) => {
    origin.on(path, serve);
    return fetch(origin.url(path));
  };
  return { dir, origin, http, fetch, from, lookups, files: () => readdir(dir) };
}

const paths = (origin: Origin) => origin.requests.map((request) => request.url);

it('what a killed process left of its downloads is gone with the next start', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-http-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  for (const name of ['1', '2']) await writeFile(join(dir, name), 'half of a video');
  await using _ = await openHttp({ dir, cacheBytes: 0, hosts: { schemes: ['https'], allow: [], ports: [443] }, limits: { maxBytes: 1 } });
  assert.deepEqual(await readdir(dir), []);
});

describe('a file over http', { concurrency: 4 }, () => {
  it('is written with its digest, with and without an announced length', async (t) => {
    const { from } = await place(t);
    assert.deepEqual(
      (
        await from(
          '/a.jpg',
          well(() => BYTES),
        )
      ).bytes,
      BYTES,
    );
    assert.deepEqual((await from('/b.jpg', (_, response) => void response.end(BYTES))).bytes, BYTES);
  });

  it('is asked for plainly: no referrer, no cookie, no encoding', async (t) => {
    const { origin, from } = await place(t);
    await from(
      '/a.jpg',
      well(() => BYTES, { 'set-cookie': 'a=b' }),
    );
    await from(
      '/a.jpg',
      well(() => BYTES),
    );
    const { host, connection, ...headers } = origin.requests[0]!.headers;
    assert.equal(host, `origin.example:${origin.port}`);
    assert.deepEqual(headers, { accept: '*/*', 'accept-encoding': 'identity', 'user-agent': 'facefusion-jobs' });
    assert.equal(origin.requests[1]!.headers.cookie, undefined);
  });

  const REFUSED: readonly [what: string, serve: Serve, reason: string, retryable: boolean][] = [
    ['404', status(404), 'INPUT_NOT_FOUND', false],
    ['410', status(410), 'INPUT_NOT_FOUND', false],
    ['401', status(401, { 'www-authenticate': 'Basic' }), 'INPUT_FORBIDDEN', false],
    ['403', status(403), 'INPUT_FORBIDDEN', false],
    ['400', status(400), 'INPUT_NOT_READABLE', false],
    ['418', status(418), 'INPUT_NOT_READABLE', false],
    ['429, again and again', status(429), 'INPUT_UNREACHABLE', true],
    ['500, again and again', status(500), 'INPUT_UNREACHABLE', true],
    ['503, again and again', status(503), 'INPUT_UNREACHABLE', true],
    ['204', status(204), 'INPUT_NOT_READABLE', false],
    ['an empty file', (_, response) => void response.end(), 'INPUT_NOT_READABLE', false],
    ['206 that nobody asked for', status(206), 'INPUT_NOT_READABLE', false],
    ['304 that nobody asked for', status(304), 'INPUT_NOT_READABLE', false],
    ['a redirect without a target', status(302), 'INPUT_NOT_READABLE', false],
    ['a gzip bomb', bomb, 'INPUT_NOT_READABLE', false],
    ['an encoding with control characters', status(200, { 'content-encoding': 'x\u0080' }), 'INPUT_NOT_READABLE', false],
    ['no end', endless, 'INPUT_TOO_LARGE', false],
    ['too great a length', status(200, { 'content-length': `${2 ** 40}` }), 'INPUT_TOO_LARGE', false],
    ['a web page', (_, response) => void response.end('<!doctype html><p>Log in'), 'INPUT_NOT_READABLE', false],
    ['a playlist', (_, response) => void response.end('#EXTM3U\n#EXTINF:1,\n/etc/passwd\n'), 'INPUT_NOT_READABLE', false],
    ['the same cut, again and again', cut(BYTES, 500), 'INPUT_UNREACHABLE', true],
    ['no answer, again and again', (request) => void request.socket.destroy(), 'INPUT_UNREACHABLE', true],
    ['what is not HTTP', (request) => void request.socket.end('SSH-2.0-OpenSSH_9.2\r\n'), 'INPUT_NOT_READABLE', false],
    ['more headers than there is room for', status(200, { x: 'x'.repeat(64 * 1024) }), 'INPUT_NOT_READABLE', false],
  ];
  for (const [what, serve, reason, retryable] of REFUSED) {
    it(`is refused with a reason: ${what}`, async (t) => {
      const { from, files, dir } = await place(t);
      const failure = await from('/x.jpg', serve);
      assert.deepEqual([failure.reason, failure.retryable], [reason, retryable], failure.message);
      assert.doesNotMatch(failure.message, /127\.0\.0\.1|ECONN|undici|words of the server|\/x\.jpg|[\u0080-\u009f]/);
      assert.deepEqual(await files(), ['downloads']);
      assert.deepEqual(await readdir(join(dir, 'downloads')), []);
    });
  }

  it('that a server cannot send at first is asked for again', async (t) => {
    const { origin, from } = await place(t);
    assert.deepEqual(
      (
        await from(
          '/a.jpg',
          inTurn(
            status(503),
            (request) => void request.socket.destroy(),
            well(() => BYTES),
          ),
        )
      ).bytes,
      BYTES,
    );
    assert.equal(origin.requests.length, 3);
  });

  it('whose server is not there or is no name is out of reach', async (t) => {
    const closed = createServer();
    await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve));
    const { port } = closed.address() as { port: number };
    await new Promise((resolve) => closed.close(resolve));
    const { fetch } = await place(t, { hosts: { schemes: ['http'], allow: ['origin.example:1', `gone.example:${port}`], ports: [80] } });
    assert.deepEqual((({ reason, retryable }) => [reason, retryable])(await fetch(`http://gone.example:${port}/`)), [
      'INPUT_UNREACHABLE',
      true,
    ]);
    const nowhere = await place(t, { lookup: async () => Promise.reject(Object.assign(new Error('getaddrinfo'), { code: 'ENOTFOUND' })) });
    assert.match((await nowhere.fetch(nowhere.origin.url('/'))).message, /^there is no host origin\.example/);
  });
});

describe('a transfer that breaks', { concurrency: 4 }, () => {
  it('goes on where it broke off, by range and version', async (t) => {
    const { origin, from } = await place(t);
    const etag = '"one"';
    assert.deepEqual(
      (
        await from(
          '/a.jpg',
          inTurn(
            cut(BYTES, 50_000, { etag }),
            well(() => BYTES, { etag }),
          ),
        )
      ).bytes,
      BYTES,
    );
    const { range, 'if-range': condition } = origin.requests[1]!.headers;
    assert.equal(condition, etag);
    const at = Number(/^bytes=(\d+)-$/.exec(range!)![1]);
    assert.ok(at > 0 && at <= 50_000);
  });

  it('goes on by Last-Modified where that is old enough to tell versions apart', async (t) => {
    const { origin, from } = await place(t);
    const lastModified = 'Wed, 01 Jan 2020 00:00:00 GMT';
    const rest: Serve = (request, response) => {
      const at = rangeOf(request, lastModified)!;
      response.writeHead(206, { 'content-range': `bytes ${at}-${BYTES.length - 1}/${BYTES.length}` }).end(BYTES.subarray(at));
    };
    assert.deepEqual((await from('/a.jpg', inTurn(cut(BYTES, 50_000, { 'last-modified': lastModified }), rest))).bytes, BYTES);
    assert.equal(origin.requests[1]!.headers['if-range'], lastModified);

    const now = new Date().toUTCString();
    assert.deepEqual(
      (
        await from(
          '/b.jpg',
          inTurn(
            cut(BYTES, 50_000, { 'last-modified': now }),
            well(() => BYTES),
          ),
        )
      ).bytes,
      BYTES,
    );
    assert.equal(origin.requests.at(-1)!.headers.range, undefined);
  });

  it('goes on many times, as long as each brings something', async (t) => {
    const { from, origin } = await place(t);
    const etag = '"one"';
    const piece: Serve = (request, response) => {
      const at = rangeOf(request, etag) ?? 0;
      const range = { 'content-range': `bytes ${at}-${BYTES.length - 1}/${BYTES.length}` };
      response.writeHead(at === 0 ? 200 : 206, { etag, 'content-length': BYTES.length - at, ...(at === 0 ? {} : range) });
      response.write(BYTES.subarray(at, at + 20_000), () => response.socket?.end());
    };
    assert.deepEqual((await from('/a.jpg', piece)).bytes, BYTES);
    assert.ok(origin.requests.length >= 10);
  });

  const OTHER = picture(150_000, 7);
  const etag = '"one"';
  const start = cut(BYTES, 50_000, { etag });
  const REST: readonly [what: string, serve: Serve, bytes: Buffer][] = [
    ['the file has changed', well(() => OTHER, { etag: '"two"' }), OTHER],
    ['the server knows no ranges', (_, response) => void response.end(BYTES), BYTES],
    [
      'the range is refused',
      inTurn(
        status(416),
        well(() => OTHER, { etag: '"two"' }),
      ),
      OTHER,
    ],
    [
      'the range begins elsewhere',
      inTurn(
        status(206, { 'content-range': `bytes 5-${BYTES.length - 1}/${BYTES.length}` }),
        well(() => BYTES, { etag }),
      ),
      BYTES,
    ],
    [
      'the range says nothing',
      inTurn(
        status(206),
        well(() => BYTES, { etag }),
      ),
      BYTES,
    ],
    [
      'the range is of another version',
      inTurn(
        (request, response) => {
          const at = rangeOf(request, etag)!;
          response.writeHead(206, { etag: '"two"', 'content-range': `bytes ${at}-${BYTES.length - 1}/${BYTES.length}` }).end(OTHER);
        },
        well(() => OTHER, { etag: '"two"' }),
      ),
      OTHER,
    ],
  ];
  for (const [what, serve, bytes] of REST) {
    it(`never mixes two versions: ${what}`, async (t) => {
      const { from } = await place(t);
      assert.deepEqual((await from('/a.jpg', inTurn(start, serve))).bytes, bytes);
    });
  }

  it('begins anew where the server names no version', async (t) => {
    const { from, origin } = await place(t);
    assert.deepEqual(
      (
        await from(
          '/a.jpg',
          inTurn(
            cut(BYTES, 50_000),
            well(() => BYTES),
          ),
        )
      ).bytes,
      BYTES,
    );
    assert.equal(origin.requests[1]!.headers.range, undefined);
  });

  it('that stands still or trickles is given up in time', async (t) => {
    const { from } = await place(t, { limits: { windowMs: 20, tries: 1 } });
    assert.equal((await from('/a.jpg', stuck(BYTES, 100))).reason, 'INPUT_TIMED_OUT');
    const trickle: Serve = (_, response) => {
      response.writeHead(200);
      const timer = setInterval(() => response.write(BYTES.subarray(0, 1)), 1);
      response.on('close', () => clearInterval(timer));
    };
    const failure = await from('/b.jpg', trickle);
    assert.deepEqual([failure.reason, failure.retryable], ['INPUT_TIMED_OUT', true]);
  });

  it('has an end: for the headers, and for the whole', async (t) => {
    const headers = await place(t, { limits: { connectMs: 10, headersMs: 10, tries: 1 } });
    assert.equal((await headers.from('/a.jpg', () => {})).reason, 'INPUT_TIMED_OUT');
    const whole = await place(t, { limits: { totalMs: 50 } });
    assert.equal((await whole.from('/a.jpg', stuck(BYTES, 60_000))).reason, 'INPUT_TIMED_OUT');
  });
});

describe('redirects', { concurrency: 4 }, () => {
  it('are followed, relative and absolute, and their last place is asked by range again', async (t) => {
    const { origin, from } = await place(t);
    origin.on('/b', redirect(origin.url('/c.jpg'), 307));
    origin.on(
      '/c.jpg',
      inTurn(
        cut(BYTES, 9_000, { etag: '"e"' }),
        well(() => BYTES, { etag: '"e"' }),
      ),
    );
    assert.deepEqual((await from('/a', redirect('/b', 301))).bytes, BYTES);
    assert.deepEqual(paths(origin), ['/a', '/b', '/c.jpg', '/a', '/b', '/c.jpg']);
    assert.ok(origin.requests.at(-1)!.headers.range);
  });

  it('have an end', async (t) => {
    const { origin, from } = await place(t);
    const failure = await from('/a', redirect('/a'));
    assert.deepEqual(
      [failure.reason, failure.message],
      ['INPUT_NOT_READABLE', `origin.example:${origin.port} redirects more than 5 times`],
    );
    assert.equal(origin.requests.length, 6);
  });

  for (const target of [
    'http://169.254.169.254/latest/meta-data/',
    'http://127.0.0.1/',
    'http://[::1]/',
    'http://2130706433/',
    'http://localhost/',
    'http://inward.example/',
    'http://user:secret@origin.example/',
    'http://origin.example:22/',
    'ftp://origin.example/a.jpg',
    'file:///etc/passwd',
    'data:image/png;base64,AAAA',
    '//127.0.0.1/',
    'http://',
  ]) {
    it(`do not lead to ${target}`, async (t) => {
      const { origin, from } = await place(t);
      const failure = await from('/a', redirect(target));
      assert.notEqual(failure.reason, undefined);
      assert.equal(failure.retryable, false);
      assert.doesNotMatch(failure.message, /secret|meta-data|passwd/);
      assert.equal(origin.requests.length, 1);
    });
  }
});

describe('an address', { concurrency: 4 }, () => {
  it('is judged at the socket, each time that there is one', async (t) => {
    // Public when it is looked at, and the machine itself when it is connected to.
    const answers = ['93.184.216.34', '127.0.0.1'];
    const { origin, fetch } = await place(t, {
      hosts: { schemes: ['http'], allow: [], ports: [80] },
      lookup: async () => [{ address: answers.pop()!, family: 4 }],
    });
    assert.equal((await fetch('http://rebind.example/')).reason, 'INPUT_HOST_NOT_ALLOWED');
    assert.equal(origin.requests.length, 0);
  });

  it('of a name that has public and other ones is never another one', async (t) => {
    const { fetch } = await place(t, {
      hosts: { schemes: ['http'], allow: [], ports: [80] },
      lookup: async () => [
        { address: '10.0.0.1', family: 4 },
        { address: '::ffff:127.0.0.1', family: 6 },
        { address: '64:ff9b::7f00:1', family: 6 },
      ],
    });
    assert.equal((await fetch('http://mixed.example/')).reason, 'INPUT_HOST_NOT_ALLOWED');
  });

  it('that is listed is reached: by name and port, by address, by block', async (t) => {
    for (const entry of ['origin.example:PORT', '127.0.0.1:PORT', '127.0.0.0/8']) {
      const origin = await startOrigin();
      t.after(() => origin[Symbol.asyncDispose]());
      origin.on(
        '/a.jpg',
        well(() => BYTES),
      );
      const { fetch } = await place(t, {
        hosts: { schemes: ['http'], allow: [entry.replace('PORT', `${origin.port}`)], ports: entry.includes('/') ? [origin.port] : [80] },
      });
      assert.deepEqual((await fetch(origin.url('/a.jpg'))).bytes, BYTES, entry);
      const [mine] = entry.split(':');
      if (mine !== 'origin.example') assert.deepEqual((await fetch(`http://127.0.0.1:${origin.port}/a.jpg`)).bytes, BYTES, entry);
    }
  });
});

describe('one URL that many want', { concurrency: 4 }, () => {
  it('is one download', async (t) => {
    const { origin, fetch } = await place(t);
    const go = Promise.withResolvers<void>();
    origin.on('/a.jpg', (request, response) => void go.promise.then(() => well(() => BYTES)(request, response)));
    const all = Array.from({ length: 20 }, () => fetch(origin.url('/a.jpg#part')));
    await origin.asked('/a.jpg');
    go.resolve();
    for (const each of await Promise.all(all)) assert.deepEqual(each.bytes, BYTES);
    assert.equal(origin.requests.length, 1);
  });

  it('is for none of them to write to, kept or not', async (t) => {
    for (const cacheBytes of [2 ** 20, 0]) {
      const { origin, from, fetch } = await place(t, { cacheBytes });
      const [one, other] = await Promise.all([
        from(
          '/a.jpg',
          well(() => BYTES),
        ),
        fetch(origin.url('/a.jpg')),
      ]);
      for (const { path } of [one, other]) assert.equal((await stat(path)).mode & 0o777, 0o444);
    }
  });

  it('goes on when one leaves, and stops when the last one does', async (t) => {
    const { origin, fetch, dir } = await place(t);
    origin.on(
      '/a.jpg',
      inTurn(
        stuck(BYTES, 10_000),
        well(() => BYTES),
      ),
    );
    const [first, second] = [new AbortController(), new AbortController()];
    const one = fetch(origin.url('/a.jpg'), first.signal);
    const two = fetch(origin.url('/a.jpg'), second.signal);
    await origin.asked('/a.jpg');
    first.abort(new Error('the first leaves'));
    await assert.rejects(one, /the first leaves/);
    second.abort(new Error('the second leaves'));
    await assert.rejects(two, /the second leaves/);
    await origin.left('/a.jpg');
    assert.deepEqual((await fetch(origin.url('/a.jpg'))).bytes, BYTES);
    assert.equal(origin.requests.length, 2);
    assert.equal((await readdir(join(dir, 'downloads'))).length, 1);
  });

  it('fails for all of them alike, and is tried anew by the next', async (t) => {
    const { origin, fetch } = await place(t);
    origin.on(
      '/a.jpg',
      inTurn(
        status(404),
        well(() => BYTES),
      ),
    );
    const failures = await Promise.all([fetch(origin.url('/a.jpg')), fetch(origin.url('/a.jpg'))]);
    assert.deepEqual(new Set(failures.map(({ reason }) => reason)), new Set(['INPUT_NOT_FOUND']));
    assert.deepEqual((await fetch(origin.url('/a.jpg'))).bytes, BYTES);
  });
});

describe('what was downloaded before', { concurrency: 4 }, () => {
  it('is used again when its server says that it is the same', async (t) => {
    const { origin, from } = await place(t);
    assert.deepEqual(
      (
        await from(
          '/a.jpg',
          well(() => BYTES),
        )
      ).bytes,
      BYTES,
    );
    assert.deepEqual(
      (
        await from(
          '/a.jpg',
          well(() => BYTES),
        )
      ).bytes,
      BYTES,
    );
    assert.deepEqual(
      origin.requests.map((request) => request.headers['if-none-match']),
      [undefined, `"${BYTES.length}-${BYTES[100]}"`],
    );
  });

  it('is not used when the file has changed, or its server is gone', async (t) => {
    const { from } = await place(t);
    const changed = picture(1000, 3);
    let now = BYTES;
    assert.deepEqual(
      (
        await from(
          '/a.jpg',
          well(() => now),
        )
      ).bytes,
      BYTES,
    );
    now = changed;
    assert.deepEqual(
      (
        await from(
          '/a.jpg',
          well(() => now),
        )
      ).bytes,
      changed,
    );
    assert.equal((await from('/a.jpg', status(500))).reason, 'INPUT_UNREACHABLE');
    assert.equal((await from('/a.jpg', status(403))).reason, 'INPUT_FORBIDDEN');
  });

  it('is not kept where the server names no version for certain, or does not want it', async (t) => {
    const { origin, from } = await place(t);
    for (const headers of [
      { etag: 'W/"weak"' },
      { 'last-modified': new Date().toUTCString() },
      { etag: '"a"', 'cache-control': 'private, no-store' },
    ]) {
      const serve: Serve = (_, response) => void response.writeHead(200, headers).end(BYTES);
      await from('/a.jpg', serve);
      await from('/a.jpg', serve);
      const asked = origin.requests.at(-1)!.headers;
      assert.deepEqual([asked['if-none-match'], asked['if-modified-since']], [undefined, undefined]);
    }
  });

  it('is asked for anew where the server contradicts itself', async (t) => {
    const { from } = await place(t);
    await from(
      '/a.jpg',
      well(() => BYTES, { etag: '"one"' }),
    );
    const changed = picture(1000, 3);
    assert.deepEqual(
      (
        await from(
          '/a.jpg',
          inTurn(
            status(304, { etag: '"two"' }),
            well(() => changed, { etag: '"two"' }),
          ),
        )
      ).bytes,
      changed,
    );
  });

  it('takes no more room than it may: the least recently used goes', async (t) => {
    const { dir, from, origin } = await place(t, { cacheBytes: 500_000 });
    const [a, b, c] = [picture(200_000, 1), picture(200_000, 2), picture(200_000, 3)];
    await from(
      '/a.jpg',
      well(() => a),
    );
    await from(
      '/b.jpg',
      well(() => b),
    );
    await from(
      '/a.jpg',
      well(() => a),
    );
    await from(
      '/c.jpg',
      well(() => c),
    );
    assert.equal((await readdir(join(dir, 'downloads'))).length, 2);
    assert.deepEqual(
      (
        await from(
          '/a.jpg',
          well(() => a),
        )
      ).bytes,
      a,
    );
    assert.ok(origin.requests.at(-1)!.headers['if-none-match']);
    await from(
      '/b.jpg',
      well(() => b),
    );
    assert.equal(origin.requests.at(-1)!.headers['if-none-match'], undefined);
  });

  it('goes when no job has used it for its time, and its folder is made again when somebody removed it', async (t) => {
    const { from, dir } = await place(t, { cacheMs: 30 });
    const serve = well(() => BYTES);
    assert.deepEqual((await from('/a.jpg', serve)).bytes, BYTES);
    while ((await readdir(join(dir, 'downloads'))).length > 0) await sleep(10);
    await rm(join(dir, 'downloads'), { recursive: true });
    assert.deepEqual((await from('/b.jpg', serve)).bytes, BYTES);
  });

  it('is not kept at all where there is no room', async (t) => {
    const { dir, from } = await place(t, { cacheBytes: 0 });
    await from(
      '/a.jpg',
      well(() => BYTES),
    );
    assert.deepEqual(await readdir(join(dir, 'downloads')), []);
  });
});
