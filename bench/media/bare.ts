// What Node does by itself with the same bytes, in a process of its own: streams and hashes them, with nothing around. Says the seconds that it took.
// Usage: bare.ts in URL FILE | hash FILE | out FILE URL | get URL... | serve FILE (says its port)
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { createServer, get, type IncomingMessage, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';

const [mode, ...args] = process.argv.slice(2);
const [first, second] = args as [string, string];
const began = performance.now();

const fetched = (url: string, headers = {}) =>
  new Promise<IncomingMessage>((resolve, reject) => get(url, { headers }, resolve).on('error', reject));

function hashing(): Transform {
  const hash = createHash('sha256');
  return new Transform({
    transform(chunk: Buffer, _, done) {
      hash.update(chunk);
      done(null, chunk);
    },
    flush(done) {
      hash.digest('hex');
      done();
    },
  });
}

switch (mode) {
  case 'in':
    await pipeline(await fetched(first), hashing(), createWriteStream(second));
    break;
  case 'hash': {
    const hash = createHash('sha256');
    for await (const chunk of createReadStream(first)) hash.update(chunk as Buffer);
    hash.digest('hex');
    // As the store does before it says that it has it.
    const file = await open(first, 'r+');
    await file.sync();
    await file.close();
    break;
  }
  case 'out': {
    const sent = request(second, { method: 'PUT', headers: { 'content-length': statSync(first).size } });
    const answered = new Promise<IncomingMessage>((resolve, reject) => sent.on('response', resolve).on('error', reject));
    await pipeline(createReadStream(first), hashing(), sent);
    (await answered).resume();
    break;
  }
  case 'get':
    // `URL` or `URL#FROM-TO`: one after another.
    for (const one of args) {
      const [url, range] = one.split('#') as [string, string | undefined];
      const response = await fetched(url, range === undefined ? {} : { range: `bytes=${range}` });
      if (response.statusCode !== (range === undefined ? 200 : 206)) throw new Error(`${response.statusCode} for ${one}`);
      for await (const chunk of response) void chunk;
    }
    break;
  case 'serve':
    createServer((incoming, response) => {
      const { size } = statSync(first);
      const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(incoming.headers.range ?? '') ?? [];
      const range = from === undefined ? undefined : { start: Number(from), end: Number(to) };
      response.writeHead(range ? 206 : 200, { 'content-length': range ? range.end - range.start + 1 : size });
      createReadStream(first, range).pipe(response);
    })
      .listen(0, '127.0.0.1')
      .on('listening', function (this: { address(): unknown }) {
        process.stdout.write(`${(this.address() as AddressInfo).port}\n`);
      });
    break;
}
if (mode !== 'serve') {
  process.stdout.write(`${(performance.now() - began) / 1000}\n`);
  process.exit(0);
}
