// The fenced blocks of the pages, as whoever copies them finds them. Owner of the one way to say that a block is not run: a comment in the page's
// source, right before it, with the reason: `<!-- not run: needs a GPU -->`.
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Block {
  /** Path of its page below the repository. */
  readonly page: string;
  /** Of its fence, from 1. */
  readonly line: number;
  /** First word after the fence, such as `sh`. */
  readonly language: string;
  /** What follows that word. */
  readonly info: string;
  readonly code: string;
  /** Why it is not run, as the page says it. */
  readonly notRun?: string;
}

const PAGES = ['*.md', '{bench,examples,samples,clients/python}/*.md', 'docs/**/*.md'];
const FENCE = /^( *)(`{3,}|~{3,}) *(\S*) *(.*)$/;
const NOT_RUN = /^<!-- not run: (.{10,}) -->$/;

/** All blocks of README, docs and clients, in the order of the pages. Throws where a fence has no end, or a comment no block. */
export function documentationBlocks(root: string): Block[] {
  return globSync(PAGES, { cwd: root })
    .map((page) => page.replaceAll('\\', '/'))
    .sort()
    .flatMap((page) => blocksOf(page, readFileSync(join(root, page), 'utf8')));
}

export function blocksOf(page: string, text: string): Block[] {
  const lines = text.split('\n');
  const blocks: Block[] = [];
  const isBlank = (at: number) => lines[at] === undefined || lines[at].trim() === '';
  let notRun: string | undefined;
  for (let at = 0; at < lines.length; at++) {
    const fence = FENCE.exec(lines[at]!);
    if (!fence) {
      // Markdown takes it for a block too, but it has no language to be run by. Within a list it is a paragraph.
      const outer = lines.slice(0, at).findLast((line) => /^\S/.test(line));
      if (/^ {4}\S/.test(lines[at]!) && isBlank(at - 1) && !/^(?:[-*]|\d+\.) /.test(outer ?? ''))
        throw new Error(`${page}:${at + 1}: a block without a fence`);
      // Only blank lines may stand between the comment and its block.
      if (notRun !== undefined && lines[at]!.trim() !== '') throw new Error(`${page}:${at}: a comment 'not run' without a block after it`);
      notRun ??= NOT_RUN.exec(lines[at]!.trim())?.[1];
      continue;
    }
    const [, indent = '', marks = '', language = '', info = ''] = fence;
    const end = lines.findIndex((line, index) => index > at && line.trim() === marks);
    if (end === -1) throw new Error(`${page}:${at + 1}: this fence has no end`);
    const code = lines.slice(at + 1, end).map((line) => line.slice(indent.length));
    blocks.push({ page, line: at + 1, language, info, code: `${code.join('\n')}\n`, notRun });
    notRun = undefined;
    at = end;
  }
  if (notRun !== undefined) throw new Error(`${page}: its last comment 'not run' has no block after it`);
  return blocks;
}

export const placeOf = ({ page, line }: Block) => `${page}:${line}`;
