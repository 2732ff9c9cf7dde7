#!/usr/bin/env node
import { existsSync } from 'node:fs';
import { run } from '../scripts/node24.mjs';

// A checkout has TypeScript, the package what was made from it.
const source = new URL('../src/main.ts', import.meta.url);
await run(existsSync(source) ? 'src/main.ts' : 'src/main.js', process.argv.slice(2));
