#!/usr/bin/env node
import { run } from '../scripts/node24.mjs';

await run('src/main.ts', process.argv.slice(2));
