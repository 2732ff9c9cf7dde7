// Hostile references, as data: each is refused for its expected reason, at submit where its letters tell, else before anything is connected to.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Hosts } from '../src/media/hosts.ts';
import { type HttpReferences, openHttp } from '../src/media/http.ts';
import { localFiles, type MediaResolver, mediaReferences } from '../src/media/references.ts';
import { openS3 } from '../src/media/s3.ts';

interface Group {
  readonly class: string;
  readonly refused: string;
  readonly references: readonly string[];
  /** What their names resolve to. */
  readonly resolves?: readonly string[];
  readonly at?: 'fetch';
}

const ROOT = join(import.meta.dirname, '..');
const NEVER = new AbortController().signal;
const groups = JSON.parse(await readFile(join(import.meta.dirname, 'fixtures', 'media', 'hostile-references.json'), 'utf8')) as Group[];
const RULES = { schemes: ['http', 'https'], allow: ['minio.internal:9000', '10.9.0.0/16', '[fd00::5]:9000'], ports: [80, 443, 8080, 8443] };

describe('hostile references', () => {
  let dir: string;
  let http: HttpReferences;
  let s3: MediaResolver & AsyncDisposable;
  let references: MediaResolver;
  let resolves: readonly string[] = [];

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'ffjobs-hostile-references-'));
    await mkdir(join(dir, 'root', 'sub'), { recursive: true });
    await writeFile(join(dir, 'root', 'face.jpg'), 'face');
    await writeFile(join(dir, 'secret.jpg'), 'secret');
    http = await openHttp({
      dir: join(dir, 'downloads'),
      hosts: RULES,
      cacheBytes: 0,
      limits: { maxBytes: 1000 },
      lookup: async () => resolves.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })),
    });
    s3 = openS3({
      connection: { endpoint: 'http://127.0.0.1:1', region: 'us-east-1', credentials: { accessKeyId: 'a', secretAccessKey: 'b' } },
      buckets: ['media'],
      mayRead: (_, key) => key.startsWith('tenant-a/'),
      maxBytes: 1000,
      totalMs: 10_000,
    });
    references = mediaReferences([localFiles(join(dir, 'root')), http, s3]);
  });

  after(async () => {
    await http[Symbol.asyncDispose]();
    await s3[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });

  it('are many, of many classes, each once', () => {
    const all = groups.flatMap((group) => group.references);
    assert.ok(all.length >= 300, `${all.length}`);
    assert.ok(new Set(groups.map((group) => group.class)).size >= 30);
    assert.deepEqual(
      all.filter((one, i) => all.indexOf(one) !== i),
      [],
    );
  });

  it('are refused for reasons that the page on media explains, as those of files are', async () => {
    const page = await readFile(join(ROOT, 'docs', '04-media-in.md'), 'utf8');
    const sources = ['src/media', 'worker/facefusion_worker/probe'].flatMap((folder) =>
      readdirSync(join(ROOT, folder))
        .filter((name) => /\.(ts|py)$/.test(name))
        .map((name) => readFileSync(join(ROOT, folder, name), 'utf8')),
    );
    const said = sources.flatMap((source) => source.match(/(?<=["'])(?:INPUT|UPLOAD)_[A-Z_]+(?=["'])|(?<=refusal\(')[A-Z_]+/g) ?? []);
    const reasons = new Set([...groups.map((group) => group.refused), ...said]);
    assert.ok(reasons.size >= 25, `${reasons.size}`);
    assert.deepEqual(
      [...reasons].filter((reason) => !page.includes(`\`${reason}\``)),
      [],
    );
  });

  for (const group of groups) {
    it(`are refused: ${group.class}`, async () => {
      resolves = group.resolves ?? [];
      for (const [i, reference] of group.references.entries()) {
        const violation = await references.check(reference, 'target_image', 'one');
        if (group.at === 'fetch') assert.equal(violation, undefined, reference);
        else assert.deepEqual([violation?.field, violation?.reason], ['target_image', group.refused], reference);
        const failure = await references.fetch(reference, join(dir, `${i}`), NEVER);
        assert.equal(failure?.retryable, false, reference);
        if (group.at === 'fetch') assert.equal(failure?.reason, group.refused, reference);
        assert.doesNotMatch(`${violation?.description} ${failure?.message}`, /127\.0\.0\.1:1|ECONN|ffjobs-hostile/, reference);
      }
    });
  }
});

describe('references that people have', () => {
  const hosts = new Hosts(RULES);
  for (const reference of [
    'https://cdn.example.com/images/person_a.jpg',
    'http://example.com',
    'https://example.com:8443/a?X-Amz-Signature=abc&b=%2F..%2F',
    'https://example.com/a/../b.jpg',
    'https://bücher.example/ä.jpg',
    'https://xn--bcher-kva.example/a.jpg',
    'https://93.184.216.34/a.jpg',
    'https://[2606:2800:220:1:248:1893:25c8:1946]/a.jpg',
    'https://a-b_c.example.co.uk/a.jpg#fragment',
    'https://1.example.com/',
    'https://localhost.example.com/',
    'http://minio.internal:9000/bucket/a.jpg',
    'http://10.9.3.4/a.jpg',
    'http://10.9.3.4:8080/a.jpg',
    'http://[fd00::5]:9000/a.jpg',
    'http://[FD00:0::5]:9000/a.jpg',
  ]) {
    it(`are taken: ${reference}`, () => {
      assert.ok(hosts.parse(reference) instanceof URL, JSON.stringify(hosts.parse(reference)));
    });
  }

  it('name hosts of a list that must be right', () => {
    for (const entry of ['', 'a b', 'http://example.com', '10.0.0.0/33', 'host:0', 'host:99999', '*.example.com', '[::1', 'a..b']) {
      assert.throws(() => new Hosts({ ...RULES, allow: [entry] }), /is not a host/, entry);
    }
  });
});
