// The web console as it was built: a folder of files that never change while the process lives, held in memory with their compressed forms.
// Always true here: only names that the build wrote are served, so nothing is shadowed and no path is made of what a caller sends; and no page
// is sent without its policy. Knows files, not jobs.
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

export interface ConsoleOptions {
  /** What the build wrote: `index.html`, and under `assets` files whose names hold their digest. */
  readonly dir: string;
  /** Origins besides the service's own that results come from. */
  readonly mediaOrigins: readonly string[];
}

export interface Console {
  register(app: FastifyInstance): void;
}

/** Paths of the console's pages; what they show is the browser's affair. */
const PAGES: readonly string[] = ['/', '/jobs', '/jobs/:id', '/batches/:id', '/new', '/fleet'];

const TYPES: Readonly<Record<string, string>> = {
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** A file in each form that it is sent in. */
interface File {
  readonly type: string;
  readonly plain: Buffer;
  readonly br: Buffer | undefined;
  readonly gzip: Buffer | undefined;
}

/** Reads the built console; undefined where there is none. */
export async function openConsole({ dir, mediaOrigins }: ConsoleOptions): Promise<Console | undefined> {
  const index = await readIfThere(join(dir, 'index.html'));
  if (index === undefined) return undefined;
  const assets = new Map<string, File>();
  for (const name of await readdir(join(dir, 'assets'))) {
    const type = TYPES[extname(name)];
    if (type === undefined) continue;
    const path = join(dir, 'assets', name);
    assets.set(name, { type, plain: await readFile(path), br: await readIfThere(`${path}.br`), gzip: await readIfThere(`${path}.gz`) });
  }
  const policy = policyOf(mediaOrigins);
  // All links are relative to the base, so that the service may stand behind a prefix; a page one level down names it one level up.
  const pages = ['./', '../'].map((base) => page(index.toString().replace('<base href="./">', `<base href="${base}">`)));

  return {
    register(app) {
      for (const url of PAGES) {
        const { file, etag } = pages[url.split('/').length - 2]!;
        app.route({
          method: ['GET', 'HEAD'],
          url,
          handler(request, reply) {
            // Revalidated each time: it names the assets of this build.
            reply.headers({ ...policy, 'cache-control': 'no-cache', etag });
            if (request.headers['if-none-match'] === etag) return reply.code(304).send();
            return sendFile(request, reply, file);
          },
        });
      }
      app.route<{ Params: { name: string } }>({
        method: ['GET', 'HEAD'],
        url: '/assets/:name',
        handler(request, reply) {
          const file = assets.get(request.params.name);
          if (file === undefined) {
            const message = 'this is no file of the console; reload the page, it may be of an earlier version';
            return reply.code(404).send({ code: 'NOT_FOUND', message, details: [] });
          }
          reply.headers({ 'cache-control': 'public, max-age=31536000, immutable', 'x-content-type-options': 'nosniff' });
          return sendFile(request, reply, file);
        },
      });
    },
  };
}

function page(html: string): { file: File; etag: string } {
  const plain = Buffer.from(html);
  const digest = createHash('sha256').update(plain).digest('base64url').slice(0, 22);
  const file = { type: 'text/html; charset=utf-8', plain, br: brotliCompressSync(plain), gzip: gzipSync(plain) };
  return { file, etag: `W/"${digest}"` };
}

/** Sends the smallest form that the caller takes. */
function sendFile(request: FastifyRequest, reply: FastifyReply, { type, plain, br, gzip }: File): FastifyReply {
  const taken = acceptedEncodings(String(request.headers['accept-encoding'] ?? ''));
  const [encoding, bytes] = br && taken.has('br') ? ['br', br] : gzip && taken.has('gzip') ? ['gzip', gzip] : [undefined, plain];
  const vary = reply.raw.getHeader('vary');
  reply.headers({ 'content-type': type, vary: vary === undefined ? 'Accept-Encoding' : `${vary}, Accept-Encoding` });
  if (encoding !== undefined) reply.header('content-encoding', encoding);
  reply.header('content-length', bytes.length);
  return reply.send(request.method === 'HEAD' ? null : bytes);
}

/** Codings that are named with a weight above 0 (RFC 9110, section 12.5.3). */
function acceptedEncodings(header: string): ReadonlySet<string> {
  const entries = header.toLowerCase().split(',');
  return new Set(entries.filter((entry) => !/;\s*q=0(\.0*)?\s*$/.test(entry)).map((entry) => entry.split(';')[0]!.trim()));
}

function policyOf(mediaOrigins: readonly string[]): Readonly<Record<string, string>> {
  const media = ["'self'", 'blob:', ...mediaOrigins].join(' ');
  const directives = [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    `img-src ${media} data:`,
    `media-src ${media}`,
    "connect-src 'self'",
    "base-uri 'self'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ];
  return {
    'content-security-policy': directives.join('; '),
    'cross-origin-opener-policy': 'same-origin',
    'permissions-policy': 'camera=(), geolocation=(), microphone=(), payment=(), usb=()',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
  };
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
