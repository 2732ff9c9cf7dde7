// The API's page for people: Swagger UI from the npm package, nothing from elsewhere. Always true: no script or style on the page is inline, and
// the policy it is sent with allows this origin only.
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { FastifyInstance } from 'fastify';
// The folder's name alone: the package's own entry loads the whole page into this process.
import getAbsoluteFSPath from 'swagger-ui-dist/absolute-path.js';
import type { Json } from './openapi.ts';

export interface DocsOptions {
  readonly document: Json;
  /** Where the page is. The document is there too, as `openapi.json`. Default `/docs`. */
  readonly path?: string;
  readonly title?: string;
}

const FILES: Readonly<Record<string, string>> = {
  'swagger-ui.css': 'text/css; charset=utf-8',
  'swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
  'favicon-32x32.png': 'image/png',
};

const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** Registers the page, its files and the document. All links are relative, so it may stand behind a prefix. */
export async function docs(app: FastifyInstance, { document, path = '/docs', title = 'API' }: DocsOptions): Promise<void> {
  const folder = getAbsoluteFSPath();
  const base = basename(path);
  const text = JSON.stringify(document);
  const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<link rel="stylesheet" href="${base}/swagger-ui.css">
<link rel="icon" href="${base}/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="${base}/swagger-ui-bundle.js"></script>
<script src="${base}/start.js"></script>
</body>
</html>
`;
  const start = `SwaggerUIBundle({ url: '${base}/openapi.json', dom_id: '#swagger-ui', deepLinking: true, tryItOutEnabled: true });\n`;

  app.addHook('onSend', async (_request, reply) => {
    reply.header('content-security-policy', POLICY).header('x-content-type-options', 'nosniff').header('referrer-policy', 'no-referrer');
  });
  app.get(path, (_request, reply) => {
    reply.type('text/html; charset=utf-8').send(html);
  });
  app.get(`${path}/start.js`, (_request, reply) => {
    reply.type('text/javascript; charset=utf-8').send(start);
  });
  app.get(`${path}/openapi.json`, (_request, reply) => {
    reply.type('application/json').send(text);
  });
  for (const [file, type] of Object.entries(FILES)) {
    let bytes: Promise<Buffer> | undefined;
    app.get(`${path}/${file}`, async (_request, reply) => {
      bytes ??= readFile(join(folder, file)).catch((error: unknown) => {
        // Tried again for the next one who asks.
        bytes = undefined;
        throw error;
      });
      reply.type(type).header('cache-control', 'public, max-age=86400');
      return bytes;
    });
  }
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`);
}
