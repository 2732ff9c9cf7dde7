// `npm run build:web`: makes `web/dist` of `web/`, each file with its brotli and gzip form beside it, so that serving costs no compression.
// The build is made in a folder of its own and takes the place of the last one at once: a service that starts meanwhile finds one or the other.
import { existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import { build } from 'vite';
import { consoleDigest, DIGEST_FILE } from '../src/cli/local/console.ts';

const ROOT = join(import.meta.dirname, '..');

async function buildWeb(): Promise<void> {
  const web = join(ROOT, 'web');
  const digest = consoleDigest(ROOT);
  const made = mkdtempSync(join(web, '.dist-'));
  try {
    const outDir = join(made, 'dist');
    mkdirSync(outDir);
    await build({ configFile: join(web, 'vite.config.ts'), logLevel: 'warn', build: { outDir, emptyOutDir: false } });
    for (const file of globSync('assets/*', { cwd: outDir })) {
      const plain = readFileSync(join(outDir, file));
      writeFileSync(join(outDir, `${file}.br`), brotliCompressSync(plain, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }));
      writeFileSync(join(outDir, `${file}.gz`), gzipSync(plain, { level: 9 }));
    }
    writeFileSync(join(outDir, DIGEST_FILE), digest);
    const dist = join(web, 'dist');
    if (existsSync(dist)) renameSync(dist, join(made, 'before'));
    try {
      renameSync(outDir, dist);
    } catch (error) {
      // Another build was quicker, of the same sources.
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
    }
  } finally {
    rmSync(made, { recursive: true, force: true });
  }
}

if (import.meta.main) await buildWeb();
